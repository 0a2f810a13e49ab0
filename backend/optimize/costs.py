"""What a job's stages cost on this machine, measured in a few steps with the real prior before the job begins.

A small job is run through: every stage begins, makes some steps with the recipe's views and side, then with another side and
another number of views, and hands its mesh on. Three step times give the three coefficients of `StageCost`. Nothing of the
job's random numbers is drawn.

`remembered` keeps costs in the user's cache folder; what a finished job showed is better than a few steps and replaces them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from pathlib import Path
from statistics import median

import msgspec
import torch
from msgspec.structs import replace

from backend.cache_folder import cache_folder
from backend.optimize.feature_networks import load_feature_networks
from backend.optimize.pictures import render_views
from backend.optimize.inputs import Inputs
from backend.optimize.objectives import Job
from backend.optimize.population import Population, begin_population
from backend.optimize.reference_pictures import bind_prior, prepare_pictures
from backend.optimize.views import render_side, view_count
from backend.priors.prior import Conditioning, Prior
from backend.recipes.planner import Costs, StageCost
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import start_shape
from protocol.settings import JobSettings, MeshStage, Selection, Stage

FRESH_SECONDS = 30 * 86400.0
"""Costs that are older are measured anew: libraries and drivers change."""

WARM_UP, TIMED = 1, 3
"""Steps that settle, and steps whose median counts."""

PREVIEW_VIEWS, PREVIEW_SIZE = 5, 256
LARGEST_ASIDE = 0.1
"""What consumers of the events let previews take of the time at most."""

PROGRESS = tuple((number + 0.5) / 16 for number in range(16))
"""Where schedules are looked at for their mean."""


class _Remembered(msgspec.Struct):
    """A file of the cache: `measured` is the time since 1970, `about` says for a person what it belongs to."""

    measured: float
    about: str
    costs: Costs


def measure_costs(settings: JobSettings, inputs: Inputs, prior: Prior, after: float) -> Costs:
    """Costs of the stages of `settings` with these `inputs`, as they were given; `after` is passed on. Sixteen steps a stage.

    Raises InputError for a prompt that the prior does not know, for pictures that cannot be used and for stages that lack a mesh
    to begin with.
    """
    torch.set_num_threads(settings.threads)
    prepared = prepare_pictures(inputs.pictures, settings.references)
    prior = bind_prior(prior, settings, prepared)
    features = load_feature_networks(settings, prior.alphas_cumprod.device)
    job = Job(settings, Inputs(inputs.mesh, prepared, inputs.regions), prior, features)
    conditioning = prior.encode_prompt(settings.prompt, settings.negative_prompt)
    mesh = inputs.mesh
    if mesh is None and settings.start.kind != "none":
        mesh = start_shape(settings.start.kind)
    stages, previews = [], []
    for index, stage in enumerate(settings.stages):
        alone = replace(stage, selection=Selection())
        cost, preview, mesh = _stage_cost(alone, index, mesh, conditioning, job)
        stages.append(cost)
        previews.append(preview)
    slowest = max(previews)
    return Costs(tuple(stages), after, min(LARGEST_ASIDE, slowest / (slowest + settings.preview_seconds)))


def _stage_cost(
    stage: Stage, index: int, mesh: MeshData | None, conditioning: Conditioning, job: Job
) -> tuple[StageCost, float, MeshData]:
    """A stage's cost, the seconds of a preview in it, and the mesh that it hands on."""
    prior = job.prior
    sides = [render_side(stage.render_size, progress, prior.image_size) for progress in PROGRESS]
    counts = [view_count(stage.cameras.views, progress, prior.views_per_group) for progress in PROGRESS]
    side, views = round((sum(s * s for s in sides) / len(sides)) ** 0.5), round(sum(counts) / len(counts))
    other_side = side // 2 if side >= 32 else side * 2
    other_views = views // 2 if views % (2 * prior.views_per_group) == 0 else views + prior.views_per_group

    with _timed(prior) as begin:
        population = begin_population(stage, index, mesh, job)
    try:
        generator = torch.Generator().manual_seed(0)

        def step_seconds(views: int, side: int) -> float:
            changed = replace(stage, render_size=side, cameras=replace(stage.cameras, views=views))
            population.shown.stage = changed
            times = []
            for number in range(WARM_UP + TIMED):
                with _timed(prior) as step:
                    within = number * stage.steps // (WARM_UP + TIMED)
                    population.step(within, job.settings.strength, prior, conditioning, generator)
                times.append(step.seconds)
            return median(times[WARM_UP:])

        step_seconds(views, side)  # the first steps of all compile
        own, small, wide = step_seconds(views, side), step_seconds(views, other_side), step_seconds(other_views, side)
        population.shown.stage = stage
        remesh = _remesh_seconds(population, stage, prior)
        with _timed(prior) as preview:
            shown = population.shown.to_mesh()
            render_views(shown, [72.0 * number for number in range(PREVIEW_VIEWS)], 20.0, PREVIEW_SIZE)
        with _timed(prior) as end:
            mesh = population.shown.result()
    finally:
        population.close()
    fixed, per_view, per_pixel = coefficients((views, side, own), (views, other_side, small), (other_views, side, wide))
    together = prior.views_per_group
    cost = StageCost(
        begin.seconds, fixed, per_view, per_pixel, remesh, end.seconds, views, side, together, prior.image_size
    )
    return cost, preview.seconds, mesh


