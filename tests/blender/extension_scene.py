"""For the checks of the installed extension, within Blender: its session with a scripted client instead of the real one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import bpy
from tests.blender.extension_parts import part
from tests.blender.scripted_link import ScriptedClient


def run_checks(module: dict[str, object]) -> dict[str, str | None]:
    """Every check_ function of a script in an empty file of its own: name -> None, or how it failed."""
    outcomes = {}
    for name, check in list(module.items()):
        if name.startswith("check_") and isinstance(check, Callable):
            bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
            try:
                check()
                outcomes[name] = None
            except BaseException:
                outcomes[name] = traceback.format_exc()
    return outcomes


def session():
    return part("session").current()


def fresh():
    """The session as after enabling the extension, with a scripted client and a service folder of its own."""
    part("session").close_session()
    scene = part("scene").BlenderScene()
    made = part("session").Session("a check", scene, ScriptedClient)
    part("session").open_session(made)
    folder = Path(bpy.utils.resource_path("USER")) / f"service-{time.monotonic_ns()}"
    part("preferences").preferences(bpy.context).service_folder = str(folder)
    part("preferences").open_link(bpy.context)
    return made


def pump(turns: int = 3) -> None:
    for _ in range(turns):
        part("pump").pump(time.monotonic())


def tell(*told: object) -> None:
    """The client tells something, and the pump takes it."""
    session().client.tell(*told)
    pump()


def generate(prompt: str = "a red mug"):
    """A job of a fresh session, begun by the panel's button."""
    fresh()
    bpy.context.window_manager.galatea.prompt = prompt
    bpy.ops.galatea.generate()
    pump()
    return next(reversed(session().jobs.values()))
