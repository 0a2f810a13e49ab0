"""Every message of the wire, one struct each; SPEC.md tells how they travel.

A message is a msgpack map with its struct's tag under "type". Unknown keys, missing keys and values out of bounds are
errors: both sides hold the same version (`PROTOCOL`), or part at once with a sentence that says so. Positions are in the
space that jobs work in: right-handed, y up, the object's front toward +z, inside the unit sphere (a job may grow it out a
little).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .losses import ReferenceSettings, RegionSettings
from .settings import Fraction

PROTOCOL = 2

HexId = Annotated[str, Meta(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}\Z")]
"""128 random bits, as jobs, sessions and service instances are named."""
Request = Annotated[int, Meta(ge=0, le=2**53)]
"""A number that a client chooses for what it asks; the answer carries it back."""
EventNumber = Annotated[int, Meta(ge=0, le=2**53)]
Serial = Annotated[int, Meta(ge=0, le=2**53)]
Sentence = Annotated[str, Meta(max_length=4000)]
Words = Annotated[str, Meta(max_length=1000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Steps = Annotated[int, Meta(ge=1, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=2**53)]

MAX_VERTICES = 2_000_000
MAX_FACES = 4_000_000
MIN_SIDE, MAX_SIDE = 16, 2048
"""Of a picture, in pixels."""
MAX_PICTURES = 4
MAX_REGIONS = 8

JobState = Literal["queued", "running", "paused", "finished", "failed", "cancelled"]
ErrorCode = Literal[
    "version",  # the other side speaks another protocol version
    "invalid",  # not a message; a value, a text, a list or a mesh out of bounds; something said before Hello
    "too_large",  # a header beyond the limit, or more buffers than any message has
    "unknown_job",  # there is no job of that id
    "conflict",  # that cannot be done to the job as it stands, or there is no room for more
    "input",  # the prompt, the mesh or the settings cannot be used
    "disk",  # the service's disk is full or cannot be written
    "worker",  # the process that worked on the job died
    "internal",  # a defect of the service; its log says more
]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all that travels; the tag is the struct's name."""


# ---- control, client to service


class Hello(Message):
    """First on the control socket. Everything else before it is refused."""

    protocol: Annotated[int, Meta(ge=0, le=1_000_000)]
    client: Name
    """What speaks, for the service's log: "Galatea 0.1.0 in Blender 4.5.1"."""


class Watch(Message):
    """Send me the job's events after `after`, then all that come, and its progress."""

    request: Request
    job: HexId
    after: EventNumber = 0


class Unwatch(Message):
    job: HexId


class Acknowledge(Message):
    """I have dealt with the job's events up to `number`. When its last one was, a job that has ended may be removed later."""

    job: HexId
    number: EventNumber


class Steer(Message):
    """Change what a job works toward. What is None stays. Words are checked where a worker holds the job."""

    request: Request
    job: HexId
    prompt: Words | None = None
    negative_prompt: Words | None = None
    strength: Fraction | None = None


class Pause(Message):
    request: Request
    job: HexId


class Resume(Message):
    """Go on with a paused job (Resumed, or Queued where no worker holds it); take a failed or cancelled one up again from its
    checkpoint (Queued)."""

    request: Request
    job: HexId


class Cancel(Message):
    request: Request
    job: HexId


class ListJobs(Message):
    """The newest `limit` jobs, newest first."""

    request: Request
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class Ping(Message):
    """Every two seconds; a client that the service has not heard of for 30 s is forgotten (its jobs go on)."""

    request: Request


class Shutdown(Message):
    """Save the running job's checkpoint and end the service. Its jobs go on when it is started again."""

    request: Request


# ---- control, service to client


class Welcome(Message):
    protocol: Annotated[int, Meta(ge=0, le=1_000_000)]
    service: Name
    """Its version."""
    instance: HexId
    """Drawn anew at every start of the service: serials and topologies of another instance mean nothing."""
    session: HexId
    """The session id that the handshake authenticated, for a check."""
    priors: Annotated[tuple[Name, ...], Meta(max_length=100)]
    recipes: Annotated[tuple[Name, ...], Meta(max_length=100)]
    devices: Annotated[tuple[Name, ...], Meta(max_length=64)]
    """What it computes on; until the worker is ready, what it was told to ("auto")."""