def coefficients(
    own: tuple[int, int, float], resized: tuple[int, int, float], recounted: tuple[int, int, float]
) -> tuple[float, float, float]:
    """`fixed`, `per_view` and `per_pixel` of `seconds = fixed + B (per_view + R^2 per_pixel)`, none of them negative.

    Each argument is (B, R, seconds): the first two differ in R, the first and the third in B. The first is met exactly.
    """
    (views, side, seconds), (_, other_side, by_side), (other_views, _, by_views) = own, resized, recounted
    per_pixel = max(0.0, (seconds - by_side) / (views * (side**2 - other_side**2)))
    per_pixel = min(per_pixel, seconds / (views * side**2))
    each = max((seconds - by_views) / (views - other_views), per_pixel * side**2)
    each = min(each, seconds / views)
    return seconds - views * each, each - per_pixel * side**2, per_pixel


def _remesh_seconds(population: Population, stage: Stage, prior: Prior) -> float:
    if not isinstance(stage, MeshStage) or not stage.remesh_every or stage.learns == "material":
        return 0.0
    with _timed(prior) as remesh:
        population.shown.representation.remesh(stage.target_vertices)
    return remesh.seconds


class _timed:
    """Seconds that the block took, with the device's queue empty at both ends."""

    def __init__(self, prior: Prior) -> None:
        self._device = prior.alphas_cumprod.device
        self.seconds = 0.0

    def __enter__(self) -> _timed:
        self._wait()
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._wait()
        self.seconds = time.perf_counter() - self._begun

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def recall(settings: JobSettings, inputs: Inputs, prior: Prior) -> Costs | None:
    """Costs of such a job from the cache, or None if there are none, or only old ones."""
    try:
        there = msgspec.json.decode(_file(settings, inputs, prior).read_bytes(), type=_Remembered)
    except (OSError, msgspec.DecodeError):
        return None
    return there.costs if 0.0 <= time.time() - there.measured < FRESH_SECONDS else None


def remember(settings: JobSettings, inputs: Inputs, prior: Prior, costs: Costs) -> None:
    """Keep `costs` for the next such job; a cache that cannot be written is gone without."""
    with contextlib.suppress(OSError):
        path = _file(settings, inputs, prior)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(_Remembered(time.time(), _about(settings, inputs, prior), costs)))
        part.replace(path)


def _file(settings: JobSettings, inputs: Inputs, prior: Prior) -> Path:
    """Settings as the recipe has them, before a plan changes them; prompt and seed do not matter."""
    tree = msgspec.json.encode(settings.stages, order="deterministic")
    digest = hashlib.sha256(tree + _about(settings, inputs, prior).encode()).hexdigest()[:24]
    return cache_folder() / "costs" / f"{digest}.json"


def _about(settings: JobSettings, inputs: Inputs, prior: Prior) -> str:
    device = prior.alphas_cumprod.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    machine = f"{platform.node()}, {processor}, {os.cpu_count()} cores, torch {torch.__version__}"
    start = "no mesh" if inputs.mesh is None else f"a mesh of {len(inputs.mesh.faces)} faces"
    if inputs.pictures:
        start += f" and {len(inputs.pictures)} pictures"
    loading = msgspec.json.encode(settings.loading).decode()
    return f"{machine}; {prior.name} {loading}, {settings.threads} threads; {settings.recipe} from {start}, {settings.start.kind}"
