"""Switching the extension on and off."""

from __future__ import annotations

import atexit
import tomllib
from pathlib import Path

import bpy

from . import handlers, operators, panels, properties, timer
from .preferences import GalateaPreferences
from .scene import BlenderScene
from .session import Session, close_session, open_session

CLASSES = (*operators.CLASSES, *panels.CLASSES, GalateaPreferences)


def register() -> None:
    """May be called where the context is restricted: touches no scene and connects to nothing."""
    open_session(Session(f"Galatea {version()} in Blender {bpy.app.version_string}", BlenderScene()))
    properties.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    handlers.register()
    timer.start()
    atexit.register(leave)


def unregister() -> None:
    """Leaves nothing behind; the service and its jobs go on."""
    atexit.unregister(leave)
    timer.stop()
    handlers.unregister()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    properties.unregister()
    close_session()


def leave() -> None:
    """Blender quits without switching extensions off; a timer or a connection left behind could keep it from ending."""
    timer.stop()
    close_session()


def version() -> str:
    """The extension's."""
    manifest = tomllib.loads((Path(__file__).parent / "blender_manifest.toml").read_text(encoding="utf-8"))
    return manifest.get("version", "of the checkout")
