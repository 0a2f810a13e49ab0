"""One job in the worker: the events of `run_job` told to the service, and between two of them whatever the service asks.

Snapshots are made only when somebody waits for one, and take at most SNAPSHOT_SHARE of the loop's time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import torch

from backend.errors import InputError
from backend.file_lock import try_lock
from backend.optimize import events
from backend.optimize.control import Aim, Control
from backend.optimize.inputs import Picture, RegionMask
from backend.optimize.reference_pictures import bind_prior, prepare_pictures
from backend.optimize.run import run_job
from backend.priors.prior import Prior
from backend.representations import MeshData, check_and_repair
from backend.service.diagnosis import diagnosis_of
from backend.service.input_files import read_inputs
from backend.service.job_files import DamagedFile, JobFiles, disk_error, load_mesh_file, save_mesh_file
from backend.service.prior_shelf import PriorShelf
from backend.service.worker_link import ServiceLink
from backend.service.worker_messages import Checkpointed, Exit, JobSnapshot, Report, Run, Stop, WantSnapshot
from protocol.codec import WireError
from protocol.mesh_codec import Mesh, mesh_frames
from protocol.messages import (
    Cancelled,
    Diagnosis,
    Done,
    ErrorCode,
    Failed,
    Finished,
    Happening,
    Pause,
    Paused,
    Progress,
    Refused,
    Resume,
    Resumed,
    Started,
    Steer,
    Steered,
    Warned,
)

SNAPSHOT_SHARE = 0.03
PROGRESS_SECONDS = 0.2
LOCK_SECONDS = 15.0
"""How long to wait for the worker of a service that was killed to let go of the job."""

_STAGES = {
    "grid": "shaping a density grid",
    "field": "shaping a radiance field",
    "tetrahedra": "shaping a tetrahedral grid",
    "mesh": "optimizing the mesh",
}

log = logging.getLogger(__name__)


class WorkerJob:
    """`work` takes the job to its end, or until it is stopped."""

    def __init__(self, run: Run, link: ServiceLink, shelf: PriorShelf, service_folder: Path) -> None:
        self._run, self._link, self._shelf = run, link, shelf
        self._files = JobFiles(service_folder, run.job)
        self._control = Control()
        self._aim = Aim(run.prompt, run.negative_prompt, run.strength)
        self._prior: Prior | None = None
        """Shown the job's pictures, if it can be."""
        self._process = psutil.Process()
        self._total = sum(stage.steps for stage in run.settings.stages)
        self._started = self._held = self._exit = False
        self._fell_back = ""
        self._step, self._stage = run.step, 0
        self._seconds_left: float | None = None
        self._step_seconds = 0.0
        self._numbers: dict[str, float] = {}
        self._diagnosis: Diagnosis | None = None
        self._what = "beginning"
        self._shown = -math.inf
        self._preview: events.Preview | None = None
        self._wanted = False
        self._snapshots = _SnapshotMaker(run.job, link)

    def work(self) -> bool:
        """Reports whatever becomes of the job; returns whether the worker has been asked to exit meanwhile."""
        try:
            self._work()
        except InputError as error:
            self._fail("input", str(error))
        except WireError as error:
            self._fail("internal", f"The job came to a mesh that cannot be used: {error.message}")
        except torch.OutOfMemoryError as error:
            self._fail("worker", f"The device's memory is not enough for this job ({str(error).splitlines()[0]}).")
        except MemoryError:
            self._fail("worker", "This computer's memory is not enough for this job.")
        except Exception as error:
            refused = disk_error(error)
            if refused is not None:
                sentence = f"The job's files cannot be written: {refused.strerror}. Free some space, then resume the job."
                self._fail("disk", sentence)
            else:
                log.exception("job %s failed", self._run.job[:8])
                self._fail("internal", "The job failed because of a defect of Galatea; the service's log says more.")
        return self._exit

    def _work(self) -> None:
        self._show()
        lock = self._lock()
        try:
            settings = self._run.settings
            if not self._shelf.has(settings.prior, settings.loading):
                self._what = f"loading the prior {settings.prior}"
                self._show()
            prior = self._shelf.get(settings.prior, settings.loading)
            start = self._start_mesh()
            pictures, regions = self._inputs(start)
            self._prior = bind_prior(prior, settings, prepare_pictures(pictures, settings.references))
            self._snapshots.begin(start)
            self._fall_back_if_unusable()
            # A checkpoint may be older than what the job was steered to last.
            self._control.steer(*vars(self._aim).values())
            for event in self._events(prior, start, pictures, regions):
                self._take(event)
                self._heed(event)
            if self._control.cancelled:
                self._report(Cancelled(self._step, self._files.has_checkpoint))
        finally:
            lock.close()

    def _events(
        self, prior: Prior, start: MeshData | None, pictures: tuple[Picture, ...], regions: tuple[RegionMask, ...]
    ) -> Iterator[events.Event]:
        folder, settings = self._files.folder, self._run.settings
        return run_job(settings, start, prior, folder, self._control, resume=True, pictures=pictures, regions=regions)

    def _fall_back_if_unusable(self) -> None:
        """A job that waited was steered without asking the prior; one that cannot use the words keeps those it came with."""
        settings, aim = self._run.settings, self._aim
        submitted = Aim(settings.prompt, settings.negative_prompt, aim.strength)
        if aim == submitted:
            return
        try:
            self._prior.encode_prompt(aim.prompt, aim.negative_prompt)
        except InputError as error:
            self._aim, self._fell_back = submitted, f"{error} The job goes on toward the words that it was submitted with."

    def _lock(self):
        """Two processes must never write to one job: a service that was killed may have left a worker that is still ending."""
        until = time.monotonic() + LOCK_SECONDS
        while (lock := try_lock(self._files.lock)) is None:
            if time.monotonic() > until:
                raise InputError("Another process is still working on this job; resume it when that one has ended.")
            time.sleep(0.1)
        return lock

    def _start_mesh(self) -> MeshData | None:
        if not self._files.start.exists():
            return None
        try:
            mesh = load_mesh_file(self._files.start)
        except DamagedFile as error:
            raise InputError(f"{error} Submit the job anew.") from error
        checked, notes = check_and_repair(MeshData(mesh.positions, mesh.faces, mesh.colors))
        if not self._files.has_checkpoint:
            for note in notes:
                self._report(Warned(note))
        return checked

    def _inputs(self, start: MeshData | None) -> tuple[tuple[Picture, ...], tuple[RegionMask, ...]]:
        """One for each of the settings' references, one for each of its regions."""
        settings = self._run.settings
        if not (settings.references or settings.regions):
            return (), ()
        try:
            pictures, masks = read_inputs(self._files.inputs)
        except (DamagedFile, FileNotFoundError) as error:
            raise InputError(f"The job's pictures and masks are not there any more ({error}). Submit the job anew.") from error
        fits = (len(pictures), len(masks)) == (len(settings.references), len(settings.regions))
        if not fits or any(start is None or len(mask) != len(start.positions) for mask in masks):
            raise InputError(f"{self._files.inputs} belongs to another job. Submit the job anew.")
        shown = tuple(Picture(picture.pixels, picture.depth, picture.normals) for picture in pictures)
        return shown, tuple(RegionMask(vertices=mask) for mask in masks)

    # ---- what the loop says

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Loading(what):
                self._what = what
                self._show()
            case events.StageStarted(index, _, kind, _):
                self._stage, self._what = index, _STAGES[kind]
                self._preview = None  # of the stage before, and it would show what that one made
                self._show()
            case events.StepDone():
                self._begin(event.step - 1)
                self._step, self._total = event.step, event.total
                self._seconds_left, self._step_seconds = event.seconds_left, event.seconds
                self._numbers = {name: value for name, value in event.numbers.items() if math.isfinite(value)}
                if time.monotonic() - self._shown >= PROGRESS_SECONDS or event.step == event.total:
                    self._show()
            case events.Diagnosed():
                self._diagnosis = diagnosis_of(event)
            case events.Preview():
                self._preview = event
            case events.CheckpointSaved(step, _):
                self._link.send(Checkpointed(self._run.job, step))
            case events.Chosen() | events.EndedEarly():
                self._report(Warned(event.sentence()))
            case events.Warned(message):
                self._report(Warned(message))
            case events.Finished(step, mesh, seconds, _):
                self._begin(step)
                save_mesh_file(self._files.result, Mesh(mesh.positions, mesh.faces, mesh.colors))
                self._report(Finished(step, seconds, len(mesh.positions), len(mesh.faces)))

    def _begin(self, step: int) -> None:
        """The first step tells where a checkpoint has taken the job up."""
        if not self._started:
            self._started, self._step = True, step
            if not self._control.cancelled:  # else this step is only there to be saved
                self._report(Started(step, self._shelf.device))
            if self._fell_back:
                self._report(Warned(self._fell_back))
                self._report(Steered(step, *vars(self._aim).values()))

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._link.offer(
            Progress(
                job=self._run.job,
                state="paused" if self._held else "running",
                what=self._what,
                step=self._step,
                total=self._total,
                stage=self._stage,
                seconds_left=None if self._seconds_left is None else max(0.0, self._seconds_left),
                step_seconds=self._step_seconds,
                memory_megabytes=self._process.memory_info().rss / 1e6,
                numbers=self._numbers,
                diagnosis=self._diagnosis,
            )
        )

    def _report(self, happening: Happening, request: int | None = None) -> None:
        self._link.send(Report(self._run.job, happening, request))

    def _fail(self, code: ErrorCode, message: str) -> None:
        self._report(Failed(code, message, self._files.has_checkpoint))

    # ---- what the service says

    def _heed(self, event: events.Event) -> None:
        """Take what has come; while the job is held, stay here."""
        if isinstance(event, events.Finished):
            return
        for message in self._link.waiting():
            self._do(message)
        if isinstance(event, events.StepDone) and (self._held or (self._wanted and self._snapshots.are_due())):
            # The preview comes before anything else: a held job is held there, with what it looks like at hand.
            self._control.ask_preview()
            return
        if isinstance(event, events.Preview) and self._wanted and self._snapshots.are_due():
            self._snapshot()
        while self._held and not self._control.cancelled:
            if self._wanted:
                self._snapshot()
            self._do(self._link.wait())

    def _do(self, message: msgspec.Struct) -> None:
        match message:
            case Exit():
                self._exit = True
                self._control.cancel()
            case Stop(job) if job == self._run.job:
                self._control.cancel()
            case WantSnapshot(job) if job == self._run.job:
                self._wanted = True
            case Pause(request, job) if job == self._run.job:
                self._hold(request, True)
            case Resume(request, job) if job == self._run.job:
                self._hold(request, False)
            case Steer(request, job) if job == self._run.job:
                self._steer(message)
            case Pause() | Resume() | Steer():
                self._link.send(Refused(message.request, "conflict", "The worker has let go of the job already."))

    def _hold(self, request: int, held: bool) -> None:
        if self._held == held:
            self._link.send(Done(request))
            return
        self._held = held
        self._report(Paused(self._step) if held else Resumed(self._step), request)
        self._show()

    def _steer(self, message: Steer) -> None:
        given = {"prompt": message.prompt, "negative_prompt": message.negative_prompt, "strength": message.strength}
        given = {name: value for name, value in given.items() if value is not None}
        aim = Aim(**vars(self._aim) | given)
        try:
            if (aim.prompt, aim.negative_prompt) != (self._aim.prompt, self._aim.negative_prompt):
                self._prior.encode_prompt(aim.prompt, aim.negative_prompt)
        except InputError as error:
            self._link.send(Refused(message.request, "input", str(error)))
            return
        self._aim = aim
        self._control.steer(**given)
        self._report(Steered(self._step, aim.prompt, aim.negative_prompt, aim.strength), message.request)

    def _snapshot(self) -> None:
        """Answer what is wanted, if the object has changed since the last snapshot."""
        if self._preview is not None and self._snapshots.make(self._preview, self._step):
            self._wanted = False


