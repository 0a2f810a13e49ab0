"""Runs in a real Blender window (see real_window.py) and uses Galatea with mouse and keyboard, as xdotool sends them.

Buttons are found by what they do: Ctrl+C over a button copies its operator, over a field its value. A generator is the
script; each `yield` gives Blender that many seconds to live its own life. It reports measurements, not judgments.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Euler

SHARE = Path("/tmp/share")
MODULE = "bl_ext.user_default.galatea"
TASK = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text(encoding="utf-8"))
PLACEHOLDER = "here goes the prompt"
LOOK_EVERY = 0.02
JOB_LIMIT = 400.0

Place = tuple[int, int]
report: dict = {"blender": bpy.app.version_string, "python": sys.version.split()[0], "pictures": []}


def session():
    return sys.modules[f"{MODULE}.session"]


def find_preview(job: str) -> bpy.types.Object | None:
    return sys.modules[f"{MODULE}.bridge.preview"].find(job)


def xdotool(*words: object) -> None:
    subprocess.run(["xdotool", *map(str, words)], check=True)


def picture(name: str) -> None:
    subprocess.run(["import", "-window", "root", "-depth", "8", str(SHARE / f"{name}.png")], check=True)
    report["pictures"].append(name)


def view() -> bpy.types.Area:
    return next(area for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")


def sidebar() -> bpy.types.Region:
    return next(region for region in view().regions if region.type == "UI")


def on_screen(x: int, y: int) -> Place:
    """X11 counts from the top."""
    return x, bpy.context.window_manager.windows[0].height - y


# ---- acting


def prepare_window() -> Iterator[float]:
    """A scene without the default cube, seen from the front and a little above, and our tab of the sidebar in front."""
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    space = view().spaces.active
    space.region_3d.view_distance = 4.5
    space.region_3d.view_rotation = Euler((math.radians(75), 0.0, math.radians(25))).to_quaternion()
    space.show_region_ui = True
    yield 1.0
    sidebar().active_panel_category = "Galatea"
    view().tag_redraw()
    yield 1.0


def find(wanted: str) -> Iterator[float]:
    """Moves down the sidebar until Ctrl+C copies something with `wanted` in it; returns the place (None: not there)."""
    manager = bpy.context.window_manager
    region = sidebar()
    x = region.x + region.width // 3
    for patience in (1.0, 5.0):  # a busy machine needs more of it
        for y in range(region.y + region.height - 12, region.y, -9):
            manager.clipboard = ""
            xdotool("mousemove", *on_screen(x, y))
            yield 0.06 * patience
            xdotool("key", "ctrl+c")
            yield 0.09 * patience
            if wanted in manager.clipboard:
                return on_screen(x, y - 3)
    return None


def need(wanted: str) -> Iterator[float]:
    place = yield from find(wanted)
    if place is None:
        picture("not-found")
        raise AssertionError(f"nothing in the sidebar does {wanted}")
    return place


def click(place: Place) -> Iterator[float]:
    xdotool("mousemove", *place)
    yield 0.15
    xdotool("click", 1)


def write(place: Place, text: str) -> Iterator[float]:
    """Text into the field there."""
    xdotool("mousemove", *place)
    yield 0.15
    xdotool("click", "--repeat", 2, "--delay", 80, 1)
    yield 0.5
    xdotool("key", "ctrl+a")
    yield 0.1
    xdotool("type", "--delay", 15, text)
    yield 0.5 + 0.03 * len(text)
    xdotool("key", "Return")
    yield 0.5


def wait(condition: Callable[[], object], seconds: float, what: str) -> Iterator[float]:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            picture("waited-in-vain")
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        yield 0.1


# ---- looking


class Watch:
    """Notes when the job's mesh in the scene changed, and when the window was drawn with that change in it."""

    def __init__(self) -> None:
        self.pressed = time.monotonic()
        self.job = None
        self.updates: list[tuple[float, int, int]] = []
        """(seconds since Generate was pressed, step, vertices)"""
        self.drawn: list[tuple[float, int]] = []
        """(seconds, step) of drawings that showed something new"""
        self._seen = b""
        self._step = 0
        self._fresh = False
        self._handler = bpy.types.SpaceView3D.draw_handler_add(self._on_draw, (), "WINDOW", "POST_PIXEL")

    def look(self) -> None:
        jobs = session().jobs()
        if not jobs:
            return
        self.job = jobs[-1]
        preview = find_preview(self.job.job)
        if preview is None or not preview.data.vertices:
            return
        positions = np.empty(3 * len(preview.data.vertices), np.float32)
        preview.data.attributes["position"].data.foreach_get("vector", positions)
        content = positions.tobytes()
        if content != self._seen:
            self._seen, self._fresh = content, True
            self._step = self.job.shown.step if self.job.shown else 0
            self.updates.append((self.since(), self._step, len(preview.data.vertices)))

    def since(self) -> float:
        return round(time.monotonic() - self.pressed, 3)

    def _on_draw(self) -> None:
        if self._fresh:
            self._fresh = False
            self.drawn.append((self.since(), self._step))

    def close(self) -> None:
        bpy.types.SpaceView3D.draw_handler_remove(self._handler, "WINDOW")


