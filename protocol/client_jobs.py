"""What a client knows of each job it watches: how far its events have come, and where its credit and topology stand.

Pure bookkeeping, without sockets or clocks of its own; the client's thread asks it what is due and tells it what came.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .client_events import SnapshotArrived
from .mesh_codec import read_mesh
from .messages import EventNumber, Finished, Grant, JobEvent, Snapshot

REWATCH_SECONDS = 1.0
"""At most one Watch a second for a job, however many gaps there are."""


@dataclass(frozen=True)
class Topology:
    """Faces that both sides know by a number."""

    number: int
    faces: np.ndarray
    vertices: int


class WatchedJob:
    """The events of one job, in order: what is next, what is missing, and when to ask for it again."""

    def __init__(self, job: str, after: EventNumber) -> None:
        self.job = job
        self.last_event = after
        self.watch_request: int | None = None
        """The Watch that was sent on this link and holds; None if one is wanted."""
        self.watch_not_before = 0.0
        self.confirmed = False
        """On this link the service has shown that it knows the job, so credit for it has a place."""
        self.acknowledged = self.acknowledgement_sent = 0
        self.stalled = False
        """The consumer does not keep up: events are let go by, and asked for again once it has."""
        self.result_wanted = False
        """The job has finished, and its result was not asked for."""
        self.start: Topology | None = None
        """Of the mesh that this client submitted."""
        self.follow: Following | None = None
        self._moved_since_pong = False

    def start_at(self, after: EventNumber) -> None:
        """Hand on the events after `after`, again or for the first time."""
        self.last_event = after
        self.stalled = False
        self.watch_again()

    def handed_on(self, event: JobEvent) -> None:
        self.last_event = event.number
        self._moved_since_pong = True
        if isinstance(event.happening, Finished):
            self.result_wanted = True

    def check_last(self, number: EventNumber) -> None:
        """The service's newest event: if it is further on and nothing moves, an event was lost on the way."""
        if number > self.last_event and not self._moved_since_pong:
            self.watch_again()
        self._moved_since_pong = False

    def watch_again(self) -> None:
        self.watch_request = None

    def go_on(self) -> None:
        """The consumer has caught up."""
        if self.stalled:
            self.stalled = False
            self.watch_again()

    def wants_watch(self) -> bool:
        return self.watch_request is None and not self.stalled

    def watch_due(self, now: float) -> bool:
        return self.wants_watch() and now >= self.watch_not_before

    def watch_sent(self, request: int, now: float) -> None:
        self.watch_request = request
        self.watch_not_before = now + REWATCH_SECONDS

    def new_link(self, *, same_instance: bool) -> None:
        """All that the service knew of this client is gone."""
        self.watch_request = None
        self.watch_not_before = 0.0
        self.confirmed = False
        self.acknowledgement_sent = 0
        if self.follow is not None:
            self.follow.new_link(self.start, same_instance=same_instance)

    def start_following(self) -> None:
        """Also where it is followed already: then the object as it is now comes again, with its faces marked as new."""
        self.follow = Following(self.job, self.follow.known if self.follow is not None else self.start)


class Following:
    """Credit for one job's snapshots. There is never more than one snapshot on its way or in the consumer's hands."""

    def __init__(self, job: str, known: Topology | None) -> None:
        self.job = job
        self.known = known
        self.credit: Literal["due", "granted", "held"] = "due"
        self._serial = 0
        self._handed_out: np.ndarray | None = None

    def grant(self) -> Grant:
        """The grant to send now."""
        self.credit = "granted"
        return Grant(job=self.job, after=self._serial, topology=-1 if self.known is None else self.known.number)

    def take(self, snapshot: Snapshot, buffers: tuple[memoryview, ...]) -> SnapshotArrived | None:
        """The snapshot for the consumer; None if nobody waits for it. Raises WireError for a broken mesh.

        One that refers to a topology which is not known any more answers an older grant: that of a newer one will come.
        """
        if self.credit != "granted" or snapshot.serial <= self._serial:
            return None
        if snapshot.mesh.faces == 0:
            if self.known is None or self.known.number != snapshot.topology:
                return None
            mesh = dataclasses.replace(read_mesh(snapshot.mesh, buffers, self.known.vertices), faces=self.known.faces)
        else:
            mesh = read_mesh(snapshot.mesh, buffers)
            if self._handed_out is not None and np.array_equal(mesh.faces, self._handed_out):
                mesh = dataclasses.replace(mesh, faces=self._handed_out)  # as after a restart of the service
        self.known = Topology(snapshot.topology, mesh.faces, len(mesh.positions))
        self._serial = snapshot.serial
        self.credit = "held"
        faces_are_new = mesh.faces is not self._handed_out
        self._handed_out = mesh.faces
        return SnapshotArrived(self.job, snapshot.step, snapshot.serial, snapshot.topology, mesh, faces_are_new)

    def applied(self) -> None:
        if self.credit == "held":
            self.credit = "due"

    def new_link(self, start: Topology | None, *, same_instance: bool) -> None:
        if self.credit == "granted":
            self.credit = "due"
        if not same_instance:
            self._serial = 0
            if self.known is not None and self.known.number != 0:  # 0 is the start mesh's in every instance
                self.known = start
