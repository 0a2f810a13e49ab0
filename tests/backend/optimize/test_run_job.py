"""The loop: repeatable, resumable, steerable, and never touched by those who watch it. On a prior known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.errors import InputError
from backend.optimize.checkpoint import FILE_NAME, load_checkpoint
from backend.optimize.control import Control
from backend.optimize.events import CheckpointSaved, Event, Finished, Preview, Remeshed, StageStarted, StepDone
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import render_mesh
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import icosphere
from backend.representations.unwrap import unwrap
from protocol.settings import Constant, GridStage, GuidanceSettings, JobSettings, MeshStage, StartShape

SIZE = 16
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
GRID = GridStage(steps=6, resolution=12, samples_per_ray=16, guidance=GUIDANCE, target_vertices=120)
MESH = MeshStage(steps=8, guidance=GUIDANCE, remesh_every=3, target_vertices=120, laplacian=1.0)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Four views of a bright disk or a dark one; the disk is smaller than the start, so that shapes must move."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.25).float()
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    bright = (disk * color + (1 - disk) * 0.5) * 2 - 1
    components = {"disk": Component(bright.expand(4, 3, SIZE, SIZE), 0.2), "dark": Component(-bright.expand(4, 3, SIZE, SIZE), 0.2)}
    return GaussianMixturePrior(components, linear_alphas_cumprod())


def settings(**changes: object) -> JobSettings:
    job = JobSettings(prompt="disk", stages=(GRID, MESH), seed=4, prior="analytic", checkpoint_seconds=1e-6, preview_seconds=1e-6)
    return msgspec.structs.replace(job, **changes)


def finished(events: Iterator[Event]) -> MeshData:
    *_, last = events
    assert isinstance(last, Finished)
    return last.mesh


def same(a: MeshData, b: MeshData) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.positions, b.positions), (a.faces, b.faces), (a.colors, b.colors)))


@pytest.fixture(scope="module")
def uninterrupted(prior: GaussianMixturePrior, tmp_path_factory: pytest.TempPathFactory) -> MeshData:
    quiet = settings(checkpoint_seconds=1e6, preview_seconds=1e6)
    return finished(run_job(quiet, None, prior, tmp_path_factory.mktemp("whole")))


def test_watching_and_saving_change_nothing(prior: GaussianMixturePrior, uninterrupted: MeshData, tmp_path: Path) -> None:
    seen: list[Event] = []
    for event in run_job(settings(), None, prior, tmp_path):
        if isinstance(event, Preview):
            assert event.render([0.0, 90.0], 10.0, 24).shape == (2, 24, 24, 4)
            torch.rand(3)  # a watcher's own random numbers
        seen.append(event)
    steps = [event for event in seen if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 15)) and {event.total for event in steps} == {14}
    assert [event.kind for event in seen if isinstance(event, StageStarted)] == ["grid", "mesh"]
    assert any(isinstance(event, Remeshed) for event in seen)
    assert same(seen[-1].mesh, uninterrupted)


@pytest.mark.parametrize("killed_after", [1, 5, 6, 7, 9, 13])
def test_resumed_equals_uninterrupted(
    prior: GaussianMixturePrior, uninterrupted: MeshData, tmp_path: Path, killed_after: int
) -> None:
    """Abandoning the generator is what a kill does: nothing runs after the last checkpoint."""
    events = run_job(settings(), None, prior, tmp_path)
    saved = (event for event in events if isinstance(event, CheckpointSaved))
    assert [event.step for event in islice(saved, killed_after)][-1] == killed_after
    del events
    torch.manual_seed(999)
    rest = list(run_job(settings(), None, prior, tmp_path, resume=True))
    first = next(event for event in rest if isinstance(event, StepDone))
    assert first.step == killed_after + 1
    assert same(rest[-1].mesh, uninterrupted)


def test_a_texture_is_painted_and_resumed_bit_for_bit(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    """On a mesh of the grid's own, unwrapped by the job; its texture comes near the color of the prior's disk."""
    paint = MeshStage(steps=30, guidance=GUIDANCE, texture_size=64, texture_rate=Constant(0.05))
    job = settings(stages=(GRID, MESH, paint), checkpoint_seconds=1e6, preview_seconds=1e6)
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = finished(run_job(job, None, prior, tmp_path / "whole"))
    assert whole.material.base_color.shape == (64, 64, 3)
    assert 0.0 <= whole.uvs.min() and whole.uvs.max() <= 1.0 and whole.uv_faces.shape == whole.faces.shape
    color = np.median(whole.colors, axis=0)
    assert color[0] > color[1] + 0.2 and color[0] > color[2] + 0.2, color

    interrupted = run_job(settings(stages=job.stages), None, prior, tmp_path / "killed")
    saved = (event.step for event in interrupted if isinstance(event, CheckpointSaved))
    assert 24 in islice(saved, 24)
    del interrupted
    resumed = finished(run_job(job, None, prior, tmp_path / "killed", resume=True))
    assert same(resumed, whole) and np.array_equal(resumed.material.base_color, whole.material.base_color)
    assert np.array_equal(resumed.uvs, whole.uvs) and np.array_equal(resumed.uv_faces, whole.uv_faces)


def test_a_mesh_with_another_texture_is_another_job(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    job = settings(stages=(MeshStage(steps=4, guidance=GUIDANCE, texture_size=64),))
    ball = unwrap(icosphere(1), 64)
    start = replace(ball, material=MaterialData(np.full((64, 64, 3), 0.5, dtype=np.float32)))
    assert any(isinstance(event, CheckpointSaved) for event in islice(run_job(job, start, prior, tmp_path), 6))
    darker = replace(start, material=MaterialData(np.full((64, 64, 3), 0.25, dtype=np.float32)))
    with pytest.raises(InputError, match="another start mesh"):
        next(run_job(job, darker, prior, tmp_path, resume=True))
    finished(run_job(job, start, prior, tmp_path, resume=True))


def test_other_seed_other_mesh(prior: GaussianMixturePrior, uninterrupted: MeshData, tmp_path: Path) -> None:
    assert not same(finished(run_job(settings(seed=5), None, prior, tmp_path)), uninterrupted)


def test_cancel_saves_and_ends(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    control, seen = Control(), []
    for event in run_job(settings(checkpoint_seconds=1e6), None, prior, tmp_path, control):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            control.cancel()
    assert isinstance(seen[-1], CheckpointSaved) and seen[-1].step == 3
    assert not any(isinstance(event, Finished) for event in seen)


def test_pause_holds_the_loop_until_resume(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    import threading

    control, steps = Control(), []
    control.pause()

    def work() -> None:
        steps.extend(event.step for event in islice(run_job(settings(), None, prior, tmp_path, control), 4) if isinstance(event, StepDone))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not steps and control.paused
    control.resume()
    thread.join(60)
    assert not thread.is_alive() and steps


def test_checkpoint_of_another_job_is_refused(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    next(event for event in run_job(settings(), None, prior, tmp_path) if isinstance(event, CheckpointSaved))
    for other in (settings(seed=5), settings(prompt="dark"), settings(threads=2)):
        with pytest.raises(InputError, match="other settings"):
            next(run_job(other, None, prior, tmp_path, resume=True))
    torch.set_num_threads(1)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_checkpoint_is_one_sentence(prior: GaussianMixturePrior, tmp_path: Path, damage: bytes | None) -> None:
    next(event for event in run_job(settings(), None, prior, tmp_path) if isinstance(event, CheckpointSaved))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(InputError, match="cannot be read"):
        next(run_job(settings(), None, prior, tmp_path, resume=True))


def test_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return Path.write_text, (tmp_path / "owned", "yes")

    torch.save({"format": 1, "fingerprint": "x", "payload": Payload()}, tmp_path / FILE_NAME)
    with pytest.raises(InputError):
        load_checkpoint(tmp_path, "x")
    assert not (tmp_path / "owned").exists()


def test_mesh_stage_alone_needs_a_mesh(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    job = settings(stages=(MESH,))
    with pytest.raises(InputError, match="start shape"):
        list(run_job(job, None, prior, tmp_path))
    started = msgspec.structs.replace(job, start=StartShape("sphere"), stages=(msgspec.structs.replace(MESH, steps=2),))
    assert len(finished(run_job(started, None, prior, tmp_path)).positions) == 2562


def test_locked_mesh_keeps_topology_and_moves_toward_the_prior(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    """Where the mode's picture is red from everywhere, the gray sphere must be: its middle, in views of the test's own.

    The rim is no measure: what is the rim of one view lies in the middle of another, so the prior contradicts itself.
    """
    start = icosphere(2)
    stage = MeshStage(steps=60, guidance=GUIDANCE, position_rate=Constant(0.02))
    quiet = settings(stages=(stage,), checkpoint_seconds=1e6, preview_seconds=1e6)
    result = finished(run_job(quiet, start, prior, tmp_path))
    assert np.array_equal(result.faces, start.faces)
    assert _middle_error(result, prior) < 0.1 * _middle_error(start, prior)


@torch.no_grad()
def _middle_error(mesh: MeshData, prior: GaussianMixturePrior) -> float:
    colors = torch.from_numpy(np.full_like(mesh.positions, 0.5) if mesh.colors is None else mesh.colors)
    views = Cameras.orbit([15.0, 105.0, 195.0, 285.0], 20.0)
    rendered = render_mesh(torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces), colors, views, SIZE)
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    error = prior.encode_images(rendered, torch.zeros(4, 3)) - prior._means[0]
    return float(error[:, :, middle, middle].square().mean())
