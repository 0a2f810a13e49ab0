"""The harness that every other test in Blender stands on: what it returns, what it ends, what it keeps out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blender.blender import Blender, ScriptFailed
from tests.blender.environments import ensure


def test_a_script_runs_in_the_right_blender_with_folders_of_its_own(blender: Blender) -> None:
    def script(text: str, numbers: list[float]) -> dict:
        import importlib.util
        import os
        import sys

        import bpy
        import numpy as np

        bundled = [name for name in ("zmq", "msgpack", "msgspec") if importlib.util.find_spec(name)]
        return {
            "version": bpy.app.version_string,
            "python": sys.version_info[:2],
            "objects": len(bpy.data.objects),
            "user": bpy.utils.resource_path("USER"),
            "home": os.path.expanduser("~"),
            "bundled": bundled,
            "text": text,
            "sum": np.float32(sum(numbers)),
        }

    seen = blender.run(script, "ä", [1.5, 2])
    release = blender.environment.release
    assert seen["version"].startswith(release.bpy) and tuple(seen["python"]) == release.python
    assert seen["objects"] == 0 and seen["text"] == "ä" and seen["sum"] == 3.5
    assert str(blender.folder) in seen["user"] and str(blender.folder) in seen["home"]
    assert seen["bundled"] == []


def test_a_failing_script_shows_its_traceback_and_output(blender: Blender) -> None:
    def script() -> None:
        print("before")
        raise ValueError("the reason")

    with pytest.raises(ScriptFailed, match=r"(?s)ended with 1.*before.*ValueError: the reason"):
        blender.run(script)


def test_a_hanging_script_is_ended_with_what_it_started(blender: Blender, tmp_path: Path) -> None:
    def script(file: str) -> None:
        import subprocess
        import time

        child = subprocess.Popen(["sleep", "300"])
        with open(file, "w") as out:
            out.write(str(child.pid))
        time.sleep(300)

    running = blender.start(script, tmp_path / "pid")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    assert is_running(child)
    with pytest.raises(ScriptFailed, match="was not done after"):
        running.result(timeout=0.2)
    wait_until(lambda: not is_running(child))


def test_a_registered_timer_cannot_hold_the_process(blender: Blender) -> None:
    def script() -> bool:
        import bpy

        bpy.app.timers.register(lambda: 0.1, persistent=True)
        return True

    assert blender.run(script)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z" and os.path.exists(f"/proc/{pid}")


def test_an_interrupted_environment_is_made_again(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "place", ["a==1"], interrupted)
    assert list(tmp_path.iterdir()) == []

    made: list[Path] = []
    for contents in (["a==1"], ["a==1"], ["a==2"]):
        ensure(tmp_path / "place", contents, made.append)
    assert len(made) == 2, "made for the first contents, kept, and made anew for the second"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
