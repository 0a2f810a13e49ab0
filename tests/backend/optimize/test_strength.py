"""What strength promises: nothing, colors alone, more and more of the shape held to the start, all of it free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.optimize.control import Control
from backend.optimize.events import Event, Finished, Steered, StepDone, Warned
from backend.optimize.inputs import Inputs
from backend.optimize.objectives import Job
from backend.optimize.run import run_job
from backend.optimize.stages import begin_stage
from backend.optimize.strength import COLORS_ALONE, freedom
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.bake import bake_colors
from backend.representations.closest_point import closest_points
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.unwrap import unwrap
from protocol.losses import AnchorSettings
from protocol.settings import (
    CameraSettings, Constant, GridStage, GuidanceSettings, JobSettings, MeshStage, StartShape, TetrahedraStage,
)  # fmt: skip

SIZE = 16
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
STAGE = MeshStage(
    steps=15, cameras=CameraSettings(views=2), guidance=GUIDANCE, position_rate=Constant(0.01), color_rate=Constant(0.05),
    texture_rate=Constant(0.05), supersample=1,
)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Pairs of views of a large red disk on gray: what the balls here should grow to."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.7).float()
    color = torch.tensor((0.9, 0.1, 0.1))[:, None, None]
    image = ((disk * color + (1 - disk) * 0.5) * 2 - 1).expand(2, 3, SIZE, SIZE)
    return GaussianMixturePrior({"red": Component(image, 0.2)}, linear_alphas_cumprod())


def settings(strength: float, **changes: object) -> JobSettings:
    job = JobSettings("red", (STAGE,), prior="analytic", strength=strength, checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(job, **changes)


def ball() -> MeshData:
    mesh = icosphere(2)
    return replace(mesh, colors=np.random.default_rng(0).uniform(0.3, 0.7, mesh.positions.shape).astype(np.float32))


def painted_ball() -> MeshData:
    mesh = unwrap(ball(), 48)
    return replace(mesh, material=bake_colors(mesh, 48))


def result(events: list[Event]) -> MeshData:
    assert isinstance(events[-1], Finished)
    return events[-1].mesh


def texels(mesh: MeshData) -> bytes:
    return b"" if mesh.material is None else mesh.material.base_color.tobytes()


def apart(one: MeshData, other: MeshData) -> float:
    """Mean distance of the vertices of each to the other's surface."""
    means = []
    for source, target in ((one, other), (other, one)):
        face, barycentrics = closest_points(source.positions, target.positions, target.faces)
        seen = np.einsum("pk,pkc->pc", barycentrics, target.positions[target.faces[face]])
        means.append(np.linalg.norm(source.positions - seen, axis=1).mean())
    return float(np.mean(means))


