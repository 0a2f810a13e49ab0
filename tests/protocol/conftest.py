"""A small service for the client's tests: real sockets, PLAIN and ZAP, jobs that happen when a test says so.

It speaks the wire through msgpack and plain maps alone, as SPEC.md has it, so that a fault in the codec cannot hide
itself here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgpack
import msgspec
import msgspec.inspect as inspect
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from protocol.client import Client
from protocol.client_events import ClientEvent, ConnectionChanged

# A busy machine is no fault of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

Map = dict[str, Any]
E = TypeVar("E")


class FakeService:
    """Answers like a service of the folder until `stop`. Its thread alone touches sockets; tests call `do`."""

    def __init__(self, folder: Path, *, protocol: int = 2, token_in_file: str | None = None, jobs: dict[str, list[Map]] | None = None) -> None:
        self.folder, self.protocol = folder, protocol
        self.instance, self.token = secrets.token_hex(16), secrets.token_hex(32)
        self.jobs: dict[str, list[Map]] = {} if jobs is None else jobs
        """The events of each job, stored as a service on disk would: hand them to the next instance."""
        self.heard: list[Map] = []
        """Every message that came, with "session", "buffers" and "line" added."""
        self.silent_on: set[str] = set()
        """Types of messages that are heard but not answered."""
        self.answers: dict[str, Callable[[Map], Map | list[bytes] | None]] = {}
        """By type: another answer than the usual one; a list is sent as raw frames."""
        self.credit: dict[str, Map] = {}
        self.watching: dict[str, tuple[bytes, ...]] = {}
        self.results: dict[str, list[bytes]] = {}
        self._tasks: list[Callable[[], None]] = []
        self._over = False
        self._context = zmq.Context()
        self._context.linger = 0
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self.control, self.bulk = self._router(), self._router()
        self.ports = tuple(int(line.last_endpoint.rsplit(b":", 1)[1]) for line in (self.control, self.bulk))
        self._peers: dict[str, bytes] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.write_file(token_in_file)

    def write_file(self, token: str | None = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"draft-{self.instance}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump({
                "protocol": self.protocol, "service": "fake 1", "instance": self.instance, "pid": os.getpid(),
                "control_port": self.ports[0], "bulk_port": self.ports[1], "token": token or self.token,
            }, file)
        draft.replace(self.folder / "connection.json")

    def stop(self) -> None:
        """As kill -9 would: the sockets are gone, the connection file stays."""
        self._over = True
        self._thread.join(5)
        assert not self._thread.is_alive()

    def do(self, task: Callable[[], None]) -> None:
        """Run `task` in the service's thread, and wait for it."""
        done = threading.Event()
        self._tasks.append(lambda: (task(), done.set()))
        assert done.wait(5)

    def happen(self, job: str, *types: str, lose: bool = False, **fields: Any) -> None:
        """Events of `job`, sent to its watcher unless they get lost."""
        for kind in types:
            events = self.jobs.setdefault(job, [])
            happening = {"type": kind, **fields}
            events.append({"type": "JobEvent", "job": job, "number": len(events) + 1, "time": 1.0, "happening": happening})
            if not lose:
                self.do(lambda event=events[-1]: self._to_watcher(job, event))

    def progress(self, job: str, step: int) -> None:
        self.do(lambda: self._to_watcher(job, {
            "type": "Progress", "job": job, "state": "running", "what": "optimizing", "step": step, "total": 100, "stage": 0,
            "seconds_left": None, "step_seconds": 0.1, "memory_megabytes": 1.0, "numbers": {},
        }))

    def snapshot(self, job: str, serial: int, topology: int, positions: np.ndarray, faces: np.ndarray, **wrong: Any) -> Map:
        """Spend the credit, which has to be there within five seconds; returns the grant."""
        self.until(lambda: job in self.credit)
        grant = self.credit.pop(job)
        left_out = grant["topology"] == topology
        header = {"vertices": len(positions), "faces": 0 if left_out else len(faces), "colors": False}
        message = {"type": "Snapshot", "job": job, "serial": serial, "step": serial, "topology": topology, "mesh": header, **wrong}
        frames = [msgpack.packb(message), positions.astype("<f4").tobytes(), *([] if left_out else [faces.astype("<i4").tobytes()])]
        self.do(lambda: self._send(self.bulk, [grant["route"], *frames]))
        return grant

    def send(self, frames: list[bytes], *, bulk: bool = False) -> None:
        """Raw frames to the one client there is."""
        key = "bulk" if bulk else "control"
        self.do(lambda: self._send(self.bulk if bulk else self.control, [self._peers[key], *frames]))

    def break_link(self) -> None:
        """Have the one client connect again, to this same instance."""
        before = len(self.of("Hello"))
        self.send([b"garbage"])
        self.until(lambda: len(self.of("Hello")) > before)

    def of(self, kind: str) -> list[Map]:
        return [message for message in list(self.heard) if message["type"] == kind]

    def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        wait_until(condition, seconds, lambda: f"heard {[message['type'] for message in self.heard]}")

    def _router(self) -> zmq.Socket:
        line = self._context.socket(zmq.ROUTER)
        line.plain_server = True
        line.zap_domain = b"galatea"
        line.router_mandatory = True
        line.bind("tcp://127.0.0.1:*")
        return line

    def _run(self) -> None:
        poller = zmq.Poller()
        for line in (self._zap, self.control, self.bulk):
            poller.register(line, zmq.POLLIN)
        while not self._over:
            ready = dict(poller.poll(5))
            if self._zap in ready:
                self._authenticate(self._zap.recv_multipart())
            for line in (self.control, self.bulk):
                if line in ready:
                    self._hear(line, line.recv_multipart(copy=False))
            while self._tasks:
                self._tasks.pop(0)()
        self._context.destroy(linger=0)

    def _authenticate(self, frames: list[bytes]) -> None:
        version, request, *_, mechanism, user, password = frames
        good = mechanism == b"PLAIN" and password.decode() == self.token
        status = [b"200", b"OK", user] if good else [b"400", b"wrong token", b""]
        self._zap.send_multipart([version, request, *status, b""])

    def _hear(self, line: zmq.Socket, frames: list[zmq.Frame]) -> None:
        route, header, *buffers = frames
        message = msgpack.unpackb(header.bytes)
        message |= {"session": header["User-Id"], "buffers": [buffer.bytes for buffer in buffers], "route": route.bytes}
        message["line"] = "control" if line is self.control else "bulk"
        self._peers[message["line"]] = route.bytes
        self.heard.append(message)
        kind = message["type"]
        if kind in self.silent_on:
            return
        answer = self.answers[kind](message) if kind in self.answers else getattr(self, f"_on_{kind.lower()}", self._done)(message)
        if isinstance(answer, dict):
            answer = [msgpack.packb(answer)]
        if answer:
            self._send(line, [route.bytes, *answer])
        if kind == "Watch" and isinstance(self.jobs.get(message["job"]), list):
            for event in self.jobs[message["job"]][message["after"]:]:
                self._to_watcher(message["job"], event)

    def _to_watcher(self, job: str, message: Map) -> None:
        if job in self.watching:
            self._send(self.control, [self.watching[job], msgpack.packb(message)])

    def _send(self, line: zmq.Socket, frames: list[Any]) -> None:
        with contextlib.suppress(zmq.ZMQError):  # nobody there any more, or nobody who reads
            line.send_multipart(frames, zmq.NOBLOCK)

    def _done(self, message: Map) -> Map | None:
        return {"type": "Done", "request": message["request"]} if "request" in message else None

    def _on_hello(self, message: Map) -> Map:
        self.watching.clear()
        self.credit.clear()
        return {
            "type": "Welcome", "protocol": self.protocol, "service": "fake 1", "instance": self.instance, "session": message["session"],
            "priors": ["toybox"], "recipes": ["generate"], "devices": ["cpu"],
        }

    def _on_ping(self, message: Map) -> Map:
        last = {job: len(self.jobs[job]) for job in self.watching}
        return {"type": "Pong", "request": message["request"], "instance": self.instance, "last_events": last}

    def _on_watch(self, message: Map) -> Map:
        if message["job"] not in self.jobs:
            return refuse(message, "unknown_job")
        self.watching[message["job"]] = message["route"]
        return self._done(message)

    def _on_submit(self, message: Map) -> Map:
        self.jobs.setdefault(message["job"], [])
        return {"type": "Accepted", "request": message["request"], "job": message["job"]}

    def _on_grant(self, message: Map) -> None:
        self.credit[message["job"]] = message

    def _on_listjobs(self, message: Map) -> Map:
        return {"type": "Jobs", "request": message["request"], "jobs": []}

    def _on_fetch(self, message: Map) -> Map | list[bytes]:
        if message["job"] not in self.results:
            return refuse(message, "conflict")
        positions, faces = self.results[message["job"]]
        header = {"vertices": len(positions) // 12, "faces": len(faces) // 12, "colors": False}
        return [msgpack.packb({"type": "Result", "request": message["request"], "job": message["job"], "mesh": header}), positions, faces]


def refuse(message: Map, code: str) -> Map:
    return {"type": "Refused", "request": message.get("request"), "code": code, "message": f"That is {code}."}


def wait_until(condition: Callable[[], Any], seconds: float, story: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds:g} s; {story()}"
        time.sleep(0.002)


class Consumer:
    """A client and all that it has told."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.client = Client(folder, "test", **arguments)
        self.told: list[ClientEvent] = []
        self.client.start()

    def of(self, kind: type[E]) -> list[E]:
        self.told += self.client.poll(1000)
        return [event for event in self.told if isinstance(event, kind)]

    def until(self, kind: type[E], count: int = 1, seconds: float = 5.0, **fields: Any) -> E:
        """Poll until `count` events of `kind` with these fields have come; the last of them."""
        def found() -> list[E]:
            return [event for event in self.of(kind) if all(getattr(event, name) == value for name, value in fields.items())]

        wait_until(lambda: len(found()) >= count, seconds, lambda: f"told {self.told}")
        return found()[count - 1]

    def until_state(self, state: str, seconds: float = 5.0) -> ConnectionChanged:
        return self.until(ConnectionChanged, state=state, seconds=seconds)


def value_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, its bounds included; msgspec's own inspection is the source."""
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case inspect.StrType(pattern=pattern, min_length=length) if pattern:
            return st.text("0123456789abcdef", min_size=length, max_size=length)
        case inspect.StrType(min_length=least, max_length=most):
            return st.text(st.characters(exclude_categories=["Cs"]), min_size=least or 0, max_size=min(most, 50))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(value_of(item), min_size=least or 0, max_size=max(least or 0, 3)).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(value_of(key), value_of(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of(*(value_of(one) for one in types))
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: value_of(field.type) for field in fields})
    raise AssertionError(kind)


@pytest.fixture(scope="session")
def any_message() -> Callable[[Any], st.SearchStrategy[msgspec.Struct]]:
    """Makes the strategy for all messages of a union."""
    # Making a strategy takes far longer than drawing from it.
    return functools.cache(lambda kinds: st.one_of(*(value_of(inspect.type_info(kind)) for kind in get_args(kinds))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "service"


@pytest.fixture
def start_service(folder: Path) -> Iterator[Callable[..., FakeService]]:
    """Starts services of the folder; those that still run are stopped in the end."""
    started: list[FakeService] = []

    def start(**arguments: Any) -> FakeService:
        started.append(FakeService(folder, **arguments))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def start_client(folder: Path) -> Iterator[Callable[..., Consumer]]:
    started: list[Consumer] = []

    def start(**arguments: Any) -> Consumer:
        started.append(Consumer(folder, **arguments))
        return started[-1]

    yield start
    for consumer in started:
        consumer.client.close()
