"""Toward pictures: nothing at the pictured object itself, true gradients, light that is learned, and jobs that come closer."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.errors import InputError
from backend.optimize import reference_objective
from backend.optimize.events import Finished, StepDone
from backend.optimize.inputs import Inputs, Picture
from backend.optimize.look import Look
from backend.optimize.objectives import Job, Seen, make_objectives
from backend.optimize.reference_objective import ReferenceObjective, make_reference_objective
from backend.optimize.reference_pictures import prepare_pictures
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import Light, render_mesh
from backend.rendering.depth import surface_depth
from backend.rendering.illumination import harmonics
from backend.representations.density_grid import DensityGrid
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.triangle_mesh import TriangleMesh
from protocol.losses import LossSettings
from protocol.settings import GridStage, GuidanceSettings, JobSettings, Linear, MeshStage, ReferenceSettings, StartShape

SIDE = 48
WHERE = (ReferenceSettings(30.0, 20.0, "keep", "keep"), ReferenceSettings(-120.0, 0.0, "keep", "keep"))
CAMERAS = Cameras.orbit([30.0, -120.0], [20.0, 0.0])


def egg(stretch: float = 0.6) -> MeshData:
    """Colored smoothly, so that no two views look alike."""
    ball = icosphere(2)
    colors = (0.5 + 0.45 * np.sin(3.0 * ball.positions + [0.0, 1.0, 2.0])).astype(np.float32)
    return MeshData((ball.positions * [stretch, 0.9, 0.7]).astype(np.float32), ball.faces, colors)


def held(mesh: MeshData, **changes: object) -> TriangleMesh:
    return TriangleMesh(mesh, MeshStage(steps=1, **changes), torch.device("cpu"))


def pictures_of(mesh: MeshData, tint: Tensor | None = None, light: Tensor | None = None) -> tuple[Picture, ...]:
    """In white light from everywhere, tinted, or in light of spherical harmonics [9, 3], with maps of depth and normals."""
    tensors = torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces)
    how = {"supersample": 2}
    flat = render_mesh(*tensors, torch.from_numpy(mesh.colors), CAMERAS, SIDE, shading="albedo", **how)
    world = render_mesh(*tensors, None, CAMERAS, SIDE, shading="normal", **how)
    facing = torch.nn.functional.normalize(2 * world.rgb - world.alpha, dim=-1)
    straight = flat.rgb / flat.alpha.clamp_min(1e-4) * (1.0 if tint is None else tint)
    if light is not None:
        factors = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)[:, None]
        straight = straight * (harmonics(facing) @ (factors * light))
    pixels = (torch.cat([straight, flat.alpha], -1).clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    depth = surface_depth(*tensors, CAMERAS, SIDE)
    depth = torch.where(depth.isfinite(), 0.01 * depth - 7.0, torch.nan).numpy()
    own = torch.einsum("nhwc,ncd->nhwd", facing, CAMERAS.camera_to_world()[:, :3, :3])
    normals = torch.where(flat.alpha > 0.5, own, torch.nan).numpy()
    return tuple(Picture(*each) for each in zip(pixels, depth, normals))


def objective(pictures: tuple[Picture, ...], references: tuple[ReferenceSettings, ...] = WHERE, **weights: object) -> ReferenceObjective:
    losses = LossSettings(**(dict.fromkeys(ALL, 0.0) | {"reference_light": "white"} | weights))
    prepared = prepare_pictures(pictures, references)
    return ReferenceObjective(MeshStage(steps=1, losses=losses), prepared, references, SIDE, torch.device("cpu"))


def seen(shape: object, progress: float = 0.5) -> Seen:
    cameras = Cameras.orbit([0.0], 0.0)
    light = Light(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.5]))
    look = Look(cameras, light, "lit", torch.tensor([[0.2, 0.5, 0.9]]))
    return Seen(shape, look, None, progress, 0.5, torch.Generator())


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms.items()}


ALL = {"reference_color": 1.0, "reference_mask": 1.0, "reference_depth": 1.0, "reference_normals": 1.0}


def test_the_pictured_object_itself_differs_by_nothing_and_another_does() -> None:
    toward = objective(pictures_of(egg()), **ALL)
    own, other = numbers(toward.terms(seen(held(egg())))), numbers(toward.terms(seen(held(egg(0.85)))))
    assert set(own) == set(ALL)
    assert all(own[name] < 0.01 for name in ALL), own
    assert all(other[name] > 3 * own[name] + 1e-4 for name in ALL), other


def test_weights_follow_their_schedules_and_nothing_is_computed_at_zero() -> None:
    toward = objective(pictures_of(egg()), reference_mask=Linear(0.0, 2.0))
    other = seen(held(egg(0.85)))
    once, late = toward.terms(replace(other, progress=0.5)), toward.terms(replace(other, progress=1.0))
    assert set(once) == {"reference_mask"} and late["reference_mask"].isclose(2 * once["reference_mask"])
    assert toward.terms(replace(other, progress=0.0)) == {}


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("light", ["white", "learned"])
def test_the_gradient_of_colors_is_that_of_finite_differences(norm: str, light: str) -> None:
    toward = objective(pictures_of(egg()), reference_color=1.0, reference_norm=norm, reference_light=light)
    mesh = held(replace(egg(), colors=np.full((162, 3), 0.4, np.float32)))
    toward.terms(seen(mesh))["reference_color"].backward()
    way = torch.randn(162, 3, generator=torch.Generator().manual_seed(1))
    values = []
    for step in (3e-3, -3e-3):
        with torch.no_grad():
            mesh.colors.add_(step * way)
            values.append(numbers(toward.terms(seen(mesh)))["reference_color"])
            mesh.colors.sub_(step * way)
    assert (values[0] - values[1]) / 6e-3 == pytest.approx(float((mesh.colors.grad * way).sum()), rel=0.05)


@pytest.mark.parametrize("name", ["reference_mask", "reference_color", "reference_depth", "reference_normals"])
def test_following_the_gradient_of_the_shape_comes_closer(name: str) -> None:
    toward = objective(pictures_of(egg()), **{name: 1.0})
    mesh = held(egg(0.8))
    before = toward.terms(seen(mesh))[name]
    (gradient,) = torch.autograd.grad(before, mesh.displacement)
    with torch.no_grad():
        step = 0.02 / gradient.norm() * gradient
        mesh.displacement.sub_(step)
        predicted = float((step * gradient).sum())
        after = toward.terms(seen(mesh))[name]
    assert 0.3 * predicted < float((before - after).detach()) < 3 * predicted


def test_only_what_a_stage_learns_is_compared() -> None:
    job = Job(JobSettings("it", (MeshStage(steps=1),), references=WHERE), Inputs(None, pictures_of(egg())), flat_prior())
    terms = {
        learns: set(make_reference_objective(MeshStage(steps=1, learns=learns), job).terms(seen(held(egg()))))
        for learns in ("joint", "geometry", "material")
    }
    assert terms["joint"] == set(ALL)
    assert terms["geometry"] == set(ALL) - {"reference_color"} and terms["material"] == {"reference_color"}
    nothing = LossSettings(reference_color=0.0, reference_mask=0.0, reference_depth=0.0, reference_normals=0.0)
    assert make_reference_objective(MeshStage(steps=1, losses=nothing), job) is None
    assert make_objectives(MeshStage(steps=1), held(egg()), replace(job, inputs=Inputs())) == []


def test_a_volume_is_compared_by_all_terms() -> None:
    grid = DensityGrid(GridStage(steps=1, resolution=12, samples_per_ray=24), torch.device("cpu"))
    terms = objective(pictures_of(egg()), **ALL).terms(seen(grid))
    assert set(terms) == set(ALL)
    sum(terms.values()).backward()
    assert grid.density_logits.grad.isfinite().all() and grid.density_logits.grad.abs().sum() > 0


def test_pictures_without_maps_are_compared_without_them() -> None:
    with_maps, without = pictures_of(egg())
    toward = objective((Picture(with_maps.pixels), replace(without)), **ALL)
    assert set(toward.terms(seen(held(egg())))) == set(ALL)
    toward = objective((Picture(with_maps.pixels), Picture(without.pixels)), **ALL)
    assert set(toward.terms(seen(held(egg())))) == {"reference_color", "reference_mask"}


@pytest.fixture
def quick_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps to where it ends."""
    monkeypatch.setattr(reference_objective, "LIGHT_RATE", 0.02)


