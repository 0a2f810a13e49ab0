"""What becomes of a job when its worker dies, is asked too late, or the disk is full: the states, without processes."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from backend.recipes import settings_for
from backend.service.clients import Refusal
from backend.service.job_files import JobFiles
from backend.service.job_store import JobRecord, JobStore, StoreError
from backend.service.jobs import Jobs
from backend.service.worker_messages import Checkpointed, Report, Run, Stop
from backend.service.worker_process import SECONDS_TO_STOP_LOADING, WorkerProcess
from protocol.messages import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Finished,
    JobRequest,
    Pause,
    Paused,
    Progress,
    Queued,
    Refused,
    Resume,
    Resumed,
    Started,
    Steer,
    Warned,
)


class Pool:
    """One worker that is always ready, and remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.worker = self.new_worker()

    def new_worker(self) -> WorkerProcess:
        self.worker = WorkerProcess("cpu", secrets.token_hex(16), process=None, ready=True)
        return self.worker

    def __iter__(self):
        return iter([self.worker])

    def of(self, job: str) -> WorkerProcess | None:
        return self.worker if self.worker.job == job else None

    def idle(self) -> list[WorkerProcess]:
        return [self.worker] if self.worker.idle else []

    def send(self, worker: WorkerProcess, message: object) -> bool:
        self.sent.append(message)
        return True

    def obstacle(self) -> None:
        return None


class Nobody:
    """Clients, of which there are none."""

    def __iter__(self):
        return iter([])

    def announce(self, job: str) -> None:
        pass

    def show(self, progress: Progress) -> None:
        pass


class Desk:
    """`Jobs` over a real store, driven from both sides."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.pool = folder, JobStore(folder), Pool()
        self.jobs = Jobs(folder, self.store, Nobody(), self.pool)
        self.answers: list[object] = []

    def job(self) -> str:
        request, job = JobRequest("generate", "a mug"), secrets.token_hex(16)
        JobFiles(self.folder, job).make()
        self.jobs.queue(
            JobRecord(job, "queued", request, settings_for(request), None, "a mug", "", 0.5, time.time(), total=280)
        )
        self.jobs.dispatch()
        return job

    def started(self) -> str:
        job = self.job()
        self.report(job, Started(0, "cpu"))
        return job

    def report(self, job: str, happening: object, request: int | None = None) -> None:
        self.jobs.on_report(self.pool.worker, Report(job, happening, request))
        self.jobs.dispatch()

    def ask(self, message: object) -> object:
        """What the client is answered: now, or None if the worker has to be asked first."""
        before = len(self.answers)
        getattr(self.jobs, type(message).__name__.lower())(message, self.answers.append)
        self.jobs.dispatch()
        return self.answers[-1] if len(self.answers) > before else None

    def die(self) -> None:
        dead = self.pool.worker
        self.pool.new_worker()
        self.jobs.on_death(dead, "was ended by signal 9 (SIGKILL)")
        self.jobs.dispatch()

    def checkpoint(self, job: str, step: int) -> None:
        (JobFiles(self.folder, job).folder / "checkpoint.pt").write_bytes(b"")
        self.jobs.on_checkpoint(self.pool.worker, Checkpointed(job, step))

    def state(self, job: str) -> str:
        return self.store.get(job).state

    def kinds(self, job: str) -> list[type]:
        return [type(event.happening) for event in self.store.events_after(job, 0)]

    def last(self, job: str) -> object:
        return self.store.events_after(job, 0)[-1].happening


@pytest.fixture
def desk(tmp_path: Path):
    one = Desk(tmp_path)
    yield one
    one.store.close()


def test_a_crash_is_survived_once_at_each_point(desk: Desk) -> None:
    job = desk.started()
    for step in (5, 9, 40):
        desk.checkpoint(job, step)
        desk.die()
        assert isinstance(desk.last(job), Warned) and f"checkpoint of step {step}" in desk.last(job).message
        assert desk.state(job) == "running" and isinstance(desk.pool.sent[-1], Run)
        desk.report(job, Started(step, "cpu"))
    desk.die()
    assert desk.state(job) == "failed" and desk.last(job).code == "worker" and desk.last(job).resumable
    assert desk.pool.worker.idle
    assert desk.ask(Resume(1, job)) == Done(1)
    assert desk.state(job) == "running"
    desk.die()
    assert desk.state(job) == "running", "a person's Resume counts as a new beginning"


def test_a_job_that_never_gets_to_a_checkpoint_is_given_up_at_its_second_crash(desk: Desk) -> None:
    job = desk.started()
    desk.die()
    assert "its beginning" in desk.last(job).message
    desk.die()
    assert desk.last(job) == Failed("worker", desk.last(job).message, False)
    assert desk.kinds(job) == [Queued, Started, Warned, Failed]


def test_others_get_their_turn_after_a_crash(desk: Desk) -> None:
    first, second = desk.started(), desk.job()
    assert desk.state(second) == "queued"
    desk.die()
    assert (desk.state(first), desk.state(second)) == ("running", "queued"), "it goes on before those that wait"
    desk.die()
    assert (desk.state(first), desk.state(second)) == ("failed", "running")


def test_a_paused_job_stays_paused_when_its_worker_dies(desk: Desk) -> None:
    job = desk.started()
    assert desk.ask(Pause(7, job)) is None
    desk.report(job, Paused(3), desk.pool.sent[-1].request)
    assert desk.answers == [Done(7)]
    desk.die()
    assert desk.state(job) == "paused" and "paused job" in desk.last(job).message and desk.pool.worker.idle
    assert desk.ask(Resume(8, job)) == Done(8)
    assert desk.state(job) == "running"


def test_who_waits_for_a_worker_that_dies_is_told(desk: Desk) -> None:
    job = desk.started()
    for message in (Pause(1, job), Steer(2, job, strength=1.0), Cancel(3, job)):
        assert desk.ask(message) is None
    desk.die()
    assert [(answer.request, answer.code) for answer in desk.answers] == [(1, "worker"), (2, "worker"), (3, "worker")]
    assert desk.state(job) == "cancelled" and isinstance(desk.last(job), Cancelled)


def test_a_worker_that_does_not_stop_is_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a prior cannot be interrupted; the job is cancelled all the same."""
    job = desk.job()
    worker, killed = desk.pool.worker, []
    monkeypatch.setattr(WorkerProcess, "kill", lambda self: killed.append(self))
    worker.kill_if_overdue()
    desk.ask(Cancel(1, job))
    worker.kill_if_overdue()
    assert killed == []
    monkeypatch.setattr("time.monotonic", lambda now=time.monotonic() + SECONDS_TO_STOP_LOADING + 1: now)
    worker.kill_if_overdue()
    worker.kill_if_overdue()
    assert killed == [worker]
    desk.die()
    assert desk.state(job) == "cancelled"


