"""A client of the service that was written from protocol/SPEC.md alone and imports nothing of Galatea.

zmq carries the frames, msgpack the headers, struct the meshes. Numbers in parentheses are sections of that document.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

NOBODY = "0" * 32  # a job id that nobody has drawn
WISH = {"command": "generate", "prompt": "a red mushroom", "seed": 7, "steps": 12}
Map = dict[str, Any]
Rows = list[tuple[Any, ...]]

# What each message and happening from the service holds (7, 8). "?" allows nil, "=" allows leaving it out.
TABLES = """
Welcome protocol:int service:text instance:hex session:hex priors:list recipes:list devices:list; Done request:int
Refused request:int? code:text message:text; JobEvent job:hex number:int time:float happening:map
Jobs request:int jobs:list; Pong request:int instance:hex last_events:map=; Accepted request:int job:hex; Queued
Progress job:hex state:text what:text step:int total:int stage:int seconds_left:float? step_seconds:float \
memory_megabytes:float numbers:map= diagnosis:map?=; Diagnosis step:int loss_shares:map gradient_shares:map \
update_norms:map azimuths:list azimuth_uniformity:float timesteps:list saturation:float janus:float?; Started step:int device:text; Paused step:int; Resumed step:int
Steered step:int prompt:text negative_prompt:text strength:float; Finished step:int seconds:float vertices:int faces:int
Failed code:text message:text resumable:bool; Cancelled step:int resumable:bool; Warned message:text
Snapshot job:hex serial:int step:int topology:int mesh:map; Result request:int job:hex mesh:map
"""
FIELDS = {name: dict(one.split(":") for one in fields) for name, *fields in map(str.split, re.split("[;\n]", TABLES.strip()))}
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

    def parts(self) -> tuple[Map, list[bytes]]:
        """The mesh header and the buffers that it stands for."""
        forms = (("f", self.positions), ("i", self.faces), ("f", self.colors))
        buffers = [b"".join(struct.pack(f"<3{form}", *row) for row in rows) for form, rows in forms if rows]
        return {"vertices": len(self.positions), "faces": len(self.faces), "colors": bool(self.colors)}, buffers

    def volume(self) -> float:
        """Above zero if the faces are counterclockwise seen from outside."""
        corners = ([self.positions[index] for index in face] for face in self.faces)
        return sum(a[i] * (b[i - 2] * c[i - 1] - b[i - 1] * c[i - 2]) for a, b, c in corners for i in range(3)) / 6


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


class Client:
    """Two sockets under one session. Nothing waits without a limit, and all that comes is kept in `heard`."""

    def __init__(self, folder: Path, session: str | None = None, token: str | None = None) -> None:
        path = folder / "connection.json"
        assert os.name != "posix" or [oct(one.stat().st_mode & 0o777) for one in (folder, path)] == ["0o700", "0o600"]
        self.file = file = json.loads(path.read_text())
        assert file["protocol"] == 2, "This client is of another version."
        self.session = session or secrets.token_hex(16)
        self.heard: list[tuple[str, Map]] = []  # by which socket, and what
        self.unproven = ["control", "bulk"]  # sockets that have not reported their handshake
        self.snapshots: list[Map] = []
        self.results: dict[str, Mesh] = {}
        self.faces: dict[tuple[str, int], Rows] = {}  # by job and topology
        self.followed: set[str] = set()  # jobs in which every snapshot is answered by the next grant
        self.requests, self.next_ping = 0, math.inf  # no Ping before Welcome
        self.context, self.poller = zmq.Context(), zmq.Poller()
        self.sockets: dict[str, Any] = {}
        self.monitors: dict[str, Any] = {}
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
        while True:
            assert self.monitors[name].poll(max(0, int(1000 * (limit - time.monotonic())))), f"{name} reports none of {events}"
            event = recv_monitor_message(self.monitors[name])
            if event["event"] in events:
                return event["event"], event["value"]

    def hello(self) -> Map:
        self.tell("control", "Hello", protocol=2, client="a stranger")
        self.next_ping = time.monotonic() + 2
        return self.receive("control", "Welcome")

    def tell(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> None:
        ends = zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED
        while self.unproven:  # nothing is sent before both handshakes
            assert self.monitored(self.unproven.pop(), *ends)[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.sockets[socket].send_multipart([msgpack.packb({"type": type, **fields}), *buffers])

    def ask(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> Map:
        """Send it under a number of its own, and return what answers that number on the same socket."""
        self.requests += 1
        key, start = (socket, self.requests), len(self.heard)
        self.tell(socket, type, *buffers, request=self.requests, **fields)
        return self.wait(lambda: next((m for name, m in self.heard[start:] if (name, m.get("request")) == key), None))

    def refusal(self, socket: str, type: str, *buffers: bytes, **fields: Any) -> str:
        answer = self.ask(socket, type, *buffers, **fields)
        assert answer["type"] == "Refused" and answer["message"], answer
        return answer["code"]

    def receive(self, socket: str, type: str) -> Map:
        """The next message of that type on that socket."""
        start = len(self.heard)
        return self.wait(lambda: next((m for name, m in self.heard[start:] if (name, m["type"]) == (socket, type)), None))

    def wait(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        limit = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < limit, f"Not in {seconds} s. Last came {self.heard[-3:]}"
            if time.monotonic() >= self.next_ping:
                self.tell("control", "Ping", request=2**53)
                self.next_ping = time.monotonic() + 2
            for socket, _ in self.poller.poll(200):
                header, *buffers = socket.recv_multipart()
                message = msgpack.unpackb(header, max_ext_len=0, max_bin_len=0)
                self.heard.append(("control" if socket is self.sockets["control"] else "bulk", message))
                self.take(message, buffers)
        return found

    def take(self, message: Map, buffers: list[bytes]) -> None:
        check(message)
        if message["type"] == "JobEvent":
            check(message["happening"])
        if message["type"] == "Progress" and message.get("diagnosis"):
            check({"type": "Diagnosis", **message["diagnosis"]})
            assert [len(message["diagnosis"][name]) for name in ("azimuths", "timesteps")] == [12, 10]
        if message["type"] == "Result":
            self.results[message["job"]] = read_mesh(message["mesh"], buffers)
        if message["type"] == "Snapshot":
            job, serial, topology = (message[key] for key in ("job", "serial", "topology"))
            mesh = read_mesh(message["mesh"], buffers, self.faces.get((job, topology)))
            assert self.faces.setdefault((job, topology), mesh.faces) == mesh.faces  # equal numbers, equal faces
            self.snapshots.append(message)
            if job in self.followed:
                self.tell("bulk", "Grant", job=job, after=serial, topology=topology)

    def events(self, job: str) -> list[Map]:
        return [m for _, m in self.heard if m["type"] == "JobEvent" and m["job"] == job]

    def happened(self, job: str, type: str) -> Map | None:
        return next((event["happening"] for event in self.events(job) if event["happening"]["type"] == type), None)

    def submit(self, job_request: Map, mesh: Mesh | None = None, job: str | None = None, *more: bytes, **fields: Any) -> str:
        """`more`: the buffers that come after the mesh's."""
        job = job or secrets.token_hex(16)
        header, buffers = mesh.parts() if mesh else (None, [])
        answer = self.ask("bulk", "Submit", *buffers, *more, job=job, job_request=job_request, mesh=header, **fields)
        assert (answer["type"], answer.get("job")) == ("Accepted", job), answer
        return job

    def follow(self, job: str, topology: int) -> Mesh:
        """Watch the job, take every snapshot, fetch the result, and say that all has been dealt with."""
        assert self.ask("control", "Watch", job=job, after=0)["type"] == "Done"
        self.followed.add(job)
        self.tell("bulk", "Grant", job=job, topology=topology)
        self.wait(lambda: self.happened(job, "Finished"), seconds=180)
        assert self.ask("bulk", "Fetch", job=job)["type"] == "Result"
        self.tell("control", "Acknowledge", job=job, number=self.events(job)[-1]["number"])
        assert self.ask("control", "Ping")["type"] == "Pong"  # so the Acknowledge before it has been read
        return self.results[job]