def test_learned_light_finds_the_light_of_a_picture(quick_light: None) -> None:
    """The object's colors are known and fixed: all that is left to explain the pictures is their light."""
    light = torch.zeros(9, 3)
    light[0] = torch.tensor([2.6, 2.2, 1.6])
    light[1], light[2] = 0.5, torch.tensor([0.1, 0.2, 0.4])
    toward = objective(pictures_of(egg(), light=light), reference_color=1.0, reference_light="learned", reference_norm="l2")
    mesh = held(egg())
    before = numbers(toward.terms(seen(mesh)))
    for _ in range(120):
        toward.terms(seen(mesh))["reference_color"].backward()
        toward.move()
    assert numbers(toward.terms(seen(mesh)))["reference_color"] < 0.03 * before["reference_color"]
    facing = torch.nn.functional.normalize(CAMERAS.position(), dim=-1)
    factors = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)[:, None]
    found = torch.einsum("nk,nkc->nc", harmonics(facing), factors * toward.light)
    assert torch.allclose(found, harmonics(facing) @ (factors * light), atol=0.1), "what a surface that faces the camera shows"


def test_whiteness_holds_learned_light_to_gray(quick_light: None) -> None:
    tinted = pictures_of(egg(), tint=torch.tensor([1.0, 0.6, 0.4]))
    spread = []
    for whiteness in (0.0, 10.0):
        toward = objective(tinted, reference_color=1.0, reference_light="learned", light_whiteness=whiteness)
        mesh = held(egg())
        for _ in range(40):
            sum(toward.terms(seen(mesh)).values()).backward()
            toward.move()
        spread.append(float(toward.light[:, 0].std(dim=-1).mean()))
    assert spread[1] < 0.3 * spread[0]