class _SnapshotMaker:
    """Turns previews into snapshots: leaves out faces that the service has, and keeps count of the time that this takes."""

    def __init__(self, job: str, link: ServiceLink) -> None:
        self._job, self._link = job, link
        self._faces: np.ndarray | None = None
        self._sent_faces = False
        self._topology = self._last_topology = 0
        self._step = -1
        self._next = -math.inf

    def begin(self, start: MeshData | None) -> None:
        """Topology 0 is that of the mesh that was submitted."""
        self._faces = None if start is None else start.faces

    def are_due(self) -> bool:
        return time.monotonic() >= self._next

    def make(self, preview: events.Preview, step: int) -> bool:
        """Send the object as it is at `step`; False if it has been sent already, or cannot be."""
        if step == self._step:
            return False
        began = time.monotonic()
        try:
            sent = self._send(preview.mesh(), step)
        except WireError as error:
            log.warning("job %s has no snapshot of step %d: %s", self._job[:8], step, error.message)
            sent = False
        spent = time.monotonic() - began
        self._next = time.monotonic() + spent / SNAPSHOT_SHARE
        return sent

    def _send(self, mesh: MeshData, step: int) -> bool:
        if self._faces is None or not np.array_equal(self._faces, mesh.faces):
            self._last_topology += 1
            self._faces, self._topology, self._sent_faces = mesh.faces, self._last_topology, False
        faces = None if self._sent_faces else mesh.faces
        header, buffers = mesh_frames(Mesh(mesh.positions, faces, mesh.colors))
        if not self._link.offer(JobSnapshot(self._job, step, self._topology, header), buffers):
            return False
        self._step, self._sent_faces = step, True
        return True
