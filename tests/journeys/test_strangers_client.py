"""A program that knows nothing of Galatea but protocol/SPEC.md talks to the real service.

The client takes its messages, limits and buffers from that document and imports nothing of Galatea: zmq carries the
frames, msgpack the headers, struct the meshes. The tests are what such a program relies on. Numbers in parentheses are
sections of the document.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import stat
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgpack
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "0" * 32  # a job id that nobody has drawn
WISH = {"command": "generate", "prompt": "a red mushroom", "seed": 7, "steps": 12}
T = TypeVar("T")
Map = dict[str, Any]
Rows = list[tuple[Any, ...]]

# What each message and happening from the service holds (7, 8). "?" allows nil, "=" allows leaving it out.
TABLES = """
Welcome protocol:int service:text instance:hex session:hex priors:list recipes:list devices:list
Done request:int
Refused request:int? code:text message:text
JobEvent job:hex number:int time:float happening:map
Jobs request:int jobs:list
Pong request:int instance:hex last_events:map=
Progress job:hex state:text what:text step:int total:int stage:int seconds_left:float? step_seconds:float \
memory_megabytes:float numbers:map=
Queued
Started step:int device:text
Paused step:int
Resumed step:int
Steered step:int prompt:text negative_prompt:text strength:float
Warned message:text
Finished step:int seconds:float vertices:int faces:int
Failed code:text message:text resumable:bool
Cancelled step:int resumable:bool
Accepted request:int job:hex
Snapshot job:hex serial:int step:int topology:int mesh:map
Result request:int job:hex mesh:map
"""
FIELDS = {line.split()[0]: dict(part.split(":") for part in line.split()[1:]) for line in TABLES.strip().splitlines()}
KINDS = {"int": {int}, "float": {int, float}, "bool": {bool}, "text": {str}, "hex": {str}, "list": {list}, "map": {dict}}


def check(message: Map) -> None:
    """Hold a message to its table: these fields, of these types, and no others."""
    table = FIELDS[message["type"]]
    assert {name for name, kind in table.items() if kind[-1] != "="} <= set(message) - {"type"} <= set(table), message
    for name, kind in table.items():
        value, plain = message.get(name), kind.rstrip("?=")
        assert type(value) in KINDS[plain] or (value is None and kind != plain), (name, message)
        assert plain != "hex" or re.fullmatch("[0-9a-f]{32}", value), (name, message)


class Mesh(NamedTuple):
    positions: Rows
    faces: Rows
    colors: Rows

    def header(self) -> Map:
        return {"vertices": len(self.positions), "faces": len(self.faces), "colors": bool(self.colors)}

    def buffers(self) -> list[bytes]:
        return [b"".join(struct.pack("<3i" if rows is self.faces else "<3f", *row) for row in rows) for rows in self if rows]

    def volume(self) -> float:
        """Above zero if the faces are counterclockwise seen from outside."""
        total = 0.0
        for a, b, c in ([self.positions[index] for index in face] for face in self.faces):
            total += a[0] * (b[1] * c[2] - b[2] * c[1])
            total += a[1] * (b[2] * c[0] - b[0] * c[2])
            total += a[2] * (b[0] * c[1] - b[1] * c[0])
        return total / 6


def read_mesh(header: Map, buffers: list[bytes], kept: Rows | None = None) -> Mesh:
    """The mesh in the buffers (9), checked; `kept` are the faces to use where they have been left out."""
    vertices, faces, colored = header["vertices"], header["faces"], header["colors"]
    assert set(header) == {"vertices", "faces", "colors"}
    assert [len(one) for one in buffers] == [12 * rows for rows in (vertices, faces, vertices * colored) if rows]
    rows = [list(struct.iter_unpack("<3i" if faces and n == 1 else "<3f", one)) for n, one in enumerate(buffers)]
    mesh = Mesh(rows[0], rows[1] if faces else kept or [], rows[-1] if colored else [])
    assert mesh.faces, "no faces, and none to go with"
    assert all(abs(x) <= 1000 for row in mesh.positions for x in row)  # which NaN is not
    assert all(len(set(face)) == 3 and 0 <= min(face) and max(face) < vertices for face in mesh.faces)
    assert all(0 <= x <= 1 for row in mesh.colors for x in row)
    return mesh


class Heard(NamedTuple):
    """One message from the service, and the socket it came on."""

    socket: str
    type: str
    fields: Map
    buffers: list[bytes]


class Client:
    """Two sockets under one session. Nothing waits without a limit, and all that comes is kept in `heard`."""

    def __init__(self, file: Map, session: str | None = None, token: str | None = None) -> None:
        self.session = session or secrets.token_hex(16)
        self.heard: list[Heard] = []
        self.snapshots: dict[str, list[tuple[Map, Mesh]]] = defaultdict(list)
        self.faces: dict[tuple[str, int], Rows] = {}  # by job and topology
        self.followed: set[str] = set()  # jobs in which every snapshot is answered by the next grant
        self.requests, self.next_ping = 0, math.inf  # no Ping before Welcome
        self.context, self.poller = zmq.Context(), zmq.Poller()
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.monitors: dict[str, zmq.Socket[bytes]] = {}
        for name, frame, queue in (("control", 65_536, 1000), ("bulk", 67_108_864, 8)):
            socket = self.sockets[name] = self.context.socket(zmq.DEALER)
            socket.linger, socket.reconnect_ivl, socket.handshake_ivl, socket.maxmsgsize = 0, -1, 5000, frame
            socket.sndhwm = socket.rcvhwm = queue
            socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = 2000, 10_000, 10_000
            socket.plain_username, socket.plain_password = self.session.encode(), (token or file["token"]).encode()
            self.monitors[name] = socket.get_monitor_socket()
            self.poller.register(socket, zmq.POLLIN)
            socket.connect(f"tcp://127.0.0.1:{file[f'{name}_port']}")

    def close(self) -> None:
        for name, socket in self.sockets.items():
            socket.disable_monitor()
            self.monitors[name].close()
        self.context.destroy(linger=0)

    def monitored(self, name: str, *events: int) -> tuple[int, int]:
        """The first of these events on that socket, with its value."""
        limit = time.monotonic() + 30
        while self.monitors[name].poll(max(0, int(1000 * (limit - time.monotonic())))):
            event = recv_monitor_message(self.monitors[name])
            if event["event"] in events:
                return event["event"], event["value"]
        raise TimeoutError(f"{name} has not reported any of {events}.")

    def shake_hands(self) -> Client:
        ends = zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED
        assert [self.monitored(name, *ends)[0] for name in self.sockets] == [zmq.EVENT_HANDSHAKE_SUCCEEDED] * 2
        return self

    def hello(self) -> Map:
        self.tell("control", "Hello", protocol=1, client="a stranger")
        welcome = self.receive("control", "Welcome")
        self.next_ping = time.monotonic()
        return welcome

    def tell(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> None:
        self.sockets[socket].send_multipart([msgpack.packb({"type": type, **fields}), *buffers])

    def ask(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> Heard:
        """Send it under a number of its own, and return what answers that number on the same socket."""
        self.requests += 1
        key, start = (socket, self.requests), len(self.heard)
        self.tell(socket, type, *buffers, request=self.requests, **fields)
        return self.wait(lambda: next((m for m in self.heard[start:] if (m.socket, m.fields.get("request")) == key), None))

    def refusal(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> str:
        answer = self.ask(socket, type, *buffers, **fields)
        assert answer.type == "Refused" and answer.fields["message"], answer.fields
        return answer.fields["code"]

    def receive(self, socket: str, type: str) -> Map:
        """The next message of that type on that socket."""
        start = len(self.heard)
        return self.wait(lambda: next((m.fields for m in self.heard[start:] if m[:2] == (socket, type)), None))

    def wait(self, condition: Callable[[], T | None], seconds: float = 120) -> T:
        limit = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < limit, f"Not in {seconds} s. Last came {[m.fields for m in self.heard[-3:]]}"
            if time.monotonic() >= self.next_ping:
                self.tell("control", "Ping", request=2**53)
                self.next_ping = time.monotonic() + 2
            ready = dict(self.poller.poll(200))
            for name, socket in self.sockets.items():
                if socket in ready:
                    header, *buffers = socket.recv_multipart()
                    fields = msgpack.unpackb(header, max_ext_len=0, max_bin_len=0)
                    self.take(Heard(name, fields["type"], fields, buffers))
        return found

    def take(self, message: Heard) -> None:
        self.heard.append(message)
        check(message.fields)
        if message.type == "JobEvent":
            check(message.fields["happening"])
        if message.type == "Snapshot":
            job, serial, topology = (message.fields[key] for key in ("job", "serial", "topology"))
            mesh = read_mesh(message.fields["mesh"], message.buffers, self.faces.get((job, topology)))
            assert self.faces.setdefault((job, topology), mesh.faces) == mesh.faces  # equal numbers, equal faces
            self.snapshots[job].append((message.fields, mesh))
            if job in self.followed:
                self.tell("bulk", "Grant", job=job, after=serial, topology=topology)

    def events(self, job: str) -> list[Map]:
        return [m.fields for m in self.heard if m.type == "JobEvent" and m.fields["job"] == job]

    def happened(self, job: str, type: str) -> Map | None:
        return next((event["happening"] for event in self.events(job) if event["happening"]["type"] == type), None)

    def submit(self, job_request: Map, mesh: Mesh | None = None, job: str | None = None) -> str:
        job = job or secrets.token_hex(16)
        sent = {"mesh": mesh.header()} if mesh else {}
        answer = self.ask("bulk", "Submit", *(mesh.buffers() if mesh else []), job=job, job_request=job_request, **sent)
        assert (answer.type, answer.fields.get("job")) == ("Accepted", job), answer.fields
        return job

    def follow(self, job: str, topology: int) -> Mesh:
        """Watch the job, take every snapshot, fetch the result, and say that all has been dealt with."""
        assert self.ask("control", "Watch", job=job, after=0).type == "Done"
        self.followed.add(job)
        self.tell("bulk", "Grant", job=job, topology=topology)
        self.wait(lambda: self.happened(job, "Finished"), seconds=180)
        result = self.ask("bulk", "Fetch", job=job)
        assert (result.type, result.fields["job"]) == ("Result", job)
        self.tell("control", "Acknowledge", job=job, number=self.events(job)[-1]["number"])
        assert self.ask("control", "Ping").type == "Pong"  # so the Acknowledge before it has been read
        return read_mesh(result.fields["mesh"], result.buffers)


class Service(NamedTuple):
    process: subprocess.Popen[bytes]
    folder: Path
    file: Map


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service in a folder of its own, from its connection file on until it has ended."""
    folder = tmp_path_factory.mktemp("stranger") / "service"
    log, path = folder.with_suffix(".log"), folder / "connection.json"
    command = [sys.executable, "-P", "-m", "backend.cli", "serve", "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        limit = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None and time.monotonic() < limit, log.read_text()
            time.sleep(0.05)
        yield Service(process, folder, json.loads(path.read_text()))
    finally:
        try:
            process.terminate()
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[..., Client]]:
    """Makes clients that have sent nothing yet, and closes them after the test."""
    clients: list[Client] = []
    yield lambda **how: clients.append(Client(service.file, **how)) or clients[-1]
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    """A client that has been welcomed."""
    client = connect().shake_hands()
    client.hello()
    return client


