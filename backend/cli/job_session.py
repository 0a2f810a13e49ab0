"""Takes one job from its first event to its results: what `generate` and `refine` have in common.

The job itself is `backend.optimize.run.run_job`; here its events are shown, noted and turned into files.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL import Image

from backend.cli.job_arguments import JobFile
from backend.cli.job_history import HistoryLog
from backend.cli.output_folder import OutputFolder, disk_errors_explained
from backend.cli.pictures import ELEVATION, STRIP_AZIMUTHS, THUMB_COUNT, VIEW_SIZE, encoded, preview_strip
from backend.cli.progress import Progress, display_path, duration, make_progress
from backend.cli.report import describe_environment, make_report, now
from backend.errors import InputError
from backend.optimize.events import Event, Finished, Loading, Preview, StepDone, Warned
from backend.representations.mesh_data import MeshData

if TYPE_CHECKING:  # with torch, which must not be there before arguments are read
    from backend.cli.budget import Budget
    from backend.optimize.inputs import Picture, RegionMask
    from backend.priors.prior import Prior

PROGRAM = "python3 galatea.py"
"""How a person calls the command line, for the commands that messages name."""

PREVIEW_SHARE = 0.1
"""Previews take at most this share of the time, however slow the machine is at the moment."""

TURNS = 2.0
"""How often the object in the animation turns around while it grows."""

INTERRUPTED = 130


@dataclass
class Clock:
    """Seconds of this process by name; "first_preview" counts from the moment that the prior is loaded."""

    spent: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        return time.perf_counter() - self.began


def work(
    job: JobFile,
    folder: OutputFolder,
    resume: bool,
    start_mesh: MeshData | None,
    write_own_format: Callable[[MeshData, Path], None] | None = None,
    notes: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    regions: Sequence[RegionMask] = (),
) -> int:
    """Runs `job` in `folder` to its end, or until Ctrl-C; returns the exit code.

    Args:
        start_mesh: what the job begins with, if not with a shape of its own.
        write_own_format: writes the result as a file of the start mesh's own format into a folder.
        notes: what a person should know about the start mesh.
        pictures: the reference pictures, as they were read.
        regions: one mask for each region of the settings.
    Raises:
        InputError: the prompt, the prior, the mesh or the disk cannot be used. What a new job had begun is removed
            unless it has a checkpoint, from which it can be resumed.
    """
    progress = make_progress()
    try:
        with disk_errors_explained(folder.path), contextlib.ExitStack() as closing:
            verb = "Going on" if resume else "Working"
            progress.say(f"{verb} on “{job.title()}” in {display_path(folder.path)}")
            if not resume:
                folder.write("job/job.json", msgspec.json.encode(job))
            session = JobSession(job, folder, HistoryLog(folder.job), progress, pictures, regions)
            closing.callback(session.close)
            for note in notes:
                session.note(note)
            return session.run(resume, start_mesh, write_own_format)
    except BaseException as error:
        if not resume and not is_resumable(folder):
            folder.discard()
        elif isinstance(error, (InputError, KeyboardInterrupt)):
            progress.say(_how_to_resume(job.command, folder.path))
        raise
    finally:
        folder.close()
        progress.close()


class JobSession:
    """What `work` knows while its job runs."""

    def __init__(
        self,
        job: JobFile,
        folder: OutputFolder,
        log: HistoryLog,
        progress: Progress,
        pictures: Sequence[Picture] = (),
        regions: Sequence[RegionMask] = (),
    ) -> None:
        self.job, self.folder, self.log, self.progress = job, folder, log, progress
        self.total = sum(stage.steps for stage in job.settings.stages)
        self.pictures, self.regions = pictures, regions
        self.start_mesh: MeshData | None = None
        self.prepared: Sequence[Picture] = ()
        self.last_step = 0
        self.budget: Budget | None = None
        self.clock = Clock()
        self.start_clock()

    def start_clock(self) -> None:
        """From now on previews count: the prior is loaded."""
        self._prior_ready = time.perf_counter()

    def run(
        self,
        resume: bool,
        start_mesh: MeshData | None,
        write_own_format: Callable[[MeshData, Path], None] | None,
    ) -> int:
        """Loads the prior, runs the job and writes its results; returns the exit code."""
        settings, self.start_mesh = self.job.settings, start_mesh
        if settings.prior == "toybox" or Path(settings.prior).is_dir():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # nothing is downloaded: no bars within our bar
        self.progress.show(Loading("torch and the other libraries"))
        with self.clock.measure("libraries"):
            from backend.optimize.control import Control
            from backend.optimize.reference_pictures import prepare_pictures
            from backend.optimize.run import run_job
            from backend.priors import load_prior

            device = pick_device()
        self._show_prepared(prepare_pictures(self.pictures, settings.references))
        self.progress.show(Loading(f"the prior {settings.prior}"))
        with self.clock.measure("prior"):
            prior = load_prior(settings.prior, device, self.progress.say, settings.loading)
        if self.job.minutes is not None and self.job.plan is None:
            self._plan(start_mesh, prior)
            settings = self.job.settings
        self.start_clock()
        environment = describe_environment(device, settings.threads)
        self.log.sitting({"started": now(), "environment": environment})

        control = Control()
        events = run_job(
            settings,
            start_mesh,
            prior,
            self.folder.job,
            control,
            resume,
            pictures=self.pictures,
            regions=self.regions,
            report=self.progress.say,
        )
        with first_interrupt(lambda: self._stop(control.cancel)):
            finished = self.follow(events)
        if finished is None:
            self.progress.say(f"Stopped after step {self.last_step} of {self.total}.")
            self.progress.say(_how_to_resume(self.job.command, self.folder.path))
            return INTERRUPTED
        self.write_results(finished, environment, write_own_format)
        self.progress.close()
        self._tell_result(finished)
        return 0

    def _plan(self, start_mesh: MeshData | None, prior: Prior) -> None:
        """Fit the job into its minutes; from here on its settings are fixed."""
        from backend.cli.budget import make_budget
        from backend.optimize.inputs import Inputs

        with self.clock.measure("plan"):
            inputs = Inputs(start_mesh, tuple(self.pictures))
            self.job, self.budget = make_budget(self.job, inputs, prior, self.clock.total, self.progress.say)
        self.folder.write("job/job.json", msgspec.json.encode(self.job))
        self.total = sum(stage.steps for stage in self.job.settings.stages)

    def _show_prepared(self, prepared: Sequence[Picture]) -> None:
        """What the pictures were cut down to, as files, before anything is made of them."""
        self.prepared = prepared
        for number, picture in enumerate(prepared, start=1):
            path = self.folder.write(f"reference-{number}.png", encoded(Image.fromarray(picture.pixels), "PNG"))
            self.progress.say(f"Reference picture {number}, cut out and framed: {display_path(path)}")

    def close(self) -> None:
        self.log.close()

    def note(self, message: str) -> None:
        """Tells a person something and keeps it for the report."""
        self.progress.show(Warned(message))
        self.log.add(Warned(message))

    def follow(self, events: Iterator[Event]) -> Finished | None:
        """Consumes the job's events; None if it was cancelled."""
        for event in events:
            self.progress.show(event)
            self.log.add(event)
            if isinstance(event, StepDone):
                self.last_step, self.total = event.step, event.total
            elif isinstance(event, Preview):
                self._refresh_preview(event)
            elif isinstance(event, Finished):
                self.last_step = event.step
                return event
        return None

    def _refresh_preview(self, event: Preview) -> None:
        """Draws the object as it is now, unless previews have already taken more than their share of the time."""
        since_prior = time.perf_counter() - self._prior_ready
        if self.clock.spent.get("previews", 0.0) > PREVIEW_SHARE * since_prior:
            return
        with self.clock.measure("previews"):
            path = self._draw_preview(event.step, event.render)
        if "first_preview" not in self.clock.spent:
            seconds = time.perf_counter() - self._prior_ready
            self.clock.spent["first_preview"] = seconds
            self.progress.say(f"First preview after {seconds:.1f} s, refreshed from now on: {display_path(path)}")

    def _draw_preview(self, step: int, render: Callable[[list[float], float, int], np.ndarray]) -> Path:
        turning = (STRIP_AZIMUTHS[0] + 360.0 * TURNS * step / self.total) % 360
        views = render([*STRIP_AZIMUTHS, turning], ELEVATION, VIEW_SIZE)
        earlier = [frame[:, :VIEW_SIZE] for _, frame in self.log.frames(THUMB_COUNT)]
        caption = f"{self.job.title()}   ·   step {step} of {self.total}"
        strip = preview_strip(views[:4], earlier, caption)
        self.log.add_frame(step, np.concatenate([views[0], views[4]], axis=1))
        return self.folder.write("preview.png", encoded(strip, "PNG", compress_level=3), sync=False)

    def _stop(self, cancel: Callable[[], None]) -> None:
        cancel()
        self.progress.say("Stopping after this step and saving; Ctrl-C again to leave at once ...")

    def write_results(
        self,
        finished: Finished,
        environment: dict[str, object],
        write_own_format: Callable[[MeshData, Path], None] | None,
    ) -> None:
        from backend.cli.reference_comparison import compare_with_references
        from backend.cli.results import make_pictures, region_views, write_pictures, write_report
        from backend.optimize.pictures import render_views
        from backend.representations import write_glb

        job, mesh, ended = self.job, finished.mesh, self.clock.total()
        staging = self.folder.results()
        self.progress.show(Loading("the results"))
        with self.clock.measure("results"):
            self._draw_preview(finished.step, partial(render_views, mesh))
            growth = self.log.frames()
            write_glb(mesh, staging / "mesh.glb")
            if write_own_format is not None:
                write_own_format(mesh, staging)
            beside = compare_with_references(mesh, self.prepared, job.settings.references)
            shown = region_views(self.start_mesh, self.regions) if self.regions else None
            pictures = replace(make_pictures(mesh, growth), references=beside, regions=shown)
            write_pictures(staging, pictures, growth)
        with self.clock.measure("judge"):
            judge = judged(job, mesh)
        source = None if job.mesh is None else {"name": Path(job.mesh.path).name, **msgspec.to_builtins(job.mesh)}
        timings = {**self.clock.spent, "job": finished.seconds, "total": self.clock.total()}
        facts = dict(finished.facts)
        if beside:
            facts["reference"] = {str(number): one.facts() for number, one in enumerate(beside, start=1)}
        facts = facts if job.plan is None else {**facts, "plan": msgspec.to_builtins(job.plan)}
        report = make_report(
            job.command, job.settings, source, mesh, self.log.read(), timings, environment, facts, judge
        )
        write_report(staging, report, pictures)
        if self.budget is not None:
            self.budget.learn(self.log.read().steps, self.clock.total() - ended)
        self.log.close()
        self.folder.finish()

    def _tell_result(self, finished: Finished) -> None:
        where = display_path(self.folder.path)
        mesh = finished.mesh
        print(f"Done in {duration(self.clock.total())}: {len(mesh.faces):,} faces, {len(mesh.positions):,} vertices.")
        print(f"  {Path(where) / 'mesh.glb'}")
        print(f"  {Path(where) / 'report.html'}")


