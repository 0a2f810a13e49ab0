"""A job under way when its worker is killed, and then the service: it goes on, and Blender finds its way back by itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blender.blender import Blender, Running
from tests.journeys.service import Service

SCRIPT = Path(__file__).parent / "inside" / "generating.py"
REQUEST = {"prompt": "a blue candle with a pink plate", "steps": 90, "seed": 4}
SECONDS = 240.0


def test_a_killed_worker_and_a_killed_service_cost_only_time(blender: Blender, tmp_path: Path) -> None:
    if blender.name != "blender-4.5":
        pytest.skip("once is enough: what reconnects is the client, which both Blenders run alike")
    with Service(tmp_path / "service") as service, blender.start(
        SCRIPT, REQUEST, tmp_path, SECONDS, function="generate", extension="installed",
        variables={"GALATEA_SERVICE_FOLDER": str(service.folder)},
    ) as running:  # fmt: skip
        wait_until(lambda: checkpoint(service, tmp_path).exists(), running, "a checkpoint")
        step = status(tmp_path)["step"]
        (worker,) = service.workers()
        worker.kill()
        wait_until(lambda: status(tmp_path)["step"] > step, running, "the job goes on with another worker")

        (orphan,) = service.workers()
        service.kill()
        wait_until(lambda: status(tmp_path)["states"][-1] != "connected", running, "Blender notices")
        service.start()
        wait_until(lambda: not orphan.is_running(), running, "the worker of the killed service ends by itself")
        wait_until(lambda: status(tmp_path)["states"][-1] == "connected", running, "Blender connects again")
        told = running.result(SECONDS)

    steps = told["steps"]
    fall = next((index for index in range(1, len(steps)) if steps[index] < steps[index - 1]), len(steps) - 1)
    saved = max(int(step) for note in told["notes"] for step in re.findall(r"checkpoint of step (\d+)", note))
    assert 0 < saved <= min(steps[fall:]), f"the artist is told, and no step is done twice but those after it: {steps}"
    assert steps[-1] == REQUEST["steps"]
    assert told["states"][-1] == "connected" and "refused" not in told["states"]
    assert told["accepted"]["vertices"] > 100 and told["others"]
    assert told["jobs"] <= 1, "the job was not submitted a second time"


def status(folder: Path) -> dict:
    """What the script in Blender last wrote."""
    file = folder / "status.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"step": 0, "states": ["none"], "job": "none"}


def checkpoint(service: Service, folder: Path) -> Path:
    return service.folder / "jobs" / status(folder)["job"] / "checkpoint.pt"


def wait_until(condition: Callable[[], bool], running: Running, what: str, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.process.poll() is None, f"the script ended while waiting for: {what}\n{running.output()}"
        assert time.monotonic() < deadline, f"waited in vain for: {what}\n{running.output()}"
        time.sleep(0.05)
