"""What a client wants of the service and what it has been told: the jobs it watches, its credit, its open requests.

No sockets and no threads: the client's thread hands in what came and sends what is due. What is due follows from what
is wanted and not yet asked for on the present link, so that a new link needs nothing special: everything counts as
unsent again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from .client_events import (
    Happened,
    JobsListed,
    ProgressMade,
    Replied,
    ResultArrived,
    SnapshotArrived,
    Submitted,
    WatchRefused,
)
from .client_inbox import Inbox
from .client_jobs import Topology, WatchedJob
from .client_requests import Command, Requests, Submission
from .codec import Frame, Received, WireError
from .mesh_codec import read_mesh
from .messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Done,
    Fetch,
    JobEvent,
    JobRequest,
    Jobs,
    Pong,
    Progress,
    Refused,
    Result,
    Snapshot,
    Submit,
    Unwatch,
    Watch,
)
from .submission_codec import Attachments, submission_frames

log = logging.getLogger(__name__)

Arrived = SnapshotArrived | ResultArrived
Prepare = Callable[[str, Arrived], object]


@dataclass(frozen=True)
class Outgoing:
    message: msgspec.Struct
    buffers: Sequence[Frame] = ()
    bulk: bool = False


class Conversation:
    """Used by the client's thread only; tells the consumer through `inbox`."""

    def __init__(self, inbox: Inbox, next_number: Callable[[], int], prepare: Prepare | None) -> None:
        self.next_number = next_number
        self._inbox, self._prepare = inbox, prepare
        self._jobs: dict[str, WatchedJob] = {}
        self._requests = Requests()
        self._unwatched: list[str] = []
        self._instance: str | None = None
        self._linked = False

    # ---- what the consumer wants

    def submit(self, request: int, job: str, job_request: JobRequest, attached: Attachments) -> None:
        self._jobs[job] = WatchedJob(job, after=0)
        self._requests.submit(Submission(request, job, job_request, attached))

    def watch(self, job: str, after: int) -> None:
        self._inbox.forget(job, Happened)
        self._jobs.setdefault(job, WatchedJob(job, after)).start_at(after)

    def unwatch(self, job: str) -> None:
        if self._jobs.pop(job, None) is not None and self._linked:
            self._unwatched.append(job)
        self._inbox.forget(job, Happened, ProgressMade, SnapshotArrived, WatchRefused)

    def follow(self, job: str) -> None:
        self._inbox.forget(job, SnapshotArrived)
        self._jobs.setdefault(job, WatchedJob(job, after=0)).start_following()

    def unfollow(self, job: str) -> None:
        self._inbox.forget(job, SnapshotArrived)
        if job in self._jobs:
            self._jobs[job].follow = None

    def applied(self, job: str) -> None:
        if job in self._jobs and self._jobs[job].follow is not None:
            self._jobs[job].follow.applied()

    def acknowledge(self, job: str, number: int) -> None:
        if job in self._jobs:
            self._jobs[job].acknowledged = max(self._jobs[job].acknowledged, number)

    def command(self, command: Command) -> None:
        submission = self._requests.submission_of(command.job) if isinstance(command, Cancel) else None
        if submission is not None and not submission.ever_sent:
            self._requests.take_submission(submission.request)
            self._not_submitted(submission, "conflict", "The job was cancelled before it was sent to the service.")
            self._inbox.put(Replied(command.request, None))
            return
        self._requests.add(command, time.monotonic())

    # ---- what there is to send

    def due(self, now: float) -> Iterator[Outgoing]:
        """What to send over the link that there is; taken as sent once it has been yielded."""
        for job in self._unwatched:
            yield Outgoing(Unwatch(job=job))
        self._unwatched.clear()
        for submission in self._requests.to_submit():
            if (outgoing := self._submit(submission)) is not None:
                yield outgoing
        if self._inbox.has_room_again():
            for job in self._jobs.values():
                job.go_on()
        for job in list(self._jobs.values()):
            if self._requests.submission_of(job.job) is None:
                yield from self._due_for(job, now)
        for command in self._requests.to_send():
            yield Outgoing(command, bulk=isinstance(command, Fetch))

    def _submit(self, submission: Submission) -> Outgoing | None:
        message = Submit(request=submission.request, job=submission.job, job_request=submission.job_request)
        mesh = submission.attached.mesh
        try:
            message, buffers = submission_frames(message, submission.attached)
        except WireError as error:
            self._requests.take_submission(submission.request)
            self._not_submitted(submission, error.code, error.message)
            return None
        if mesh is not None and (watched := self._jobs.get(submission.job)) is not None and watched.start is None:
            faces = np.array(mesh.faces, dtype=np.int32)
            faces.flags.writeable = False
            watched.start = Topology(0, faces, message.mesh.vertices)
            if watched.follow is not None and watched.follow.known is None:
                watched.follow.known = watched.start
        return Outgoing(message, buffers, bulk=True)

    def _due_for(self, job: WatchedJob, now: float) -> Iterator[Outgoing]:
        if job.watch_due(now):
            request = self.next_number()
            job.watch_sent(request, now)
            yield Outgoing(Watch(request=request, job=job.job, after=job.last_event))
        if job.acknowledged > job.acknowledgement_sent:
            job.acknowledgement_sent = job.acknowledged
            yield Outgoing(Acknowledge(job=job.job, number=job.acknowledged))
        if job.follow is not None and job.follow.credit == "due" and job.confirmed:
            yield Outgoing(job.follow.grant(), bulk=True)
        if job.follow is not None and job.result_wanted:
            job.result_wanted = False
            self._requests.add(Fetch(request=self.next_number(), job=job.job), now)

    def next_due(self) -> float:
        """When something will be due that is not yet, or a request will have waited too long (monotonic seconds)."""
        watches = [
            job.watch_not_before
            for job in self._jobs.values()
            if self._linked and job.wants_watch() and self._requests.submission_of(job.job) is None
        ]
        return min([self._requests.next_deadline(), *watches], default=math.inf)

    def unsendable(self, message: msgspec.Struct, error: WireError) -> None:
        """`message`, which was due, is none: it has a value out of bounds."""
        if isinstance(message, Watch):
            self._take_refused(Refused(request=message.request, code=error.code, message=error.message))
        elif isinstance(message, Submit) and (submission := self._requests.take_submission(message.request)) is not None:
            self._not_submitted(submission, error.code, error.message)
        elif (command := self._requests.take(getattr(message, "request", -1))) is not None:
            self._answer(command, Refused(request=command.request, code=error.code, message=error.message))
        else:
            log.warning("%s", error.message)

    # ---- links that come and go

    def connected(self, instance: str) -> None:
        same = instance == self._instance
        self._instance, self._linked = instance, True
        for job in self._jobs.values():
            job.new_link(same_instance=same)

    def link_is_gone(self) -> None:
        self._linked = False
        self._unwatched.clear()
        for command, refused in self._requests.link_is_gone():
            self._answer(command, refused)

    def give_up_overdue(self, now: float) -> None:
        for command, refused in self._requests.overdue(now):
            self._answer(command, refused)

    # ---- what the service says

    def take(self, received: Received[Any]) -> None:
        """Raises WireError for a snapshot whose mesh is broken."""
        message = received.message
        match message:
            case JobEvent():
                self._take_event(message)
            case Progress():
                if (job := self._jobs.get(message.job)) is not None:
                    job.confirmed = True
                    self._inbox.put(ProgressMade(message))
            case Pong():
                for name, number in message.last_events.items():
                    if (job := self._jobs.get(name)) is not None:
                        job.confirmed = True
                        job.check_last(number)
            case Done():
                if (command := self._requests.take(message.request)) is not None:
                    self._answer(command, None)
                elif (job := self._watched_by(message.request)) is not None:
                    job.confirmed = True
            case Jobs():
                if self._requests.take(message.request) is not None:
                    self._inbox.put(JobsListed(message.request, message.jobs))
            case Accepted():
                if (submission := self._requests.take_submission(message.request)) is not None:
                    self._inbox.put(Submitted(submission.job, None))
            case Snapshot():
                if (job := self._jobs.get(message.job)) is not None and job.follow is not None:
                    arrived = job.follow.take(message, received.buffers)
                    if arrived is not None:
                        self._inbox.put(self._prepared(arrived))
            case Result():
                self._take_result(message, received.buffers)
            case Refused():
                self._take_refused(message)

    def _take_event(self, event: JobEvent) -> None:
        job = self._jobs.get(event.job)
        if job is not None:
            job.confirmed = True
        if job is None or job.stalled or event.number <= job.last_event:
            return
        if event.number > job.last_event + 1:
            job.watch_again()
        elif self._inbox.put(Happened(event)):
            job.handed_on(event)
        else:
            job.stalled = True

    def _prepared(self, arrived: Arrived) -> Arrived:
        if self._prepare is None:
            return arrived
        try:
            return replace(arrived, prepared=self._prepare(arrived.job, arrived))
        except Exception as error:
            log.warning("a mesh could not be prepared", exc_info=True)
            return replace(arrived, failure=error)

    def _take_result(self, result: Result, buffers: tuple[memoryview, ...]) -> None:
        if self._requests.take(result.request) is None:
            return
        try:
            mesh = read_mesh(result.mesh, buffers)
        except WireError as error:
            sentence = f"The service sent a broken result. {error.message}"
            self._inbox.put(ResultArrived(result.job, None, Refused(result.request, error.code, sentence)))
            return
        self._inbox.put(self._prepared(ResultArrived(result.job, mesh)))

    def _take_refused(self, refused: Refused) -> None:
        if refused.request is None:
            self._inbox.put(Replied(None, refused))
        elif (submission := self._requests.take_submission(refused.request)) is not None:
            self._not_submitted(submission, refused.code, refused.message)
        elif (command := self._requests.take(refused.request)) is not None:
            self._answer(command, refused)
        elif (job := self._watched_by(refused.request)) is not None:
            del self._jobs[job.job]
            self._inbox.put(WatchRefused(job.job, refused))

    def _watched_by(self, request: int) -> WatchedJob | None:
        return next((job for job in self._jobs.values() if job.watch_request == request), None)

    def _not_submitted(self, submission: Submission, code: Any, sentence: str) -> None:
        self._jobs.pop(submission.job, None)
        self._inbox.put(Submitted(submission.job, Refused(request=submission.request, code=code, message=sentence)))

    def _answer(self, command: Command, refused: Refused | None) -> None:
        if not isinstance(command, Fetch):
            self._inbox.put(Replied(command.request, refused))
        elif refused is not None:
            self._inbox.put(ResultArrived(command.job, None, refused))
