"""A network and a service that do whatever they can, and still: every event once and in order, every request one answer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from protocol import client_inbox
from protocol.client_conversation import Conversation
from protocol.client_events import Happened, ProgressMade, Replied, ResultArrived, SnapshotArrived, Submitted, WatchRefused
from protocol.client_inbox import Inbox
from protocol.codec import Received, WireError
from protocol.mesh_codec import Mesh, mesh_frames
from protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Done,
    Fetch,
    Finished,
    Grant,
    JobEvent,
    JobRequest,
    Pause,
    Pong,
    Progress,
    Queued,
    Refused,
    Result,
    Shutdown,
    Snapshot,
    Submit,
    ToClientBulk,
    ToClientControl,
    Unwatch,
    Watch,
)
from protocol.submission_codec import Attachments

JOBS = ["a" * 32, "b" * 32]
FACES = [np.array([[0, 1, 2]], np.int32), np.array([[0, 2, 1]], np.int32), np.array([[1, 2, 3]], np.int32)]
POSITIONS = np.eye(4, 3, dtype=np.float32)
SMALL_INBOX = 5


class Exchange(RuleBasedStateMachine):
    """The service's jobs are on its disk; its watchers, credits and what is under way are gone with the link."""

    @initialize(knows=st.booleans())
    def begin(self, knows: bool) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(client_inbox, "MAX_HAPPENINGS", SMALL_INBOX)
        self.inbox = Inbox()
        self.conversation = Conversation(self.inbox, itertools.count(1).__next__, None)
        self.now = 0.0
        self.instance: str | None = None
        self.instances = 0
        self.stored: dict[str, list[Any]] = {JOBS[1]: [Queued()]} if knows else {}
        self.start_faces: dict[str, np.ndarray] = {}
        self.watching: dict[str, bool] = {}
        self.credit: dict[str, Grant] = {}
        self.serial = 0
        self.on_the_way: list[Received[Any]] = []
        self.numbers: dict[str, list[int]] = {job: [] for job in JOBS}
        self.held: set[str] = set()
        self.answers: dict[int, int] = {}
        self.submitted: dict[str, list[Submitted]] = {}
        self.faces: dict[str, np.ndarray] = {}
        self.results: list[str] = []

    # ---- what the consumer does

    @rule(with_mesh=st.booleans())
    def submit(self, with_mesh: bool) -> None:
        if JOBS[0] in self.submitted:
            return
        self.submitted[JOBS[0]] = []
        mesh = Mesh(POSITIONS, FACES[0]) if with_mesh else None
        self.conversation.submit(self.conversation.next_number(), JOBS[0], JobRequest("generate", "x"), Attachments(mesh))

    @rule(job=st.sampled_from(JOBS))
    def watch(self, job: str) -> None:
        if job == JOBS[0] or not self.numbers[job]:
            self.conversation.watch(job, len(self.numbers[job]))

    @rule(job=st.sampled_from(JOBS))
    def follow(self, job: str) -> None:
        if job in self.submitted or self.numbers[job]:
            self.conversation.follow(job)
            self.held.discard(job)
            self.faces.pop(job, None)

    @rule(job=st.sampled_from(JOBS))
    def unfollow(self, job: str) -> None:
        self.conversation.unfollow(job)
        self.held.discard(job)

    @rule(job=st.sampled_from(JOBS))
    def applied(self, job: str) -> None:
        if job in self.held:
            self.held.discard(job)
            self.conversation.applied(job)

    @rule(job=st.sampled_from(JOBS), kind=st.sampled_from([Pause, Cancel]))
    def ask(self, job: str, kind: type) -> None:
        request = self.conversation.next_number()
        self.answers[request] = 0
        self.conversation.command(kind(request, job))

    @rule()
    def ask_for_the_end(self) -> None:
        request = self.conversation.next_number()
        self.answers[request] = 0
        self.conversation.command(Shutdown(request))

    @rule(limit=st.integers(1, 9))
    def poll(self, limit: int) -> None:
        for event in self.inbox.take(limit):
            match event:
                case Happened(happened):
                    self.numbers[happened.job].append(happened.number)
                case Replied(request):
                    self.answers[request] += 1
                case Submitted(job):
                    self.submitted[job].append(event)
                case SnapshotArrived(job):
                    assert job not in self.held, "a snapshot came before the last one was applied"
                    self.held.add(job)
                    assert event.faces_are_new == (self.faces.get(job) is not event.mesh.faces)
                    self.faces[job] = event.mesh.faces
                    expected = self.start_faces[job] if event.topology == 0 else FACES[event.topology % 3]
                    assert event.mesh.faces.tolist() == expected.tolist(), "faces of another topology"
                case ResultArrived(job):
                    assert event.mesh is not None
                    self.results.append(job)

    # ---- what the links do

    @precondition(lambda self: self.instance is None)
    @rule(another=st.booleans())
    def connect(self, another: bool) -> None:
        self.instances += another or not self.instances
        self.instance = f"{self.instances:032x}"
        if another:
            self.serial = 0
        self.conversation.connected(self.instance)

    @precondition(lambda self: self.instance is not None)
    @rule()
    def break_off(self) -> None:
        self.instance = None
        self.on_the_way.clear()
        self.watching.clear()
        self.credit.clear()
        self.conversation.link_is_gone()

    @precondition(lambda self: self.instance is not None)
    @rule(seconds=st.sampled_from([0.0, 0.3, 2.0]))
    def send(self, seconds: float) -> None:
        self.now += seconds
        for outgoing in self.conversation.due(self.now):
            self.serve(outgoing.message)

    @rule(count=st.integers(1, 5), lost=st.booleans())
    def deliver(self, count: int, lost: bool) -> None:
        for _ in range(min(count, len(self.on_the_way))):
            received = self.on_the_way.pop(0)
            # ZeroMQ loses what does not fit a full queue: of what is sent to watchers, anything.
            if not (lost and isinstance(received.message, JobEvent | Progress)):
                self.conversation.take(received)

    # ---- what the service does

    def serve(self, message: Any) -> None:
        match message:
            case Submit(request, job):
                self.stored.setdefault(job, [Queued()])
                if message.mesh is not None:
                    self.start_faces[job] = FACES[0]
                self.say(Accepted(request, job))
            case Watch(request, job, after):
                if job not in self.stored:
                    self.say(Refused(request, "unknown_job", "No."))
                    return
                self.watching[job] = True
                for number in range(after + 1, len(self.stored[job]) + 1):
                    self.say(self.event(job, number))
                self.say(Done(request))
            case Grant(job):
                assert job in self.stored
                assert message.topology in (-1, 0) or self.serial > 0, "a topology of another instance"
                self.credit[job] = message
            case Fetch(request, job):
                header, buffers = mesh_frames(Mesh(POSITIONS, FACES[1]))
                self.say(Result(request, job, header), buffers)
            case Pause(request) | Cancel(request) | Shutdown(request):
                self.say(Done(request))
            case Unwatch() | Acknowledge():
                pass
            case _:
                raise AssertionError(message)

    def say(self, message: Any, buffers: Any = ()) -> None:
        self.on_the_way.append(Received(message, tuple(buffers)))

    def event(self, job: str, number: int) -> JobEvent:
        return JobEvent(job, number, 0.0, self.stored[job][number - 1])

    @rule(job=st.sampled_from(JOBS), count=st.integers(1, 8))
    def happen(self, job: str, count: int) -> None:
        for _ in range(count if job in self.stored else 0):
            self.stored[job].append(Queued())
            if job in self.watching:
                self.say(self.event(job, len(self.stored[job])))
                self.say(Progress(job, "running", "", 1, 1, 0, None, 0.0, 0.0))

    @rule(job=st.sampled_from(JOBS), topology=st.integers(0, 5))
    def show(self, job: str, topology: int) -> None:
        if job in self.credit and (topology or job in self.start_faces):
            self.serial += 1
            grant = self.credit.pop(job)
            assert grant.after < self.serial
            faces = self.start_faces[job] if topology == 0 else FACES[topology % 3]
            header, buffers = mesh_frames(Mesh(POSITIONS, None if grant.topology == topology else faces))
            self.say(Snapshot(job, self.serial, 1, topology, header), buffers)

    @precondition(lambda self: self.instance is not None)
    @rule()
    def pong(self) -> None:
        self.say(Pong(0, self.instance, {job: len(self.stored[job]) for job in self.watching}))

    # ---- what has to hold

    @invariant()
    def events_come_once_and_in_order(self) -> None:
        for numbers in getattr(self, "numbers", {}).values():
            assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def nothing_piles_up(self) -> None:
        if hasattr(self, "inbox"):
            waiting = list(self.inbox._waiting.values())
            assert sum(isinstance(event, Happened) for event in waiting) <= SMALL_INBOX
            for kind in (ProgressMade, SnapshotArrived, ResultArrived, WatchRefused):
                assert sum(isinstance(event, kind) for event in waiting) <= len(JOBS)

    def teardown(self) -> None:
        """When links hold and everybody does his work, all that was announced arrives."""
        if not hasattr(self, "inbox"):
            return
        if self.instance is None:
            self.connect(another=True)
        watched = [job for job in JOBS if job in self.stored and job in self.conversation._jobs]
        for job in watched:
            self.stored[job].append(Finished(1, 1.0, 4, 1))
            if job in self.watching:
                self.say(self.event(job, len(self.stored[job])))
        for _ in range(40):
            self.send(2.0)
            self.pong()
            self.deliver(100, lost=False)
            self.poll(100)
            for job in list(self.held):
                self.applied(job)
        self.events_come_once_and_in_order()
        for job in watched:
            assert len(self.numbers[job]) == len(self.stored[job])
            assert (job in self.results) == (self.conversation._jobs[job].follow is not None) or job in self.results
        assert set(self.answers.values()) <= {1}, "each request one answer"
        assert all(len(told) == 1 for told in self.submitted.values())
        self.patch.undo()


