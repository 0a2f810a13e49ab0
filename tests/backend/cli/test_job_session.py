"""What a job's events become in its folder, driven by a written-out list of events."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from backend.cli.job_arguments import JobFile
from backend.cli.job_history import HistoryLog
from backend.cli.job_session import JobSession, first_interrupt
from backend.cli.output_folder import OutputFolder, begin
from backend.cli.progress import PlainProgress, duration
from backend.optimize.events import (
    CheckpointSaved,
    Event,
    Finished,
    Loading,
    Preview,
    StageStarted,
    StepDone,
    Warned,
)
from backend.representations.mesh_data import MeshData
from protocol.settings import GridStage, JobSettings, MeshStage

STEPS = 8


def ball(size: float) -> MeshData:
    shape = trimesh.creation.icosphere(1)
    colors = np.tile(np.float32([0.9, 0.1, 0.1]), (len(shape.vertices), 1))
    return MeshData((shape.vertices * size).astype(np.float32), shape.faces.astype(np.int32), colors)


def disc(azimuths: list[float], elevation: float, size: int) -> np.ndarray:
    """A red disc with transparent surroundings."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    view = np.zeros((size, size, 4), np.uint8)
    view[np.hypot(x, y) < size / 3] = (220, 30, 30, 255)
    return np.repeat(view[None], len(azimuths), 0)


def events() -> Iterator[Event]:
    yield Loading("the stage")
    for number in range(1, STEPS + 1):
        if number in (1, STEPS // 2 + 1):
            stage = int(number > 1)
            yield StageStarted(stage, 2, ("grid", "mesh")[stage], STEPS // 2)
        angles = tuple((number * 20.0 + 90 * view) % 360 for view in range(4))
        numbers = {"gradient_norm": 1.0 / number}
        yield StepDone(number, STEPS, stage, 0.05, 1.0, numbers, angles, (15.0,) * 4, 100.0 * number)
        yield Preview(number, lambda: ball(0.5), disc)
        if number % 3 == 0:
            yield CheckpointSaved(number, 0.01)
    yield Warned("A speck was removed.")
    yield Finished(STEPS, ball(0.9), 0.4, {"threshold": 0.5})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    folder = begin(tmp_path / "out", "galatea generate")
    yield folder
    folder.close()


@pytest.fixture
def session(folder: OutputFolder) -> Iterator[JobSession]:
    stages = (GridStage(steps=STEPS // 2), MeshStage(steps=STEPS // 2))
    job = JobFile("generate", JobSettings(prompt="a red ball", stages=stages, prior="analytic"))
    folder.write("job/job.json", b"{}")
    session = JobSession(job, folder, HistoryLog(folder.job), PlainProgress())
    yield session
    session.close()


def test_results_are_complete_and_nothing_else_is_left(session: JobSession, folder: OutputFolder) -> None:
    finished = session.follow(events())
    assert finished is not None
    session.write_results(finished, {"packages": {}, "device": "cpu"}, None)
    names = {"mesh.glb", "preview.png", "preview.webp", "report.html", "report.json", "turntable.png"}
    assert {path.name for path in folder.path.iterdir()} == names

    mesh = trimesh.load(folder.path / "mesh.glb", force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, ball(0.9).positions, atol=1e-6)
    with Image.open(folder.path / "turntable.png") as sheet:
        assert sheet.width == 2 * sheet.height == 1280
    with Image.open(folder.path / "preview.webp") as animation:
        assert animation.n_frames > STEPS
    report = json.loads((folder.path / "report.json").read_text())
    assert report["steps"]["step"] == list(range(1, STEPS + 1))
    assert report["warnings"] == ["A speck was removed."]
    assert report["facts"] == {"threshold": 0.5}
    assert [entry["after_step"] for entry in report["checkpoints"]] == [3, 6]


def test_preview_is_a_whole_picture_after_every_step(
    session: JobSession, folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.cli.job_session.PREVIEW_SHARE", 1e9)
    sizes = set()

    def watched() -> Iterator[Event]:
        for event in events():
            path = folder.path / "preview.png"
            if path.exists():
                with Image.open(io.BytesIO(path.read_bytes())) as picture:
                    picture.load()
                    sizes.add(picture.size)
            yield event

    session.follow(watched())
    assert len(sizes) == 2  # without earlier pictures at first, then with a row of them
    assert {width for width, _ in sizes} == {768}


def test_slow_previews_are_left_out(session: JobSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that says that drawing takes a second and everything else no time."""
    seconds = [0.0]
    monkeypatch.setattr("backend.cli.job_session.time.perf_counter", lambda: seconds[0])
    session.start_clock()
    drawn = []

    def slow(azimuths: list[float], elevation: float, size: int) -> np.ndarray:
        seconds[0] += 1.0
        drawn.append(seconds[0])
        return disc(azimuths, elevation, size)

    def previews() -> Iterator[Event]:
        for number in range(1, 101):
            seconds[0] += 0.5
            yield Preview(number, lambda: ball(0.5), slow)

    session.follow(previews())
    assert 4 <= len(drawn) <= 7  # in about 55 seconds
    assert drawn[0] == 1.5  # the first one at once


def test_cancelled_job_has_no_result(session: JobSession, folder: OutputFolder) -> None:
    assert session.follow(event for event in events() if not isinstance(event, Finished)) is None
    assert session.last_step == STEPS
    assert not (folder.path / "report.json").exists()


def test_progress_goes_to_standard_error_alone(session: JobSession, capsys: pytest.CaptureFixture[str]) -> None:
    session.follow(events())
    said = capsys.readouterr()
    assert said.out == ""
    assert "Stage 1 of 2: shaping a density grid" in said.err
    assert "Note: A speck was removed." in said.err
    assert f"Step {STEPS} of {STEPS}" in said.err
    assert "preview.png" in said.err


def test_first_interrupt_asks_and_the_second_interrupts() -> None:
    asked = []
    with pytest.raises(KeyboardInterrupt), first_interrupt(lambda: asked.append(True)):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [True]
        os.kill(os.getpid(), signal.SIGINT)
    assert asked == [True]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words