def test_who_asks_too_late_is_told(desk: Desk) -> None:
    job = desk.started()
    assert desk.ask(Cancel(1, job)) is None and isinstance(desk.pool.sent[-1], Stop)
    with pytest.raises(Refusal, match="saved"):
        desk.ask(Pause(2, job))
    desk.report(job, Finished(280, 60.0, 9, 14))
    assert desk.answers == [Refused(1, "conflict", "The job has finished before that.")]
    assert desk.state(job) == "finished"


def test_a_paused_job_gives_up_its_worker_only_when_it_is_needed(desk: Desk) -> None:
    job = desk.started()
    desk.ask(Pause(1, job))
    desk.report(job, Paused(3), desk.pool.sent[-1].request)
    desk.jobs.on_progress(desk.pool.worker, Progress(job, "paused", "x", 3, 280, 0, None, 0.1, 1.0))
    assert desk.ask(Resume(2, job)) is None and isinstance(desk.pool.sent[-1], Resume)
    desk.report(job, Resumed(3), desk.pool.sent[-1].request)
    assert desk.answers == [Done(1), Done(2)]
    desk.ask(Pause(3, job))
    desk.report(job, Paused(5), desk.pool.sent[-1].request)
    other = desk.job()
    assert isinstance(desk.pool.sent[-1], Stop) and desk.pool.sent[-1].job == job
    desk.report(job, Cancelled(6, True))
    assert (desk.state(job), desk.state(other)) == ("paused", "running")
    assert Cancelled not in desk.kinds(job)


def test_a_full_disk_delays_what_is_told_and_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = desk.started()
    save, full = desk.store.save, [True]

    def refuse(*arguments: object) -> object:
        if full[0]:
            raise StoreError("database or disk is full")
        return save(*arguments)

    monkeypatch.setattr(desk.store, "save", refuse)
    desk.jobs.on_report(desk.pool.worker, Report(job, Warned("first")))
    desk.checkpoint(job, 8)
    desk.jobs.on_report(desk.pool.worker, Report(job, Finished(280, 60.0, 9, 14)))
    assert desk.kinds(job) == [Queued, Started] and desk.state(job) == "running"
    assert desk.pool.worker.job == job, "no other job is begun before this one's end is written"
    desk.jobs.settle()
    assert desk.kinds(job) == [Queued, Started]
    full[0] = False
    desk.jobs.settle()
    assert desk.kinds(job) == [Queued, Started, Warned, Finished] and desk.store.get(job).checkpoint == 8
    assert desk.pool.worker.idle


def test_what_ran_when_the_service_was_killed_comes_first(desk: Desk) -> None:
    first, second = desk.started(), desk.job()
    paused = desk.job()
    desk.store.save(replace(desk.store.get(paused), state="paused"))
    again = Jobs(desk.folder, desk.store, Nobody(), Pool())
    again.take_up_again()
    assert desk.store.queued() == [first, second] and desk.state(paused) == "paused"