class Done(Message):
    """What `request` asked for has been done, and is on disk where it must outlive the service."""

    request: Request


class Refused(Message):
    """What `request` asked for was not done; None if the message was so broken that it showed no request."""

    request: Request | None
    code: ErrorCode
    message: Sentence
    """One or two sentences for a person: what was given, what was expected, what to do."""


class JobSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job: HexId
    state: JobState
    command: Literal["generate", "refine"]
    prompt: Words
    step: Count
    total: Count
    created: Annotated[float, Meta(ge=0)]
    """Seconds since 1970, UTC."""
    last_event: EventNumber


class Jobs(Message):
    """As many of the newest as were asked for and fit one header; prompts are whole."""

    request: Request
    jobs: Annotated[tuple[JobSummary, ...], Meta(max_length=100)]


class Pong(Message):
    """Answers Ping; `last_events` of the watched jobs shows a client whether it has missed one, and then it watches again."""

    request: Request
    instance: HexId
    last_events: dict[HexId, EventNumber] = {}


class Diagnosis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job tells about itself beside its numbers; shares add up to 1, histograms are counts over the job so far."""

    step: Count
    """When it was taken."""
    loss_shares: Annotated[dict[Name, Fraction], Meta(max_length=64)]
    """Of each loss in the sum of their absolute values."""
    gradient_shares: Annotated[dict[Name, Fraction], Meta(max_length=64)]
    """Of each loss in the sum of the norms of their gradients on what is optimized."""
    update_norms: Annotated[dict[Name, float], Meta(max_length=16)]
    """Root mean square of the last update of each parameter group."""
    azimuths: Annotated[tuple[Count, ...], Meta(min_length=12, max_length=12)]
    """Views by slices of 30 degrees, the first from 0 to 30."""
    azimuth_uniformity: Fraction
    """p-value of a chi-squared test that they are uniform."""
    timesteps: Annotated[tuple[Count, ...], Meta(min_length=10, max_length=10)]
    """By tenths of the schedule."""
    saturation: Fraction
    """Share of the object's pixels with a color channel at its limit."""
    janus: Fraction | None
    """Share of views whose azimuth is read wrong by more than 45 degrees; None where nothing can read it."""


class Progress(Message):
    """Newest wins: sent to watchers a few times a second, never stored, dropped for a client that does not keep up."""

    job: HexId
    state: JobState
    what: Sentence
    """What is going on, as a phrase: "loading the prior", "optimizing the mesh"."""
    step: Count
    total: Count
    stage: Count
    """Index of the stage, from 0."""
    seconds_left: Annotated[float, Meta(ge=0)] | None
    step_seconds: Annotated[float, Meta(ge=0)]
    memory_megabytes: Annotated[float, Meta(ge=0)]
    numbers: Annotated[dict[Name, float], Meta(max_length=64)] = {}
    diagnosis: Diagnosis | None = None


# ---- what has happened to a job: numbered from 1, stored, sent again on demand