def test_what_is_replaced_goes_to_the_end() -> None:
    """So that the progress which a consumer sees after an event is not older than the event."""
    inbox = Inbox()
    progress = [ProgressMade(Progress(JOBS[0], "running", "", step, 9, 0, None, 0.0, 0.0)) for step in range(2)]
    happened = Happened(JobEvent(JOBS[0], 1, 0.0, Queued()))
    for event in (progress[0], happened, progress[1]):
        assert inbox.put(event)
    assert inbox.take(1) == [happened] and inbox.take(9) == [progress[1]] and inbox.take(9) == []


@given(data=st.data())
def test_a_service_that_says_anything_that_is_a_message(any_message: Any, data: st.DataObject) -> None:
    """In any order, about any job, as an answer to anything: nothing is raised but WireError for broken meshes."""
    inbox = Inbox()
    conversation = Conversation(inbox, itertools.count(1).__next__, None)
    conversation.submit(conversation.next_number(), JOBS[0], JobRequest("refine", "x"), Attachments(Mesh(POSITIONS, FACES[0])))
    conversation.watch(JOBS[1], 0)
    for job in JOBS:
        conversation.follow(job)
        conversation.command(Fetch(conversation.next_number(), job))
    conversation.connected("0" * 32)
    for message in data.draw(st.lists(any_message(ToClientControl | ToClientBulk), max_size=20)):
        changes = {"job": data.draw(st.sampled_from(JOBS)), "request": data.draw(st.integers(0, 9)), "number": data.draw(st.integers(0, 3))}
        message = replace(message, **{name: value for name, value in changes.items() if hasattr(message, name)})
        list(conversation.due(data.draw(st.sampled_from([0.0, 5.0]))))
        try:
            conversation.take(Received(message, tuple(data.draw(st.lists(st.just(memoryview(bytes(48))), max_size=3)))))
        except WireError:
            assert isinstance(message, Snapshot)
    numbers = [event.event.number for event in inbox.take(1000) if isinstance(event, Happened) and event.event.job == JOBS[1]]
    assert numbers == list(range(1, len(numbers) + 1))


Exchange.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestExchange = Exchange.TestCase