@pytest.mark.parametrize("make", [ball, painted_ball, lambda: icosphere(2)])
def test_strength_zero_returns_the_mesh_and_says_so(make: Callable[[], MeshData], prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = make()
    painting = msgspec.structs.replace(STAGE, texture_size=48)
    for stages in ((STAGE,), (painting,), (STAGE, painting)):
        events = list(run_job(settings(0.0, stages=stages), start, prior, tmp_path))
        assert isinstance(events[0], Warned) and "strength 0" in events[0].message
        assert result(events) is start, "the very arrays"


@pytest.mark.parametrize("texture_size", [0, 48])
def test_up_to_a_fifth_only_colors_change_ever_faster(texture_size: int, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start, changes = painted_ball(), []
    stage = msgspec.structs.replace(STAGE, texture_size=texture_size)
    for strength in (0.02, 0.1, COLORS_ALONE):
        after = result(list(run_job(settings(strength, stages=(stage,)), start, prior, tmp_path)))
        assert after.positions.tobytes() == start.positions.tobytes()
        assert not texture_size or after.uvs.tobytes() == start.uvs.tobytes() and texels(after) != texels(start)
        changes.append(np.abs(after.colors - start.colors).mean())
    assert 0.0 < changes[0] < changes[1] < changes[2]
    assert changes[0] < 0.3 * changes[2]


def test_the_farther_it_may_go_the_farther_it_goes(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    distances = [apart(result(list(run_job(settings(s), start, prior, tmp_path))), start) for s in (0.2, 0.3, 0.5, 0.7, 1.0)]
    assert distances[0] == pytest.approx(0.0, abs=1e-8)
    assert all(a < b for a, b in zip(distances, distances[1:])), distances
    assert distances[-1] > 0.05, "at 1 it grows toward the disk"


def test_anchors_hold_and_each_of_them_alone_does(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    pressed = replace(start, positions=start.positions * np.float32([1.0, 0.6, 1.0]))

    def distance(silhouette: float, laplacian: float) -> float:
        job = settings(0.6, anchors=AnchorSettings(silhouette, laplacian))
        return apart(result(list(run_job(job, pressed, prior, tmp_path))), pressed)

    loose = distance(0.0, 0.0)
    assert distance(30.0, 0.0) < 0.7 * loose and distance(0.0, 30.0) < 0.8 * loose


def test_anchors_are_named_terms_that_fade_to_nothing(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    def terms(strength: float) -> dict[str, float]:
        short = settings(strength, stages=(msgspec.structs.replace(STAGE, steps=3),))
        return [event for event in run_job(short, ball(), prior, tmp_path) if isinstance(event, StepDone)][-1].numbers

    held, free = terms(0.4), terms(1.0)
    assert held["anchor_silhouette"] > 0.0 and held["anchor_laplacian"] > 0.0
    assert not {"anchor_silhouette", "anchor_laplacian", "laplacian"} & free.keys()
    assert "anchor_silhouette" not in terms(0.1), "nothing moves that could be held"


def test_strength_means_nothing_without_a_mesh_of_the_users(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    meshes = []
    for strength in (0.0, 0.5, 1.0):
        job = settings(strength, start=StartShape("sphere"), stages=(msgspec.structs.replace(STAGE, steps=4),))
        meshes.append(result(list(run_job(job, None, prior, tmp_path))))
    assert len({mesh.positions.tobytes() for mesh in meshes}) == 1
    assert len({mesh.colors.tobytes() for mesh in meshes}) == 1
    running = begin_stage(STAGE, ball(), torch.device("cpu"), job=Job(settings(0.0), Inputs(), prior))
    running.set_schedules(0.0, 0.0)
    assert {group["lr"] for optimizer in running.optimizers for group in optimizer.param_groups} == {0.01, 0.05}


def test_shape_cannot_keep_its_bits_in_stages_that_make_one(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    shaping = (TetrahedraStage(steps=1), STAGE)
    with pytest.raises(InputError, match="only colors change"):
        next(run_job(settings(0.1, stages=shaping), ball(), prior, tmp_path))
    # A grid begins with fog, whatever was sent along.
    next(run_job(settings(0.1, stages=(GridStage(steps=1), STAGE)), ball(), prior, tmp_path))


def test_a_topology_is_not_renewed_while_its_shape_stands_still(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    renewing = msgspec.structs.replace(STAGE, steps=6, remesh_every=3, target_vertices=300)
    after = result(list(run_job(settings(0.2, stages=(renewing,)), start, prior, tmp_path)))
    assert after.positions.tobytes() == start.positions.tobytes() and after.faces.tobytes() == start.faces.tobytes()
    free = result(list(run_job(settings(0.6, stages=(renewing,)), start, prior, tmp_path)))
    assert len(free.positions) != len(start.positions)


def test_steering_to_zero_stops_and_from_a_fifth_on_moves_again(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    control, meshes = Control(), {}
    for event in run_job(settings(0.5, preview_seconds=1e-6), ball(), prior, tmp_path, control):
        if isinstance(event, StepDone) and event.step in (3, 6, 9):
            control.steer(strength={3: 0.0, 6: 0.15, 9: 0.8}[event.step])
        if hasattr(event, "mesh") and callable(event.mesh):
            meshes[event.step] = event.mesh()
        if isinstance(event, Steered):
            assert event.strength in (0.0, 0.15, 0.8)
    positions, colors = ({step: getattr(mesh, name).tobytes() for step, mesh in meshes.items()} for name in ("positions", "colors"))
    assert (positions[3], colors[3]) == (positions[6], colors[6])
    assert positions[6] == positions[9] != positions[12] and colors[6] != colors[9]


def test_freedom_rises_without_jumps_and_the_hold_falls() -> None:
    strengths = np.linspace(0.0, 1.0, 201)
    all_of_it = [freedom(float(strength)) for strength in strengths]
    assert freedom(0.0).colors == freedom(0.0).shape == freedom(COLORS_ALONE).shape == 0.0
    assert freedom(COLORS_ALONE).colors == 1.0 and freedom(1.0).hold == 0.0
    assert 0.7 < freedom(0.5).shape < 1.3, "the default is about the recipe's own pace"
    for name, sign in (("shape", 1), ("colors", 1), ("hold", -1)):
        steps = sign * np.diff([getattr(each, name) for each in all_of_it])
        assert (steps >= 0.0).all() and steps.max() < 0.05
