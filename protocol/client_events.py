"""What a client tells its consumer: plain, immutable values, taken from `Client.poll`.

Events of one job come in order, without gaps or doubles. Of progress and snapshots only the newest is kept, and of
changes of the connection only the last, so that a consumer that looks seldom is never flooded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .mesh_codec import Mesh
from .messages import JobEvent, JobSummary, Progress, Refused, Welcome

ConnectionState = Literal["searching", "connecting", "connected", "refused", "lost"]


@dataclass(frozen=True)
class ConnectionChanged:
    """How the client stands with the service; in every state but "connected" it goes on trying by itself.

    "searching": no service is running. "connecting": one was found. "refused": it (or what answers in its place) cannot
    be talked to as things are: wrong token, another version, something that is not Galatea. "lost": the connection was
    there and broke off. `message` is one or two sentences for a person that say what to do.
    """

    state: ConnectionState
    message: str
    welcome: Welcome | None = None
    """When connected."""


@dataclass(frozen=True)
class Replied:
    """The answer to a steer, pause, resume, cancel, list_jobs or shutdown: done if `refused` is None.

    `request` is the number that the command returned; None for something that the service refused without a number.
    """

    request: int | None
    refused: Refused | None


@dataclass(frozen=True)
class Submitted:
    """The job is on the service's disk if `refused` is None; else it does not exist."""

    job: str
    refused: Refused | None


@dataclass(frozen=True)
class WatchRefused:
    """The service does not let the job be watched, mostly because it does not know it (any more); it is watched no longer."""

    job: str
    refused: Refused


@dataclass(frozen=True)
class Happened:
    """The next event of a watched job."""

    event: JobEvent


@dataclass(frozen=True)
class ProgressMade:
    """Newest wins."""

    progress: Progress


@dataclass(frozen=True)
class SnapshotArrived:
    """The object of a followed job as it is now; call `Client.applied` when done with it, and the next one comes.

    `mesh` is complete: `mesh.faces` is always there (the same read-only array again as long as the topology stays, which
    costs nothing). `faces_are_new` says whether they differ from those of the last snapshot of this job that was handed
    out, so a consumer that keeps its faces rebuilds only then; it is True for the first. `topology` 0 is the topology of
    the mesh that was submitted. `prepared` is what the client's `prepare` made of it, None if there is none or it raised
    `failure`.
    """

    job: str
    step: int
    serial: int
    topology: int
    mesh: Mesh
    faces_are_new: bool
    prepared: object = None
    failure: Exception | None = None


@dataclass(frozen=True)
class ResultArrived:
    """The result of a finished job, or why there is none; `mesh.faces` is always there. `prepared` and `failure` as with
    snapshots; what is refused is not prepared."""

    job: str
    mesh: Mesh | None
    refused: Refused | None = None
    prepared: object = None
    failure: Exception | None = None


@dataclass(frozen=True)
class JobsListed:
    """The answer to list_jobs, newest first."""

    request: int
    jobs: tuple[JobSummary, ...]


ClientEvent = (
    ConnectionChanged
    | Replied
    | Submitted
    | WatchRefused
    | Happened
    | ProgressMade
    | SnapshotArrived
    | ResultArrived
    | JobsListed
)
