"""The life of jobs: what clients ask for and workers report, as changes of state that are on disk before they are told.

    queued -> running <-> paused;  running -> finished | failed;  any that has not ended -> cancelled;
    failed, cancelled and paused jobs can be queued again and go on from their checkpoint.

A paused job keeps its worker until another job needs it; then its checkpoint is saved, and Resume queues it again.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from backend.service.clients import Clients, Refusal
from backend.service.job_files import JobFiles
from backend.service.job_store import JobRecord, JobStore, StoreError
from backend.service.snapshots import Snapshots
from backend.service.worker_messages import Checkpointed, Report, Run, Stop, WantSnapshot
from backend.service.worker_pool import WorkerPool
from backend.service.worker_process import Answer, WorkerProcess
from protocol.messages import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Finished,
    Happening,
    HexId,
    JobSummary,
    Pause,
    Paused,
    Progress,
    Queued,
    Refused,
    Resume,
    Resumed,
    Started,
    Steer,
    Steered,
    Warned,
)

MAX_PENDING = 100
"""Requests that may wait for one worker."""

log = logging.getLogger(__name__)


class Jobs:
    """Used by the service's one thread."""

    def __init__(self, folder: Path, store: JobStore, clients: Clients, pool: WorkerPool) -> None:
        self._folder, self._store, self._clients, self._pool = folder, store, clients, pool
        self.snapshots = Snapshots(clients, self._want_snapshot)
        self.closing = False
        """Set when the service ends: what workers stop then goes on at its next start."""
        self._numbers = itertools.count(1)
        self._due: deque[Callable[[], None]] = deque()
        self._disk_is_full = False

    def take_up_again(self) -> None:
        """What was running when the service last ended is queued, before all others."""
        for record in reversed(self._store.in_state("running")):
            self._save(replace(record, state="queued", place=self._store.first_place() - 1))

    # ---- what clients ask for; each raises Refusal, or StoreError with nothing done

    def known(self, job: HexId) -> JobRecord:
        record = self._store.get(job)
        if record is None:
            raise Refusal("unknown_job", f"There is no job {job} here (any more).")
        return record

    def queue(self, record: JobRecord) -> None:
        """A new job."""
        self._save(replace(record, state="queued", place=self._store.last_place() + 1), Queued())

    def pause(self, message: Pause, answer: Answer) -> None:
        record, worker = self.known(message.job), self._pool.of(message.job)
        if record.state == "paused":
            answer(Done(message.request))
        elif record.state == "running" and worker is not None:
            self._ask(worker, message, answer)
        elif record.state == "queued":
            self._save(replace(record, state="paused"), Paused(record.step))
            answer(Done(message.request))
        else:
            raise Refusal("conflict", f"The job has {_ended(record)}; there is nothing to pause.")

    def resume(self, message: Resume, answer: Answer) -> None:
        record, worker = self.known(message.job), self._pool.of(message.job)
        if record.state == "finished":
            raise Refusal("conflict", "The job has finished; submit a new one to go further.")
        if worker is not None and (record.state == "paused" or worker.stopping):
            self._ask(worker, message, answer)
            return
        if record.state in ("paused", "failed", "cancelled"):
            place = self._store.last_place() + 1
            self._save(replace(record, state="queued", place=place, crashed_at=None), Queued())
        answer(Done(message.request))

    def cancel(self, message: Cancel, answer: Answer) -> None:
        record, worker = self.known(message.job), self._pool.of(message.job)
        if record.state in ("finished", "failed"):
            raise Refusal("conflict", f"The job has {_ended(record)}; there is nothing to cancel.")
        if worker is not None:
            worker.pending[next(self._numbers)] = (message.request, answer)
            if worker.stopping is None:
                self._pool.send(worker, Stop(message.job))
            worker.expect_stop("cancel")
            return
        if record.state != "cancelled":
            self._save(replace(record, state="cancelled"), Cancelled(record.step, self._files(record.job).has_checkpoint))
        answer(Done(message.request))

    def steer(self, message: Steer, answer: Answer) -> None:
        record, worker = self.known(message.job), self._pool.of(message.job)
        if message.prompt is not None and not message.prompt.strip() and not record.settings.references:
            raise Refusal("input", 'The prompt is empty; say what to make in words, for example "a red mushroom".')
        given = {"prompt": message.prompt, "negative_prompt": message.negative_prompt}
        message = replace(message, **{name: words.strip() for name, words in given.items() if words is not None})
        if worker is not None:
            self._ask(worker, message, answer)
            return
        if record.state not in ("queued", "paused"):
            raise Refusal("conflict", f"The job has {_ended(record)}; only a job that has not ended can be steered.")
        given = {"prompt": message.prompt, "negative_prompt": message.negative_prompt, "strength": message.strength}
        record = replace(record, **{name: value for name, value in given.items() if value is not None})
        self._save(record, Steered(record.step, record.prompt, record.negative_prompt, record.strength))
        answer(Done(message.request))

    def newest(self, limit: int) -> list[JobSummary]:
        """With the step that a running job is at, newest first."""
        summaries = [record.summary() for record in self._store.newest(limit)]
        live = {worker.job: worker.progress for worker in self._pool if worker.progress}
        return [replace(summary, step=live[summary.job].step) if summary.job in live else summary for summary in summaries]

    def progress_of(self, record: JobRecord) -> Progress:
        """How the job stands, for somebody who begins to watch it."""
        worker = self._pool.of(record.job)
        if worker is not None and worker.progress is not None:
            return worker.progress
        what = self._why_queued(record.job) if record.state == "queued" else record.state
        what = "beginning" if what == "running" else what
        return Progress(record.job, record.state, what, record.step, record.total, 0, None, 0.0, 0.0)

    def show_queued(self) -> None:
        """Tell those who watch a queued job what it waits for."""
        watched = self._clients.watched()
        for record in self._store.in_state("queued"):
            if record.job in watched:
                self._clients.show(self.progress_of(record))

    # ---- what workers say

    def on_progress(self, worker: WorkerProcess, progress: Progress) -> None:
        if progress.job == worker.job:
            worker.progress = progress
            self._clients.show(progress)

    def on_answer(self, worker: WorkerProcess, message: Done | Refused) -> None:
        """The worker has done, or refused, what needs no record."""
        request, answer = worker.pending.pop(message.request, (None, None))
        if answer is not None:
            answer(replace(message, request=request))

    def on_report(self, worker: WorkerProcess, report: Report) -> None:
        if report.job == worker.job:
            self._in_order(partial(self._take_report, worker, report))

    def on_checkpoint(self, worker: WorkerProcess, message: Checkpointed) -> None:
        if message.job == worker.job:
            self._in_order(partial(self._take_checkpoint, message))

    def on_death(self, worker: WorkerProcess, how: str) -> None:
        """The process has ended, though nobody asked it to."""
        message = f"The worker process {how}."
        for request, answer in worker.pending.values():
            answer(Refused(request, "worker", message))
        worker.pending.clear()
        if worker.job is not None and not self.closing:
            self._in_order(partial(self._take_death, worker.job, worker.stopping == "cancel", message))

    def dispatch(self) -> None:
        """Give idle workers the next jobs; take a worker from a paused job if others wait. Raises StoreError."""
        if self.closing:
            return
        for worker in self._pool.idle():
            record = self._store.next_queued()
            if record is None:
                return
            self._save(replace(record, state="running"))
            worker.take(record.job)
            run = Run(record.job, record.settings, record.prompt, record.negative_prompt, record.strength, record.checkpoint)
            if self._pool.send(worker, run):
                self.snapshots.begin(record.job)
        paused = [worker for worker in self._pool if worker.is_holding and worker.stopping is None]
        if paused and self._store.next_queued() is not None:
            self._pool.send(paused[0], Stop(paused[0].job))
            paused[0].expect_stop("make room")

    def settle(self) -> None:
        """Write down what has happened, in order; what the disk has no room for stays due."""
        while self._due:
            act = self._due.popleft()
            try:
                act()
            except StoreError as error:
                self._due.appendleft(act)
                if not self._disk_is_full:
                    log.error("the job database cannot be written (%s); trying again until it can", error)
                self._disk_is_full = True
                return
            self._disk_is_full = False

    # ----

    def _in_order(self, act: Callable[[], None]) -> None:
        self._due.append(act)
        self.settle()

    def _save(self, record: JobRecord, *happenings: Happening) -> JobRecord:
        record, events = self._store.save(record, *happenings)
        for event in events:
            log.info("job %s: %s", record.job[:8], _in_words(event.happening))
        if events:
            self._clients.announce(record.job)
        return record

    def _ask(self, worker: WorkerProcess, message: Pause | Resume | Steer, answer: Answer) -> None:
        """Pass a client's message on; the worker's answer is the client's."""
        if worker.stopping:
            raise Refusal("conflict", "The job is being saved at this moment; ask again when that is done.")
        if len(worker.pending) >= MAX_PENDING:
            raise Refusal("conflict", f"{MAX_PENDING} requests wait for the step under way already; try again after it.")
        number = next(self._numbers)
        worker.pending[number] = (message.request, answer)
        self._pool.send(worker, replace(message, request=number))

    def _take_report(self, worker: WorkerProcess, report: Report) -> None:
        record, happening = self._store.get(report.job), report.happening
        if isinstance(happening, Cancelled):
            self._take_stop(worker, record, happening)
            return
        record = replace(record, step=getattr(happening, "step", record.step), state=_state_after(happening, record.state))
        if isinstance(happening, Steered):
            aim = (happening.prompt, happening.negative_prompt, happening.strength)
            record = replace(record, prompt=aim[0], negative_prompt=aim[1], strength=aim[2])
        self._save(record, happening)
        worker.has_begun = worker.has_begun or isinstance(happening, Started)
        if report.request is not None:
            self.on_answer(worker, Done(report.request))
        if isinstance(happening, Finished | Failed):
            self._release(worker, f"The job has {_ended(record)} before that.")

    def _take_stop(self, worker: WorkerProcess, record: JobRecord, stopped: Cancelled) -> None:
        """The worker has let go of the job, with a checkpoint."""
        record = replace(record, step=stopped.step)
        if worker.stopping == "cancel":
            self._save(replace(record, state="cancelled"), stopped)
            for request, answer in worker.pending.values():
                answer(Done(request))
            worker.pending.clear()
        else:
            self._save(record if self.closing else replace(record, state="paused"))
        self._release(worker, "The job has been put aside.")

    def _release(self, worker: WorkerProcess, why: str) -> None:
        job = worker.job
        worker.take(None)
        for request, answer in worker.pending.values():
            answer(Refused(request, "conflict", why))
        worker.pending.clear()
        if job is not None:
            self.snapshots.end(job)

    def _take_checkpoint(self, message: Checkpointed) -> None:
        self._save(replace(self._store.get(message.job), checkpoint=message.step, step=message.step))

    def _take_death(self, job: HexId, cancelled: bool, message: str) -> None:
        self.snapshots.end(job)
        record = self._store.get(job)
        resumable = self._files(job).has_checkpoint
        where = f"its checkpoint of step {record.checkpoint}" if resumable else "its beginning"
        if cancelled:
            self._save(replace(record, state="cancelled"), Warned(message), Cancelled(record.checkpoint, resumable))
        elif record.state == "paused":
            self._save(record, Warned(f"{message} The paused job will go on from {where}."))
        elif record.crashed_at is not None and record.checkpoint <= record.crashed_at:
            sentence = f"{message} It was the second time at this point of the job, so it is not tried again by itself."
            self._save(replace(record, state="failed"), Failed("worker", sentence, resumable))
        else:
            record = replace(record, state="queued", place=self._store.first_place() - 1, crashed_at=record.checkpoint)
            self._save(record, Warned(f"{message} The job goes on from {where} in a new one."))

    def _want_snapshot(self, job: HexId) -> bool:
        worker = self._pool.of(job)
        return worker is not None and self._pool.send(worker, WantSnapshot(job))

    def _why_queued(self, job: HexId) -> str:
        obstacle = self._pool.obstacle()
        if obstacle is not None:
            return obstacle
        before = self._store.queued().index(job)
        return f"waiting for {before + 1} other jobs" if before else "waiting for another job"

    def _files(self, job: HexId) -> JobFiles:
        return JobFiles(self._folder, job)


def _state_after(happening: Happening, state: str) -> str:
    match happening:
        case Started() | Resumed():
            return "running"
        case Paused():
            return "paused"
        case Finished():
            return "finished"
        case Failed():
            return "failed"
    return state


def _ended(record: JobRecord) -> str:
    return {"cancelled": "been cancelled"}.get(record.state, record.state)


def _in_words(happening: Happening) -> str:
    match happening:
        case Started(step, device):
            return f"started at step {step} on {device}"
        case Steered(step, prompt, _, strength):
            return f"steered at step {step} to {prompt!r}, strength {strength:g}"
        case Warned(message):
            return f"note: {message}"
        case Finished(step, seconds, vertices, faces):
            return f"finished after {step} steps and {seconds:.0f} s: {vertices:,} vertices, {faces:,} faces"
        case Failed(code, message, _):
            return f"failed ({code}): {message}"
        case Paused(step) | Resumed(step) | Cancelled(step, _):
            return f"{type(happening).__name__.lower()} at step {step}"
    return type(happening).__name__.lower()
