"""The one timer: calls the pump for as long as the extension is enabled."""

from __future__ import annotations

import time

import bpy

from .pump import BUSY, pump


def tick() -> float:
    """Never raises: Blender drops a timer that does."""
    try:
        return pump(time.monotonic())
    except Exception as error:  # the pump itself survives everything; this is for the moment of being disabled
        print(f"Galatea: {type(error).__name__}: {error}")
        return 1.0


def start() -> None:
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=BUSY, persistent=True)


def stop() -> None:
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)


def wake() -> None:
    """Have the next turn soon, though the last one said that there was nothing to do."""
    if bpy.app.timers.is_registered(tick):
        stop()
        start()