def story() -> Iterator[float]:
    yield 1.0
    bpy.ops.extensions.package_install_files(
        filepath=str(SHARE / "galatea.zip"), repo="user_default", enable_on_install=False, overwrite=True
    )
    bpy.ops.preferences.addon_enable(module=MODULE)
    yield from prepare_window()
    area = view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    left, top = on_screen(region.x, region.y + region.height)
    report["view"] = [left, top, region.width - sidebar().width, region.height]
    yield from wait(lambda: session().current().connected, 30, "the extension connects to the service")

    settings = bpy.context.window_manager.galatea
    settings.seed, settings.steps, settings.prompt = TASK["seed"], TASK["steps"], PLACEHOLDER
    yield 0.5
    field = yield from need(PLACEHOLDER)
    yield from write(field, TASK["prompt"])
    report["typed"] = settings.prompt
    button = yield from need("galatea.generate")
    picture("before")

    yield from click(button)
    watch = Watch()
    moments = {"early": 0.0, "middle": 0.5}
    frames = itertools.count()
    next_frame = 0.0
    while watch.job is None or not watch.job.ended or watch.job.result is None or watch.job.frame is not None:
        if watch.since() > JOB_LIMIT or (watch.job and watch.job.phase in ("failed", "refused", "cancelled")):
            picture("failed")
            raise AssertionError(f"the job did not end well: {watch.job}, {session().current().connection}")
        watch.look()
        if TASK["film"] and watch.since() >= next_frame:
            next_frame = watch.since() + TASK["film"] / (3 if watch.since() < 10 else 1)  # most happens early
            subprocess.Popen(["import", "-window", "root", str(SHARE / f"film-{next(frames):04}.png")])
        done = watch.job.fraction() if watch.job and watch.drawn else -1.0
        for name, fraction in [*moments.items()]:
            if done > fraction:
                del moments[name]
                picture(name)
        yield LOOK_EVERY
    yield 1.0
    watch.look()
    watch.close()
    picture("finished")
    first = next((seconds for seconds, step in watch.drawn if step >= 1), None)
    report.update(
        first_visible_seconds=first, job_seconds=watch.since(), updates=watch.updates, drawings=len(watch.drawn)
    )

    preview = find_preview(watch.job.job).name
    yield from click((yield from need("galatea.accept")))
    yield from wait(lambda: find_preview(watch.job.job) is None, 10, "Accept ends the preview")
    xdotool("mousemove", *on_screen(region.x + region.width // 3, region.y + region.height // 2))
    yield 1.0
    picture("accepted")
    report["accepted"] = describe(preview)
    xdotool("key", "ctrl+z")
    yield 1.5
    report["after_undo"] = describe(preview)
    xdotool("key", "ctrl+shift+z")
    yield 1.5
    report["after_redo"] = describe(preview)


def describe(name: str) -> dict | None:
    """An object's mesh, None if there is no such object."""
    found = bpy.data.objects.get(name)
    if found is None:
        return None
    mesh = found.data
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.polygons),
        "materials": [material.name for material in mesh.materials],
        "colors": [attribute.name for attribute in mesh.color_attributes],
        "properties": [key for key in found.keys() if key.startswith("galatea")],
    }


def tick(script: Iterator[float]) -> float | None:
    try:
        return next(script)
    except StopIteration:
        (SHARE / "report.json").write_text(json.dumps(report), encoding="utf-8")
        bpy.ops.wm.quit_blender()  # as a person leaves, the extension still enabled
        return None
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(3)


bpy.context.preferences.view.show_splash = False
running = story()
bpy.app.timers.register(lambda: tick(running), first_interval=0.5, persistent=True)
