"""The loop: a job as a generator of events.

Whoever consumes the events decides what to do with them; between two `next()` a job can be paused, cancelled or simply
left. On the CPU the same settings, start mesh and prior give the same mesh bit for bit, also across a kill and a
resume: every random number comes from one generator, candidates' from one of their own each, whose states are in the
checkpoint, and neither checkpoints nor previews nor choices draw from them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from backend.errors import InputError
from backend.optimize.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_checkpoint
from backend.optimize.control import Aim, Control
from backend.optimize.diagnostics import Diagnostics
from backend.optimize.events import (
    CheckpointSaved,
    Chosen,
    EndedEarly,
    Event,
    Finished,
    Preview,
    Remeshed,
    StageStarted,
    Steered,
    StepDone,
    Warned,
)
from backend.optimize.feature_networks import load_feature_networks
from backend.optimize.inputs import Inputs, Picture, RegionMask
from backend.optimize.objectives import Job
from backend.optimize.pictures import render_views
from backend.optimize.population import begin_population, restore_population, work_left
from backend.optimize.reference_pictures import bind_prior, prepare_pictures
from backend.optimize.region_prompts import conditionings_of
from backend.optimize.regions import regions_of
from backend.optimize.stages import RunningStage
from backend.optimize.step import StepRecord
from backend.optimize.strength import check_strength, has_start_mesh
from backend.priors.prior import Conditioning, Prior
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import start_shape
from protocol.settings import JobSettings


def run_job(
    settings: JobSettings,
    start_mesh: MeshData | None,
    prior: Prior,
    folder: Path,
    control: Control | None = None,
    resume: bool = False,
    *,
    pictures: Sequence[Picture] = (),
    regions: Sequence[RegionMask] = (),
    report: Callable[[str], None] = lambda message: None,
) -> Iterator[Event]:
    """Run the whole job, checkpointing into `folder`; the last event is `Finished` unless `control` cancels.

    `pictures` belong to `settings.references` and `regions` to `settings.regions`, in their order; pictures are prepared as the
    settings say, and a prior that can be shown pictures is shown them. `report` is told what is downloaded for the job's
    losses, and how large that is.
    With `resume` it goes on from the folder's checkpoint if there is one, toward the aim it was steered to by then. Raises
    InputError for a prompt that the prior does not know, for pictures that cannot be used, for stages that lack a mesh to begin
    with, and for a checkpoint of another job; a prompt that the job is steered to and the prior does not know is only warned of.
    """
    control = control or Control()
    torch.set_num_threads(settings.threads)
    features = load_feature_networks(settings, prior.alphas_cumprod.device, report)
    prepared = prepare_pictures(pictures, settings.references)
    mark = fingerprint(settings, Inputs(start_mesh, tuple(pictures), tuple(regions)), prior.name)
    prior = bind_prior(prior, settings, prepared)
    job = Job(settings, Inputs(start_mesh, prepared, tuple(regions)), prior, features)
    generator = torch.Generator().manual_seed(settings.seed)
    mesh = start_mesh
    if mesh is None and settings.start.kind != "none":
        mesh = start_shape(settings.start.kind)

    checkpoint = load_checkpoint(folder, mark) if resume else None
    aim = checkpoint.aim if checkpoint else Aim(settings.prompt, settings.negative_prompt, settings.strength)
    check_strength(job)
    regions_of_mesh = regions_of(job)
    asked = conditionings_of(settings.regions, aim, prior)
    first_stage = checkpoint.stage if checkpoint else 0
    step = checkpoint.step if checkpoint else 0
    clock = _Clock(checkpoint.seconds if checkpoint else 0.0)
    saved = previewed = time.monotonic()
    diagnostics = Diagnostics(job)
    if checkpoint is not None:
        diagnostics.load_state_dict(checkpoint.diagnostics)
    if checkpoint is None and aim.strength == 0.0 and has_start_mesh(job):
        yield Warned("At strength 0 nothing may change: the mesh comes back as it was. Choose a larger one to change it.")
        yield Finished(0, start_mesh, 0.0)
        return
    yield from diagnostics.before()

    for index in range(first_stage, len(settings.stages)):
        stage = settings.stages[index]
        if checkpoint is not None:
            population = restore_population(stage, index, checkpoint.population, job)
            within = checkpoint.stage_step
            generator.set_state(checkpoint.generator)
            checkpoint = None
        else:
            population, within = begin_population(stage, index, mesh, job, regions_of_mesh), 0
            diagnostics.begin_stage()
        with contextlib.closing(population):
            yield StageStarted(index, len(settings.stages), stage.__struct_config__.tag, stage.steps)
            if population.is_to_choose(within):
                yield Chosen(step, index, *population.choose(within, prior, asked[""]))

            while within < stage.steps:
                control.wait_while_paused()
                wanted = control.steered(aim)
                if wanted != aim:
                    aim, asked, told = _steer(step, aim, wanted, asked, job)
                    yield told
                started, work = time.monotonic(), _work_left(settings, index, within)
                due = diagnostics.is_due(within)
                record, ended = population.step(within, aim.strength, prior, asked[""], generator, asked, due)
                within, step = within + 1, step + 1
                left_out = stage.steps - within if ended else 0
                within += left_out
                if population.remesh(within):
                    shown = population.shown.representation
                    yield Remeshed(step, len(shown.vertices()), len(shown.faces))
                if population.is_to_choose(within):
                    yield Chosen(step, index, *population.choose(within, prior, asked[""]))
                seconds = time.monotonic() - started
                remaining = _work_left(settings, index, within)
                clock.add(seconds, work - remaining - left_out)
                total = step + _steps_left(settings, index, within)
                done = _step_done(record, step, total, index, seconds, clock.left(remaining))
                yield done
                yield from diagnostics.add(done, record, population.shown, asked[""])
                if left_out:
                    yield EndedEarly(step, index, left_out)

                now = time.monotonic()
                if control.take_preview_request() or step == 1 or now - previewed >= settings.preview_seconds:
                    yield _preview(population.shown, step)
                    previewed = time.monotonic()
                if now - saved >= settings.checkpoint_seconds or control.cancelled:
                    state = population.state_dict(), generator.get_state(), diagnostics.state_dict()
                    yield _save(folder, mark, Checkpoint(step, index, within, clock.seconds, aim, *state))
                    saved = time.monotonic()
                if control.cancelled:
                    return
            yield from diagnostics.end_stage(step, index, population.shown, asked[""])
            mesh, regions_of_mesh = population.shown.result(), population.shown.regions

    yield Finished(step, mesh, clock.seconds)


def _steer(
    step: int, aim: Aim, wanted: Aim, asked: Mapping[str, Conditioning], job: Job
) -> tuple[Aim, Mapping[str, Conditioning], Steered | Warned]:
    """What the job works toward from now on, and what to tell: `wanted`, if the prior knows its words."""
    try:
        understood = conditionings_of(job.settings.regions, wanted, job.prior)
    except InputError as error:
        return aim, asked, Warned(f"{error} The job goes on as before.")
    return wanted, understood, Steered(step, wanted.prompt, wanted.negative_prompt, wanted.strength)


def _steps_left(settings: JobSettings, index: int, within: int) -> int:
    return sum(stage.steps for stage in settings.stages[index:]) - within


def _work_left(settings: JobSettings, index: int, within: int) -> int:
    """How often objects are still to be moved after `within` steps of stage `index`."""
    return work_left(settings.stages[index], within) + sum(work_left(stage, 0) for stage in settings.stages[index + 1 :])


def _save(folder: Path, mark: str, checkpoint: Checkpoint) -> CheckpointSaved:
    started = time.monotonic()
    save_checkpoint(folder, checkpoint, mark)
    return CheckpointSaved(checkpoint.step, time.monotonic() - started)


def _preview(running: RunningStage, step: int) -> Preview:
    def render(azimuths: list[float], elevation: float, size: int):
        return render_views(running.to_mesh(), azimuths, elevation, size)

    return Preview(step, running.to_mesh, render)


def _step_done(record: StepRecord, step: int, total: int, stage: int, seconds: float, left: float) -> StepDone:
    cameras = record.cameras
    return StepDone(
        step, total, stage, seconds, left, record.numbers,
        tuple(cameras.azimuth.tolist()), tuple(cameras.elevation.tolist()), record.timestep,
    )


class _Clock:
    """Seconds spent in steps, over kills and resumes, and a guess of what is left from the last twenty steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._recent: list[tuple[float, int]] = []

    def add(self, seconds: float, work: int) -> None:
        """One step took `seconds` and moved `work` objects."""
        self.seconds += seconds
        self._recent = [*self._recent[-19:], (seconds, work)]

    def left(self, work: int) -> float:
        seconds, done = (sum(each) for each in zip(*self._recent))
        return work * seconds / done
