"""Switching the extension on and off."""

from __future__ import annotations


def register() -> None:
    """May be called where the context is restricted: touches no scene and connects to nothing."""


def unregister() -> None:
    pass
