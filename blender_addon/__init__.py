"""Galatea in Blender: a panel in the 3D View's sidebar that sends jobs to the Galatea service on this machine.

Importing this package alone needs no Blender; everything that does is imported when the extension is registered.
"""

from __future__ import annotations


def register() -> None:
    from . import registration

    registration.register()


def unregister() -> None:
    from . import registration

    registration.unregister()