class Story(NamedTuple):
    """What came of a job that was followed to its end."""

    job: str
    events: list[Map]
    snapshots: list[tuple[Map, Mesh]]
    result: Mesh


@pytest.fixture(scope="module")
def mushroom(service: Service) -> Story:
    """A mushroom made in a few steps. Nothing was submitted that topology 0 could name, so all faces have to come."""
    client = Client(service.file).shake_hands()
    try:
        client.hello()
        job = client.submit(WISH)
        result = client.follow(job, topology=0)
        return Story(job, client.events(job), client.snapshots[job], result)
    finally:
        client.close()


def ball() -> Mesh:
    """An octahedron, each face split into four three times, blown up to a ball of radius 0.5."""
    points: Rows = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    faces: Rows = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    middles: dict[frozenset[int], int] = {}

    def middle(a: int, b: int) -> int:
        if frozenset((a, b)) not in middles:
            between = [x + y for x, y in zip(points[a], points[b], strict=True)]
            middles[frozenset((a, b))] = len(points)
            points.append(tuple(x / math.hypot(*between) for x in between))
        return middles[frozenset((a, b))]

    for _ in range(3):
        split = [(a, b, c, middle(a, b), middle(b, c), middle(c, a)) for a, b, c in faces]
        faces = [face for a, b, c, ab, bc, ca in split for face in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return Mesh([(x / 2, y / 2, z / 2) for x, y, z in points], faces, [(0.8, 0.2, 0.2)] * len(points))


def test_connection_file_tells_the_user_alone_where_to_connect(service: Service) -> None:
    """The fields of section 1, in a file and a folder that only their owner can read."""
    file = service.file
    assert file["protocol"] == 1 and file["pid"] >= 1 and file["service"]
    assert re.fullmatch("[0-9a-f]{64}", file["token"]) and re.fullmatch("[0-9a-f]{32}", file["instance"])
    assert stat.S_IMODE(service.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((service.folder / "connection.json").stat().st_mode) == 0o600


def test_hello_is_answered_by_welcome(service: Service, connect: Callable[..., Client]) -> None:
    """Welcome says which service it is and which session the handshake proved (3, 7)."""
    client = connect().shake_hands()
    welcome = client.hello()
    assert all(welcome[key] == service.file[key] for key in ("protocol", "service", "instance"))
    assert welcome["session"] == client.session
    assert "toybox" in welcome["priors"] and {"generate", "refine"} <= set(welcome["recipes"]) and welcome["devices"]


def test_a_wrong_token_is_turned_away(connect: Callable[..., Client]) -> None:
    """Neither socket gets through its handshake (3)."""
    client, ends = connect(token="0" * 64), (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert [client.monitored(name, *ends) for name in client.sockets] == [(zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)] * 2


def test_another_protocol_version_is_refused(connect: Callable[..., Client]) -> None:
    """Without a number, and with a sentence for a person (6, 14)."""
    client = connect().shake_hands()
    client.tell("control", "Hello", protocol=2, client="a stranger from later")
    refused = client.receive("control", "Refused")
    assert (refused["code"], refused["request"]) == ("version", None) and refused["message"]


def test_everything_before_hello_is_refused(connect: Callable[..., Client]) -> None:
    """On both sockets; the connection stays, and Hello is still welcome (5)."""
    client = connect().shake_hands()
    assert client.refusal("control", "Ping") == "invalid"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "invalid"
    assert client.hello()["session"] == client.session


def test_an_unknown_job_is_refused(client: Client) -> None:
    """Under the number of the request; without one for Grant, which has none (4, 8)."""
    for type in ("Watch", "Steer", "Pause", "Resume", "Cancel"):
        assert client.refusal("control", type, job=NOBODY) == "unknown_job"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "unknown_job"
    client.tell("bulk", "Grant", job=NOBODY)
    refused = client.receive("bulk", "Refused")
    assert (refused["code"], refused["request"]) == ("unknown_job", None)


@pytest.mark.parametrize(
    ("number", "header"),
    [
        pytest.param(None, b"\xc1", id="not msgpack"),
        pytest.param(None, ["Ping", 5], id="not a map"),
        pytest.param(None, {"type": "Ping"}, id="no number"),
        pytest.param(5, {"request": 5}, id="no type"),
        pytest.param(5, {"type": "Dance", "request": 5}, id="unknown type"),
        pytest.param(5, {"type": "Done", "request": 5}, id="a message of the service"),
        pytest.param(5, {"type": "Fetch", "request": 5, "job": NOBODY}, id="a message for the other socket"),
        pytest.param(5, {"type": "Watch", "request": 5}, id="missing field"),
        pytest.param(5, {"type": "Ping", "request": 5, "more": 1}, id="unknown field"),
        pytest.param(5, {"type": "ListJobs", "request": 5, "limit": 2.0}, id="float for int"),
        pytest.param(5, {"type": "ListJobs", "request": 5, "limit": 101}, id="out of bounds"),
        pytest.param(5, {"type": "Watch", "request": 5, "job": "A" * 32}, id="uppercase hex"),
        pytest.param(5, {"type": "Steer", "request": 5, "job": NOBODY, "strength": math.nan}, id="NaN"),
    ],
)
def test_a_malformed_message_is_refused_and_does_nothing_else(client: Client, number: int | None, header: Any) -> None:
    """By one Refused, under the number that the message shows; the connection stays (5)."""
    client.sockets["control"].send(header if isinstance(header, bytes) else msgpack.packb(header))
    refused = client.receive("control", "Refused")
    assert (refused["code"], refused["request"]) == ("invalid", number)
    assert client.ask("control", "Ping").type == "Pong"
    assert [message.type for message in client.heard].count("Refused") == 1


def test_an_oversized_header_is_refused(client: Client) -> None:
    """More than 65,536 bytes are too large, whatever they say; the connection stays (4)."""
    client.sockets["bulk"].send(b"x" * 65_537)
    assert client.receive("bulk", "Refused")["code"] == "too_large"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "unknown_job"


def test_an_oversized_frame_on_control_ends_the_connection(client: Client, connect: Callable[..., Client]) -> None:
    """There ZeroMQ itself drops a peer that goes beyond MAXMSGSIZE (2); the session may come again."""
    client.sockets["control"].send(b"x" * 65_537)
    client.monitored("control", zmq.EVENT_DISCONNECTED)
    assert connect(session=client.session).shake_hands().hello()["session"] == client.session


@pytest.mark.parametrize(
    ("buffer", "start"),
    [
        pytest.param(0, struct.pack("<f", math.nan), id="NaN"),
        pytest.param(0, struct.pack("<f", 1001), id="too far out"),
        pytest.param(1, struct.pack("<i", 258), id="index beyond the last vertex"),
        pytest.param(1, struct.pack("<i", -1), id="negative index"),
        pytest.param(2, struct.pack("<f", 1.5), id="color above 1"),
        pytest.param(2, b"", id="buffer too short"),
    ],
)
def test_a_broken_mesh_is_refused_and_makes_no_job(client: Client, buffer: int, start: bytes) -> None:
    """The bounds of section 9 hold for what is submitted, too."""
    mesh, job, buffers = ball(), secrets.token_hex(16), ball().buffers()
    buffers[buffer] = start + buffers[buffer][4:]
    wish = {**WISH, "command": "refine"}
    assert client.refusal("bulk", "Submit", *buffers, job=job, job_request=wish, mesh=mesh.header()) == "invalid"
    assert client.refusal("control", "Watch", job=job) == "unknown_job"


def test_events_are_numbered_from_1_without_gaps(mushroom: Story) -> None:
    """From Queued to Finished, each once (10)."""
    happenings = [event["happening"] for event in mushroom.events]
    assert [event["number"] for event in mushroom.events] == list(range(1, len(mushroom.events) + 1))
    assert [one["type"] for one in happenings if one["type"] != "Warned"] == ["Queued", "Started", "Finished"]
    assert happenings[-1]["step"] == WISH["steps"]


def test_snapshots_show_the_object_while_it_is_made(mushroom: Story) -> None:
    """Their buffers were checked on arrival; this is how one follows the other (8, 11)."""
    headers = [header for header, _ in mushroom.snapshots]
    assert headers, "credit was granted, and no snapshot came"
    assert all(1 <= header["step"] <= 12 and header["topology"] > 0 and header["mesh"]["colors"] for header in headers)
    topology = serial = 0
    for header in headers:
        assert (header["mesh"]["faces"] == 0) == (header["topology"] == topology)  # faces come with each new topology
        assert header["serial"] > serial
        topology, serial = header["topology"], header["serial"]


def test_the_result_is_a_mesh_that_looks_outward(mushroom: Story) -> None:
    """As large as Finished says, inside the unit sphere, counterclockwise seen from outside (9)."""
    result, finished = mushroom.result, mushroom.events[-1]["happening"]
    assert (len(result.positions), len(result.faces)) == (finished["vertices"], finished["faces"])
    assert max(math.hypot(*position) for position in result.positions) <= 1 and result.volume() > 0


def test_the_same_submission_again_makes_no_second_job(client: Client, mushroom: Story) -> None:
    """It is accepted again; another one under the same id, or a change of what has finished, is a conflict (6, 8)."""
    before = client.ask("control", "ListJobs").fields["jobs"]
    assert client.submit(WISH, job=mushroom.job) == mushroom.job
    other = {**WISH, "prompt": "a red mug"}
    assert client.refusal("bulk", "Submit", job=mushroom.job, job_request=other) == "conflict"
    for type in ("Steer", "Pause", "Resume", "Cancel"):
        assert client.refusal("control", type, job=mushroom.job) == "conflict"
    jobs = client.ask("control", "ListJobs").fields["jobs"]
    summary = [(one["state"], one["step"], one["last_event"]) for one in jobs if one["job"] == mushroom.job]
    assert jobs == before and summary == [("finished", 12, len(mushroom.events))]


def test_another_session_gets_the_same_events_again(client: Client, mushroom: Story) -> None:
    """Jobs belong to the service: a newcomer may watch one from its beginning (6, 12)."""
    assert client.ask("control", "Watch", job=mushroom.job, after=0).type == "Done"
    client.wait(lambda: len(client.events(mushroom.job)) >= len(mushroom.events))
    assert client.events(mushroom.job) == mushroom.events
    assert client.ask("control", "Ping").fields["last_events"] == {mushroom.job: len(mushroom.events)}
    client.tell("control", "Unwatch", job=mushroom.job)
    assert client.ask("control", "Ping").fields["last_events"] == {}


def test_watching_from_the_last_event_sends_nothing_old(client: Client, mushroom: Story) -> None:
    """`after` alone says what is sent (6)."""
    last = len(mushroom.events)
    client.tell("control", "Acknowledge", job=mushroom.job, number=last)
    assert client.ask("control", "Watch", job=mushroom.job, after=last).type == "Done"
    quiet = time.monotonic() + 0.7
    client.wait(lambda: time.monotonic() > quiet)
    assert client.ask("control", "Ping").fields["last_events"] == {mushroom.job: last}
    assert client.events(mushroom.job) == []
    assert client.ask("control", "Watch", job=mushroom.job, after=last - 1).type == "Done"
    assert client.wait(lambda: client.events(mushroom.job)) == mushroom.events[-1:]


def test_pause_steer_resume_and_cancel(client: Client) -> None:
    """Each is Done and is an event once, and Done again where there is nothing left to do (6, 10)."""
    job = client.submit({**WISH, "steps": 300})

    def done(type: str, happening: str, **fields: Any) -> Map:
        assert client.ask("control", type, job=job, **fields).type == "Done"
        return client.wait(lambda: client.happened(job, happening))

    def progress() -> list[Map]:
        return [message.fields for message in client.heard if message.type == "Progress"]

    assert done("Watch", "Started", after=0)["step"] == 0
    assert client.refusal("bulk", "Fetch", job=job) == "conflict"
    paused = done("Pause", "Paused")["step"]
    done("Pause", "Paused")
    steered = done("Steer", "Steered", prompt="a blue mushroom", strength=0.7)
    assert [steered[key] for key in ("prompt", "negative_prompt", "strength")] == ["a blue mushroom", "", 0.7]
    assert all(one["step"] <= paused for one in progress())
    assert done("Resume", "Resumed")["step"] == paused
    done("Resume", "Resumed")
    client.wait(lambda: any(one["step"] > paused and one["state"] == "running" for one in progress()))
    cancelled = done("Cancel", "Cancelled")
    assert cancelled["step"] > paused and cancelled["resumable"]
    done("Cancel", "Cancelled")
    assert client.refusal("control", "Pause", job=job) == "conflict"
    newest = client.ask("control", "ListJobs", limit=1).fields["jobs"][0]
    assert [newest[key] for key in ("job", "state", "prompt", "total")] == [job, "cancelled", "a blue mushroom", 300]
    expected = ["Queued", "Started", "Paused", "Steered", "Resumed", "Cancelled"]
    assert [(one["number"], one["happening"]["type"]) for one in client.events(job)] == list(enumerate(expected, 1))


def test_refining_keeps_the_vertices_and_faces_that_were_sent(client: Client) -> None:
    """Granted with topology 0, snapshots come without the faces that the client has anyway (8, 11)."""
    mesh = ball()
    job = client.submit({**WISH, "command": "refine", "steps": 5}, mesh)
    client.faces[job, 0] = mesh.faces
    result = client.follow(job, topology=0)
    assert result.faces == mesh.faces and len(result.positions) == len(mesh.positions) and result.colors
    assert client.snapshots[job]
    for header, _ in client.snapshots[job]:
        assert header["topology"] == 0 and header["mesh"] == {"vertices": 258, "faces": 0, "colors": True}
    assert 0 < max(map(math.dist, mesh.positions, result.positions)) < 0.25 and result.volume() > 0


def test_a_client_that_has_no_faces_gets_those_it_submitted(client: Client) -> None:
    """Granted with topology -1, the first snapshot comes with the faces that 0 names (8)."""
    mesh = ball()
    job = client.submit({**WISH, "command": "refine", "steps": 2}, mesh)
    client.tell("bulk", "Grant", job=job, topology=-1)
    header, snapshot = client.wait(lambda: client.snapshots[job])[0]
    assert header["topology"] == 0 and header["mesh"]["faces"] == 512 and snapshot.faces == mesh.faces


def test_shutdown_ends_the_service_and_takes_its_file_away(service: Service, client: Client) -> None:
    """Done comes last; then nobody listens, and a client that looks for the file finds none (1, 6)."""
    assert client.ask("control", "Shutdown").type == "Done"
    client.monitored("control", zmq.EVENT_DISCONNECTED)
    assert service.process.wait(timeout=30) == 0
    assert not (service.folder / "connection.json").exists()
