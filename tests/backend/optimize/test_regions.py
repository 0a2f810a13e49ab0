"""Regions of a mesh: what is outside keeps its bits through whole jobs, and each region goes its own prompt's way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.cli.start_mesh import StartMesh
from backend.errors import InputError
from backend.optimize.control import Control
from backend.optimize.events import CheckpointSaved, Event, Finished, Remeshed, StepDone
from backend.optimize.inputs import Inputs, RegionMask
from backend.optimize.objectives import Job
from backend.optimize.region_prompts import make_turns
from backend.optimize.regions import regions_of
from backend.optimize.run import run_job
from backend.optimize.stages import begin_stage
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations import load_mesh, write_mesh
from backend.representations.bake import bake_colors
from backend.representations.masks import texel_mask
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.texel_map import map_texels
from backend.representations.unwrap import unwrap
from protocol.losses import RegionSettings
from protocol.settings import CameraSettings, Constant, GridStage, GuidanceSettings, JobSettings, MeshStage

SIZE = 12
TEXELS = 48
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.6))
CAMERAS = CameraSettings(views=2)
STAGE = MeshStage(
    steps=12, cameras=CAMERAS, guidance=GUIDANCE, position_rate=Constant(0.02), color_rate=Constant(0.05),
    texture_rate=Constant(0.05), supersample=1,
)
TEXTURE = msgspec.structs.replace(STAGE, texture_size=TEXELS)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Pairs of views of a red disk or of a green one on gray, larger than the balls here."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    disk = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.5).float()

    def picture(color: tuple[float, float, float]) -> torch.Tensor:
        image = (disk * torch.tensor(color)[:, None, None] + (1 - disk) * 0.5) * 2 - 1
        return image.expand(2, 3, SIZE, SIZE)

    components = {"red": Component(picture((0.9, 0.1, 0.1)), 0.2), "green": Component(picture((0.1, 0.9, 0.1)), 0.2)}
    return GaussianMixturePrior(components, linear_alphas_cumprod())


def settings(*prompts: str, **changes: object) -> JobSettings:
    regions = tuple(RegionSettings(prompt) for prompt in prompts)
    job = JobSettings("red", (STAGE,), prior="analytic", regions=regions, checkpoint_seconds=1e6, preview_seconds=1e6)
    return msgspec.structs.replace(job, **changes)


def ball(seed: int = 0) -> MeshData:
    """With colors of which no two are the same."""
    mesh = icosphere(2)
    return replace(mesh, colors=np.random.default_rng(seed).uniform(0.3, 0.7, mesh.positions.shape).astype(np.float32))


def painted_ball() -> MeshData:
    """With an 8-bit texture, whose charts have seams."""
    mesh = unwrap(ball(), TEXELS)
    material = bake_colors(mesh, TEXELS)
    eight_bit = np.rint(material.base_color * 255.0).astype(np.uint8).astype(np.float32) / np.float32(255.0)
    return replace(mesh, material=replace(material, base_color=eight_bit))


def upper(mesh: MeshData) -> np.ndarray:
    """1 above, 0 below, and a soft border of some vertices."""
    return np.clip(mesh.positions[:, 1] * 3.0 + 0.5, 0.0, 1.0).astype(np.float32)


def run(job: JobSettings, start: MeshData, prior: GaussianMixturePrior, folder: Path, *masks: RegionMask) -> MeshData:
    return result(list(run_job(job, start, prior, folder, regions=masks)))


def result(events: list[Event]) -> MeshData:
    assert isinstance(events[-1], Finished)
    return events[-1].mesh


def moved(before: MeshData, after: MeshData) -> np.ndarray:
    return np.linalg.norm(after.positions - before.positions, axis=1)


def test_what_is_outside_keeps_its_bits_and_the_border_is_soft(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    mask = upper(start)
    after = run(settings(""), start, prior, tmp_path, RegionMask(mask))
    kept, free, border = mask == 0.0, mask == 1.0, (mask > 0.0) & (mask < 1.0)
    assert min(kept.sum(), free.sum(), border.sum()) > 15
    assert after.positions[kept].tobytes() == start.positions[kept].tobytes()
    assert after.colors[kept].tobytes() == start.colors[kept].tobytes()
    assert (moved(start, after)[free] > 0.0).all() and (after.colors != start.colors)[free].any(axis=1).all()
    low, high = border & (mask < 0.5), border & (mask > 0.5)
    changed = np.abs(after.colors - start.colors).mean(axis=1)
    assert 0.0 < changed[low].mean() < changed[high].mean() < changed[free].mean()
    assert 0.0 < moved(start, after)[low].mean() < moved(start, after)[high].mean()


def test_texels_outside_keep_their_bits_across_seams(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = painted_ball()
    seams = len(start.uvs) - len(start.positions)
    assert seams > 10
    texels = texel_mask(upper(start), start, map_texels(start, TEXELS, TEXELS)).numpy()
    after = run(settings("", stages=(TEXTURE,)), start, prior, tmp_path, RegionMask(texels=texels))
    kept = texels == 0.0
    assert after.material.base_color[kept].tobytes() == start.material.base_color[kept].tobytes()
    assert (after.material.base_color[~kept] != start.material.base_color[~kept]).mean() > 0.8
    assert after.uvs.tobytes() == start.uvs.tobytes() and np.array_equal(after.uv_faces, start.uv_faces)
    # A vertex moves only if all its places in the texture are free.
    still = start.positions[:, 1] < -0.35
    assert after.positions[still].tobytes() == start.positions[still].tobytes()
    assert moved(start, after)[upper(start) == 1.0].max() > 1e-3


def test_masks_follow_a_mesh_that_is_unwrapped_anew_and_vertices_that_are_colored(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = painted_ball()
    texels = texel_mask(upper(start), start, map_texels(start, TEXELS, TEXELS)).numpy()
    still = start.positions[:, 1] < -0.35
    colored = run(settings(""), start, prior, tmp_path, RegionMask(texels=texels))
    assert colored.positions[still].tobytes() == start.positions[still].tobytes()
    assert moved(start, colored).max() > 1e-3
    # All charts at one place: such coordinates cannot be painted on, but the mask is still one of what they show.
    overlapping = replace(start, uvs=np.concatenate([start.uvs, start.uvs]) * np.float32(0.5), uv_faces=start.uv_faces.copy())
    overlapping.uv_faces[::2] += len(start.uvs)
    overlapping = replace(overlapping, uvs=overlapping.uvs % np.float32(0.25) * 4)
    assert unwrap(overlapping, TEXELS) is not overlapping
    texels = texel_mask(upper(start), overlapping, map_texels(overlapping, TEXELS, TEXELS)).numpy()
    whole = run(settings("", stages=(TEXTURE,)), overlapping, prior, tmp_path, RegionMask(upper(start), texels))
    assert whole.positions[still].tobytes() == start.positions[still].tobytes() and moved(start, whole).max() > 1e-3


@pytest.mark.parametrize("textured", [False, True])
def test_each_region_goes_its_prompts_way(textured: bool, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = painted_ball() if textured else ball()
    y = start.positions[:, 1]
    above, below = (y > 0.15).astype(np.float32), (y < -0.15).astype(np.float32)
    job = settings("green", "", stages=(msgspec.structs.replace(TEXTURE if textured else STAGE, steps=30),))
    after = run(job, start, prior, tmp_path, RegionMask(above), RegionMask(below))
    change = after.colors - start.colors
    greener = change[:, 1] - change[:, 0]
    inside, outside = y > 0.3, (y < -0.15) & (y > -0.4)  # the views look down on it
    assert (greener[inside] > 0.05).mean() > 0.9 and (greener[outside] < -0.05).mean() > 0.9
    between = (above == 0.0) & (below == 0.0)
    assert after.positions[between].tobytes() == start.positions[between].tobytes()


def test_the_pull_of_a_prompt_is_held_to_its_region_in_front_of_smoothing_and_momentum(prior: GaussianMixturePrior) -> None:
    start = ball()
    above = (start.positions[:, 1] > 0.0).astype(np.float32)
    masks = (RegionMask(above), RegionMask(1.0 - 0.5 * above))
    job = Job(settings("green", ""), Inputs(start, (), masks), prior)
    running = begin_stage(STAGE, start, torch.device("cpu"), job=job, regions=regions_of(job))
    first, second = running.turns
    assert (first.prompt, second.prompt) == ("green", "")
    # Twice the blend, as each has every other step: 1 to 1/2 where both are, all to the second elsewhere.
    torch.testing.assert_close(first.vertices, torch.tensor(above) * 2.0 * (1.0 / 1.5))
    torch.testing.assert_close(first.vertices + second.vertices, torch.full((len(above),), 2.0))
    running.representation.weigh_gradients(first.vertices)
    vertices, colors = running.representation.vertices(), running.representation.vertex_colors()
    running.representation.weigh_gradients(None)
    (vertices.sum() + colors.sum()).backward(retain_graph=True)
    assert bool((running.representation.colors.grad == 1.0).all()), "all is let through again"
    running.clear_gradients()
    running.representation.weigh_gradients(first.vertices)
    (vertices.sum() + colors.sum()).backward()
    torch.testing.assert_close(running.representation.colors.grad, first.vertices[:, None].expand(-1, 3))
    expected = running.representation.surface._preconditioner._solver  # the same pull, put in by hand
    pull, smoothed = first.vertices[:, None].expand(-1, 3).contiguous(), torch.empty(len(above), 3)
    expected.solve(pull, smoothed)
    torch.testing.assert_close(running.representation.displacement.grad, smoothed * running.representation.surface.mask[:, None])


def test_regions_without_prompts_of_their_own_change_nothing_but_the_mask(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    whole = RegionMask(np.ones(len(start.positions), np.float32))
    plain = run(settings(), start, prior, tmp_path)
    one = run(settings(""), start, prior, tmp_path, whole)
    two = run(settings("", " "), start, prior, tmp_path, whole, RegionMask(upper(start)))
    for other in (one, two):
        np.testing.assert_array_equal(other.colors, plain.colors)
        np.testing.assert_array_equal(other.positions, plain.positions)


def test_a_region_without_a_prompt_follows_the_jobs_when_it_is_steered(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start, control, events = ball(), Control(), []
    y = start.positions[:, 1]
    masks = RegionMask((y > 0.2).astype(np.float32)), RegionMask((y < -0.2).astype(np.float32))
    job = settings("red", "", stages=(msgspec.structs.replace(STAGE, steps=36),))
    for event in run_job(job, start, prior, tmp_path, control, regions=masks):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 2:
            control.steer(prompt="green")
    change = result(events).colors - start.colors
    greener = change[:, 1] - change[:, 0]
    assert greener[y > 0.3].mean() < -0.05 and greener[y < -0.3].mean() > 0.05


@pytest.mark.parametrize("textured", [False, True])
def test_a_killed_job_with_regions_goes_on_bit_for_bit(textured: bool, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = painted_ball() if textured else ball()
    masks = RegionMask(upper(start)), RegionMask(1.0 - upper(start))
    job = settings("green", "", stages=(TEXTURE if textured else STAGE,))
    whole = run(job, start, prior, tmp_path / "whole", *masks)
    often = msgspec.structs.replace(job, checkpoint_seconds=1e-6)
    for event in run_job(often, start, prior, tmp_path, regions=masks):
        if isinstance(event, CheckpointSaved) and event.step == 5:
            break
    rest = result(list(run_job(job, start, prior, tmp_path, resume=True, regions=masks)))
    assert rest.positions.tobytes() == whole.positions.tobytes() and rest.colors.tobytes() == whole.colors.tobytes()
    with pytest.raises(InputError, match="belongs to a job with other"):
        next(run_job(job, start, prior, tmp_path, resume=True, regions=masks[::-1]))


def test_regions_go_through_remeshing_and_into_the_next_stage(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = ball()
    mask = (start.positions[:, 1] > 0.1).astype(np.float32)
    renewing = msgspec.structs.replace(STAGE, remesh_every=5, target_vertices=300)
    job = settings("green", "", stages=(renewing, TEXTURE))
    rest = np.where(mask, 0.0, start.positions[:, 1] > -0.4).astype(np.float32)
    events = list(run_job(job, start, prior, tmp_path, regions=(RegionMask(mask), RegionMask(rest))))
    assert any(isinstance(event, Remeshed) for event in events)
    after = result(events)
    assert len(after.positions) != len(start.positions)
    kept = start.positions[(mask == 0.0) & (rest == 0.0)]
    there = {row.tobytes() for row in after.positions}
    assert len(kept) > 20 and all(row.tobytes() in there for row in kept)
    change = after.colors[:, 1] - after.colors[:, 0]
    y = after.positions[:, 1]
    assert change[y > 0.3].mean() > 0.05 and change[(y < 0.0) & (y > -0.3)].mean() < -0.05


def test_masks_that_cannot_be_meant_are_refused(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    start = painted_ball()
    count = len(start.positions)
    mask = RegionMask(upper(start))

    def refused(match: str, job: JobSettings, mesh: MeshData | None, *masks: RegionMask) -> None:
        with pytest.raises(InputError, match=match):
            next(run_job(job, mesh, prior, tmp_path, regions=masks))

    refused("1 regions, but 0 masks", settings(""), start)
    refused("0 regions, but 1 masks", settings(), start, mask)
    refused("send a start mesh", settings(""), None, mask)
    refused(rf"\[3\], but there are \[{count}\]", settings(""), start, RegionMask(np.ones(3, np.float32)))
    refused("region 1 is 0 everywhere", settings(""), start, RegionMask(np.zeros(count, np.float32)))
    refused("region 2 is 0 everywhere", settings("", ""), start, mask, RegionMask(texels=np.zeros((8, 8), np.float32)))
    refused("outside", settings(""), start, RegionMask(np.full(count, 1.5, np.float32)))
    refused("texels", settings(""), start, RegionMask(texels=np.ones((4, 4, 3), np.float32)))
    refused("unwrap", settings(""), ball(), RegionMask(texels=np.ones((8, 8), np.float32)))
    refused("without a mask", settings(""), start, RegionMask())
    refused("shape of its own", settings("", stages=(GridStage(steps=1), STAGE)), start, mask)
    refused("does not know", settings("a dragon"), start, mask)
    speck = np.zeros((512, 512), np.float32)
    u, v = start.uvs[start.uv_faces[0]].mean(axis=0)
    speck[int((1.0 - v) * 512), int(u * 512)] = 1.0
    refused("frees none", settings(""), start, RegionMask(texels=speck))


def test_one_prompt_for_all_regions_needs_no_turns(prior: GaussianMixturePrior) -> None:
    start = ball()
    job = Job(settings("green", "green"), Inputs(start, (), (RegionMask(upper(start)),) * 2), prior)
    running = begin_stage(STAGE, start, torch.device("cpu"), job=job, regions=regions_of(job))
    (turn,) = make_turns(running.regions, running.representation)
    assert (turn.prompt, turn.vertices, turn.texels) == ("green", None, None)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_the_artists_file_keeps_what_lies_outside(ending: str, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    """From the file to the file: floats of positions, texture coordinates, and the 8-bit numbers of texels in the new image."""
    write_mesh(painted_ball(), tmp_path / f"ball.{ending}")
    start = StartMesh.read(tmp_path / f"ball.{ending}", "y")
    mesh = start.mesh
    texels = texel_mask(upper(mesh), mesh, map_texels(mesh, TEXELS, TEXELS)).numpy()
    after = run(settings("", stages=(TEXTURE,)), mesh, prior, tmp_path / "job", RegionMask(texels=texels))
    (tmp_path / "out").mkdir()
    start.write_result(after, tmp_path / "out")
    old, new = load_mesh(tmp_path / f"ball.{ending}"), load_mesh(tmp_path / "out" / f"ball-refined.{ending}")
    still = mesh.positions[:, 1] < -0.5
    stayed = (old.positions == new.positions).all(axis=1)
    assert stayed[still].all() and not stayed.all()
    assert old.uvs.tobytes() == new.uvs.tobytes() and old.uv_faces.tobytes() == new.uv_faces.tobytes()
    eight_bit = [np.rint(each.material().base_color * 255.0).astype(np.uint8) for each in (old, new)]
    assert (eight_bit[0] == eight_bit[1])[texels == 0.0].all() and (eight_bit[0] != eight_bit[1])[texels == 1.0].mean() > 0.5