# Whole jobs, on a prior that wants gray everywhere.

QUIET = GuidanceSettings(t_max=Linear(0.6, 0.6))
STAGES = (
    GridStage(steps=4, resolution=12, samples_per_ray=16, guidance=QUIET, target_vertices=120),
    MeshStage(steps=6, guidance=QUIET, render_size=16, target_vertices=120, remesh_every=3, losses=LossSettings(reference_light="learned")),
)


def flat_prior() -> GaussianMixturePrior:
    return GaussianMixturePrior({"it": Component(torch.zeros(4, 3, 16, 16), 1.0)}, linear_alphas_cumprod())


def job_settings(**changes: object) -> JobSettings:
    made = JobSettings("it", STAGES, prior="analytic", references=WHERE[:1], checkpoint_seconds=1e-6, preview_seconds=1e6)
    return msgspec.structs.replace(made, **changes)


def test_a_job_with_a_picture_comes_closer_to_it(tmp_path: Path) -> None:
    stage = MeshStage(steps=50, guidance=QUIET, render_size=16, remesh_every=0)
    ends = []
    for weight in (0.0, 1.0):
        losses = LossSettings(reference_color=weight, reference_mask=weight, reference_light="white")
        stages = (msgspec.structs.replace(stage, losses=losses),)
        settings = job_settings(stages=stages, start=StartShape("sphere"), checkpoint_seconds=1e6)
        *_, last = run_job(settings, None, flat_prior(), tmp_path / str(weight), pictures=pictures_of(egg())[:1])
        terms = objective(pictures_of(egg())[:1], WHERE[:1], reference_color=1.0, reference_mask=1.0).terms(seen(held(last.mesh)))
        ends.append(numbers(terms))
    assert all(ends[1][name] < 0.5 * ends[0][name] for name in ends[0]), ends


@pytest.mark.parametrize("killed_after", [3, 7])
def test_a_killed_job_goes_on_bit_for_bit(killed_after: int, tmp_path: Path) -> None:
    pictures = pictures_of(egg())[:1]
    *_, whole = run_job(job_settings(), None, flat_prior(), tmp_path, pictures=pictures)
    folder = tmp_path / "killed"
    folder.mkdir()
    events = run_job(job_settings(), None, flat_prior(), folder, pictures=pictures)
    list(islice((event for event in events if isinstance(event, StepDone)), killed_after))
    events.close()
    resumed = list(run_job(job_settings(), None, flat_prior(), folder, resume=True, pictures=pictures))
    steps = [event for event in resumed if isinstance(event, StepDone)]
    assert 0 < len(steps) < 10 and "reference_color" in steps[-1].numbers
    assert isinstance(resumed[-1], Finished)
    assert np.array_equal(resumed[-1].mesh.positions, whole.mesh.positions)
    assert np.array_equal(resumed[-1].mesh.colors, whole.mesh.colors)


def test_a_checkpoint_of_another_picture_is_refused(tmp_path: Path) -> None:
    pictures = pictures_of(egg())[:1]
    events = run_job(job_settings(), None, flat_prior(), tmp_path, pictures=pictures)
    list(islice((event for event in events if isinstance(event, StepDone)), 2))
    events.close()
    with pytest.raises(InputError, match="belongs to a job with other settings"):
        list(run_job(job_settings(), None, flat_prior(), tmp_path, resume=True, pictures=[replace(pictures[0], depth=None)]))


@pytest.mark.parametrize(("count", "prompt", "said"), [(0, "it", "speak of 1 reference pictures and 0 came"), (1, "", "prompt is empty")])
def test_jobs_that_do_not_fit_their_pictures_are_refused(count: int, prompt: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        list(run_job(job_settings(prompt=prompt), None, flat_prior(), tmp_path, pictures=pictures_of(egg())[:count]))


def test_learned_light_begins_as_the_prior_s_own() -> None:
    """The object under the mean of the training lights, which a lamp of its own is: no more than harmonics leave out differs."""
    mesh = egg()
    lamp = torch.nn.functional.normalize(torch.tensor([0.0, 0.5, 1.0]), dim=0)
    light = Light(CAMERAS.camera_to_world()[:, :3, :3] @ lamp, torch.full((2,), 0.55))
    tensors = torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces), torch.from_numpy(mesh.colors)
    lit = render_mesh(*tensors, CAMERAS, SIDE, light=light, supersample=2)
    straight = torch.cat([lit.rgb / lit.alpha.clamp_min(1e-4), lit.alpha], -1)
    pictures = tuple(Picture(each) for each in (straight.clamp(0, 1) * 255).round().numpy().astype(np.uint8))
    difference = {
        kind: numbers(objective(pictures, reference_color=1.0, reference_light=kind).terms(seen(held(mesh))))["reference_color"]
        for kind in ("white", "learned")
    }
    assert difference["learned"] < 0.02 < 0.06 < difference["white"], difference