def is_resumable(folder: OutputFolder) -> bool:
    """Whether the job in `folder` has a checkpoint to go on from."""
    from backend.optimize.checkpoint import FILE_NAME

    return (folder.job / FILE_NAME).exists()


def pick_device() -> str:
    """The device that jobs run on: CUDA if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def judged(job: JobFile, mesh: MeshData) -> dict[str, object]:
    """The independent judge's verdict on a result of the embedded prior, or {"skipped": why}."""
    if job.settings.prior != "toybox":
        return {"skipped": "the judge knows only what the embedded prior knows"}
    from backend.evaluation.judge import WEIGHTS
    from backend.evaluation.verdict import verdict_on_prompt

    if not WEIGHTS.exists():
        return {"skipped": f"{WEIGHTS} is missing"}
    if not job.settings.prompt:
        return {"skipped": "the judge compares with words, and there are none"}
    verdict = verdict_on_prompt(mesh, job.settings.prompt, job.settings.seed)
    return {**verdict.to_json(), "summary": verdict.summary()}


@contextlib.contextmanager
def first_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` on the first Ctrl-C; the second raises KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)

    def handle(signal_number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_to_resume(command: str, folder: Path) -> str:
    return f"Go on with:  {PROGRAM} {command} --resume --output {shlex.quote(display_path(folder))}"