class Queued(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Started(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A worker took the job up, at `step`: not 0 if it went on from a checkpoint."""

    step: Count
    device: Name


class Paused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    step: Count


class Resumed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    step: Count


class Steered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """After `step`, the steps done, the job works with these values, complete."""

    step: Count
    prompt: Words
    negative_prompt: Words
    strength: Fraction


class Warned(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    message: Sentence


class Finished(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The result is on the service's disk: fetch it."""

    step: Count
    seconds: Annotated[float, Meta(ge=0)]
    vertices: Count
    faces: Count


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    code: ErrorCode
    message: Sentence
    resumable: bool
    """Whether Resume has a checkpoint to go on from."""


class Cancelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    step: Count
    resumable: bool


Happening = Queued | Started | Paused | Resumed | Steered | Warned | Finished | Failed | Cancelled


class JobEvent(Message):
    """One happening of a job; `number` counts from 1 without gaps for each job."""

    job: HexId
    number: EventNumber
    time: Annotated[float, Meta(ge=0)]
    happening: Happening


# ---- bulk


class MeshHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which frames follow the header, in this order, little-endian, C order:

    positions [vertices, 3] float32; faces [faces, 3] int32 unless `faces` is 0; colors [vertices, 3] float32 in
    [0, 1] if `colors`. `faces` 0 means: the topology that the receiver already has.
    """

    vertices: Annotated[int, Meta(ge=3, le=MAX_VERTICES)]
    faces: Annotated[int, Meta(ge=0, le=MAX_FACES)]
    colors: bool


class PictureHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reference picture's frames, in this order: pixels [height, width, 4] u8, straight RGBA, row 0 on top; depth
    [height, width] float32 if `depth`, larger is farther, NaN unknown; normals [height, width, 3] float32 if `normals`, in
    camera axes (right, up, toward the camera)."""

    width: Annotated[int, Meta(ge=MIN_SIDE, le=MAX_SIDE)]
    height: Annotated[int, Meta(ge=MIN_SIDE, le=MAX_SIDE)]
    depth: bool = False
    normals: bool = False


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to make. A recipe turns it into the full settings tree (settings.py) on the service's side."""

    command: Literal["generate", "refine"]
    prompt: Words
    """May be empty only with a reference picture."""
    negative_prompt: Words = ""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    steps: Steps | None = None
    """Over all stages; None takes the recipe's."""
    strength: Fraction = 0.5
    """How far a mesh may change: 0 returns it bit for bit, up to 0.2 only its colors change, 1 is free."""
    recipe: Name | None = None
    """One of Welcome's; None takes the recipe that is named like the command."""
    prior: Name = "toybox"
    """One of Welcome's."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    references: Annotated[tuple[ReferenceSettings, ...], Meta(max_length=MAX_PICTURES)] = ()
    regions: Annotated[tuple[RegionSettings, ...], Meta(max_length=MAX_REGIONS)] = ()


class Submit(Message):
    """Client to service, with the frames of the mesh for refine, then those of each picture, then one mask [vertices] float32
    in [0, 1] for each region: 0 keeps a vertex's bits, 1 frees it, between is a soft border.

    The client draws the job's id, so that sending the same submission again (after a lost connection) makes no second job;
    another one under the same id is refused."""

    request: Request
    job: HexId
    job_request: JobRequest
    mesh: MeshHeader | None = None
    pictures: Annotated[tuple[PictureHeader, ...], Meta(max_length=MAX_PICTURES)] = ()
    """One for each of the request's references."""


class Accepted(Message):
    """The job is on the service's disk."""

    request: Request
    job: HexId


class Grant(Message):
    """Client to service: credit for one snapshot of the job newer than `after` (0: any). A later grant for the same job
    replaces an earlier one. If `topology` is the snapshot's, its faces are left out; -1: I have none."""

    job: HexId
    after: Serial = 0
    topology: Annotated[int, Meta(ge=-1, le=2**53)] = -1


class Snapshot(Message):
    """Service to client: the object as it is now, spending the credit. Within an instance, the same topology number means the
    same faces; 0 is the topology of the mesh that was submitted, in every instance."""

    job: HexId
    serial: Serial
    step: Count
    topology: Annotated[int, Meta(ge=0, le=2**53)]
    mesh: MeshHeader


class Fetch(Message):
    """Client to service: send me the result of a finished job."""

    request: Request
    job: HexId


class Result(Message):
    request: Request
    job: HexId
    mesh: MeshHeader


ToServiceControl = Hello | Watch | Unwatch | Acknowledge | Steer | Pause | Resume | Cancel | ListJobs | Ping | Shutdown
ToClientControl = Welcome | Done | Refused | JobEvent | Jobs | Pong | Progress
ToServiceBulk = Submit | Grant | Fetch
ToClientBulk = Accepted | Refused | Snapshot | Result
