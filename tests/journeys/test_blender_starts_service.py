"""The service as an artist starts it: from the panel. It outlives that Blender, the next one finds it, and Stop ends it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from protocol.location import read_connection
from tests.blender.blender import Blender
from tests.blender.environments import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv" / "galatea.json").exists(), reason="Galatea is not set up by its launcher here"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For a service, of which nothing is left afterwards."""
    path = tmp_path / "service"
    yield path
    connection = read_connection(path) if path.exists() else None
    if connection is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(connection.pid, signal.SIGKILL)


def start(checkout: str) -> dict:
    import sys
    import time

    import bpy

    module = "bl_ext.user_default.galatea"
    session, pump = sys.modules[f"{module}.session"].current(), sys.modules[f"{module}.pump"].pump
    bpy.context.preferences.addons[module].preferences.checkout = checkout
    bpy.ops.galatea.start_service()
    seen, deadline = [], time.monotonic() + 60
    while not session.connected and time.monotonic() < deadline:
        pump(time.monotonic())
        if session.service.kind not in seen:
            seen.append(session.service.kind)
        time.sleep(0.02)
    bpy.ops.galatea.test_connection()
    while session.test_report == ("Testing ...",) and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"connected": session.connected, "seen": seen, "report": session.test_report, "problem": session.problem}


def stop() -> dict:
    import sys
    import time

    import bpy

    module = "bl_ext.user_default.galatea"
    session, pump = sys.modules[f"{module}.session"].current(), sys.modules[f"{module}.pump"].pump
    found = sys.modules[f"{module}.preferences"].open_link(bpy.context).process.state()
    deadline = time.monotonic() + 60
    while not session.connected and time.monotonic() < deadline:
        pump(time.monotonic())
        time.sleep(0.02)
    bpy.ops.galatea.stop_service()
    while session.service.kind != "stopped" and time.monotonic() < deadline:
        pump(time.monotonic())
        time.sleep(0.02)
    return {"found": [found.kind, found.pid], "left": session.service.kind, "problem": session.problem}


def test_it_is_started_found_again_and_stopped(blender: Blender, folder: Path) -> None:
    if blender.name != "blender-4.5":
        pytest.skip("once is enough: it is a process of the checkout's own Python")
    variables = {"GALATEA_SERVICE_FOLDER": str(folder)}
    started = blender.run(start, ROOT, extension="installed", variables=variables, timeout=120)
    assert started["connected"] and started["problem"] == ""
    assert "starting" in started["seen"] and "died" not in started["seen"]
    assert "It works" in started["report"][-1]
    pid = read_connection(folder).pid
    assert is_running(pid), "it lives on without the Blender that started it"

    stopped = blender.run(stop, extension="installed", variables=variables, timeout=120)
    assert stopped == {"found": ["running", pid], "left": "stopped", "problem": ""}
    assert not is_running(pid) and read_connection(folder) is None


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
