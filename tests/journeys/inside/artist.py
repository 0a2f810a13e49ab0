"""What an artist does in Blender: press buttons of the installed extension, and wait for what it does.

Timers do not fire in the bpy module, so the pump is called here, as its timer would.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import bpy

from tests.journeys.inside.reading import digest, positions

MODULE = "bl_ext.user_default.galatea"


def part(name: str):
    """A module of the installed extension."""
    return importlib.import_module(f"{MODULE}.{name}")


def session():
    return part("session").current()


def pump_until(condition: Callable[[], object], seconds: float, what: str, after: Callable[[], None] = lambda: None) -> None:
    """Lets the extension live until the condition holds. Raises AssertionError with the state if that takes too long."""
    pump = part("pump").pump
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}; {session().connection}; {part('session').jobs()}")
        due = pump(time.monotonic())
        after()
        time.sleep(min(due, 0.03))


def press(operator: str, **settings: object) -> str:
    """Runs an operator as a click does, undo step included; returns the error that Blender would show, or ""."""
    for name, value in settings.items():
        setattr(bpy.context.window_manager.galatea, name, value)
    function = bpy.ops
    for name in operator.split("."):
        function = getattr(function, name)
    try:
        function("INVOKE_DEFAULT", True)
    except RuntimeError as error:
        return str(error).removeprefix("Error: ").rpartition(".poll() ")[2].strip()
    return ""


class Watch:
    """Follows one job: `updates` has a row for each change of its preview's mesh, `status` is a file for the test to read."""

    def __init__(self, status: str | None = None) -> None:
        self.live = part("session").jobs()[-1]
        self.updates: list[dict] = []
        self.states: list[str] = []
        self.steps: list[int] = []
        """Every step that the panel showed, in order; it falls where a job goes on from a checkpoint."""
        self._status = Path(status) if status else None
        self._seen = ""
        self._told = None

    def look(self) -> None:
        connection = session().connection
        if connection and (not self.states or self.states[-1] != connection.state):
            self.states.append(connection.state)
        if not self.steps or self.steps[-1] != self.live.step:
            self.steps.append(self.live.step)
        preview = part("bridge.preview").find(self.live.job)
        if preview is not None and len(preview.data.vertices):
            seen = digest(positions(preview.data))
            if seen != self._seen:
                self._seen = seen
                step = self.live.shown.step if self.live.shown else 0
                self.updates.append({"step": step, "vertices": len(preview.data.vertices), "positions": seen})
        self._tell()

    def _tell(self) -> None:
        told = {"step": self.live.step, "phase": self.live.phase, "updates": len(self.updates), "states": self.states,
                "job": self.live.job}  # fmt: skip
        if self._status and told != self._told:
            self._told = json.loads(json.dumps(told))
            draft = self._status.with_suffix(".draft")
            draft.write_text(json.dumps(told), encoding="utf-8")
            os.replace(draft, self._status)

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        pump_until(condition, seconds, what, self.look)

    def to_the_end(self, seconds: float) -> None:
        """Until the result is there and shown. Raises AssertionError if the job ends otherwise."""
        self.until(lambda: self.live.ended, seconds, "the job ends")
        assert self.live.phase == "finished", (self.live.phase, self.live.problem)
        self.until(lambda: self.live.result is not None and self.live.frame is None, 20, "the result arrives")
        self.look()
