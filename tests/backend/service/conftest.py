"""A real service with a real worker, shared by the tests of this folder, and clients to talk to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest
import zmq

from protocol.client import Client
from protocol.client_events import ConnectionChanged, Happened, ProgressMade, Replied, ResultArrived, SnapshotArrived, Submitted
from protocol.codec import apply_limits, decode, encode
from protocol.location import Connection, read_connection
from protocol.mesh_codec import Mesh
from protocol.messages import (
    PROTOCOL,
    Hello,
    JobEvent,
    JobRequest,
    Refused,
    ToClientBulk,
    ToClientControl,
)

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 180.0
"""Seconds that a test waits for what must happen; a machine may be slow, but nothing may hang."""


def wait_for(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What `what` returns once it is true."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "this did not come to pass in time"
        time.sleep(0.02)
    return found


class RunningService:
    """`galatea serve` in a folder; can be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self._options = folder, options
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "backend.cli", "serve", "--folder", str(self.folder), *self._options]
        self.folder.mkdir(exist_ok=True)
        self.output = self.folder.parent / f"{self.folder.name}-output.txt"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        wait_for(lambda: self.is_announced() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output.read_text()

    def is_announced(self) -> bool:
        connection = read_connection(self.folder)
        return connection is not None and connection.pid == self.process.pid

    @property
    def connection(self) -> Connection:
        return read_connection(self.folder)

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def worker(self) -> psutil.Process:
        """The process of its one worker."""
        return wait_for(lambda: psutil.Process(self.process.pid).children())[0]

    def wait_until_ready(self, times: int = 1) -> None:
        """Until workers have become ready this many times since the folder was made."""
        wait_for(lambda: self.log().count("INFO    ready:") >= times)

    def kill(self) -> None:
        worker = self.worker()
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Watcher:
    """A client of the shipped kind that keeps all it is told."""

    def __init__(self, folder: Path) -> None:
        self._client = Client(folder, "a test")
        self.said: list[object] = []
        self.snapshots: list[SnapshotArrived] = []
        self._client.start()
        self.wait(lambda: any(isinstance(one, ConnectionChanged) and one.state == "connected" for one in self.said))

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)

    def look(self) -> None:
        for one in self._client.poll():
            if isinstance(one, SnapshotArrived):
                self.snapshots.append(one)
                self._client.applied(one.job)
            else:
                self.said.append(one)

    def wait(self, what: Callable[[], T]) -> T:
        def looked() -> T:
            self.look()
            return what()

        return wait_for(looked)

    def submitted(self, request: JobRequest, mesh: Mesh | None = None, follow: bool = True) -> str:
        job = self._client.submit(request, mesh)
        if follow:
            self._client.follow(job)
        outcome = self.wait(lambda: [one for one in self.said if isinstance(one, Submitted) and one.job == job])
        assert outcome[0].refused is None, outcome
        return job

    def events(self, job: str) -> list[JobEvent]:
        self.look()
        return [one.event for one in self.said if isinstance(one, Happened) and one.event.job == job]

    def happened(self, job: str, kind: type, times: int = 1) -> object:
        """Waits until this has happened to the job so often; the last of them."""
        of_kind = lambda: [event.happening for event in self.events(job) if isinstance(event.happening, kind)]  # noqa: E731
        return self.wait(lambda: len(of_kind()) >= times and of_kind())[times - 1]

    def step(self, job: str) -> int:
        self.look()
        steps = [one.progress.step for one in self.said if isinstance(one, ProgressMade) and one.progress.job == job]
        return steps[-1] if steps else 0

    def reached(self, job: str, step: int) -> None:
        self.wait(lambda: self.step(job) >= step)

    def reply(self, request: int) -> Refused | None:
        """The answer to a command; None if it was done."""
        found = self.wait(lambda: [one for one in self.said if isinstance(one, Replied) and one.request == request])
        return found[0].refused

    def result(self, job: str) -> Mesh:
        found = self.wait(lambda: [one for one in self.said if isinstance(one, ResultArrived) and one.job == job])
        assert found[0].refused is None, found
        return found[0].mesh


class RawClient:
    """Two bare sockets: says what it is told to, right or wrong."""

    def __init__(self, connection: Connection, session: str | None = None, token: str | None = None) -> None:
        self.session = secrets.token_hex(16) if session is None else session
        self.context = zmq.Context()
        self.control = self._socket(connection.control_port, token or connection.token, bulk=False)
        self.bulk = self._socket(connection.bulk_port, token or connection.token, bulk=True)
        self._numbers = iter(range(1, 1_000_000))

    def _socket(self, port: int, token: str, *, bulk: bool) -> zmq.Socket:
        socket = self.context.socket(zmq.DEALER)
        apply_limits(socket, bulk=bulk)
        socket.plain_username, socket.plain_password = self.session.encode(), token.encode()
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def number(self) -> int:
        return next(self._numbers)

    def hello(self) -> RawClient:
        self.tell(Hello(PROTOCOL, "raw"))
        assert type(self.hear()).__name__ == "Welcome"
        return self

    def tell(self, message: object) -> None:
        self.control.send_multipart(encode(message))

    def hand(self, message: object, buffers: object = ()) -> None:
        self.bulk.send_multipart(encode(message, buffers))

    def hear(self, bulk: bool = False, seconds: float = 20.0) -> object | None:
        """The next message; None if none comes in time."""
        socket, kinds = (self.bulk, ToClientBulk) if bulk else (self.control, ToClientControl)
        if not socket.poll(seconds * 1000):
            return None
        return decode(socket.recv_multipart(), kinds).message

    def answer(self, request: int, bulk: bool = False) -> object:
        """The next message that carries this request number."""
        while (heard := self.hear(bulk)) is not None:
            if getattr(heard, "request", None) == request:
                return heard
        raise AssertionError("no answer came")

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One service for all tests; whoever kills it starts it again."""
    running = RunningService(tmp_path_factory.mktemp("service") / "folder", "--device", "cpu")
    yield running
    assert running.stop() == 0


@pytest.fixture
def make_service() -> Iterator[Callable[..., RunningService]]:
    """Starts services of a test's own, and ends them."""
    made: list[RunningService] = []

    def make(folder: Path, *options: str) -> RunningService:
        made.append(RunningService(folder, *options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def watcher(service: RunningService) -> Iterator[Watcher]:
    one = Watcher(service.folder)
    yield one
    one.close()


@pytest.fixture(scope="module")
def make_watcher(service: RunningService) -> Iterator[Callable[[], Watcher]]:
    made: list[Watcher] = []

    def make() -> Watcher:
        made.append(Watcher(service.folder))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def raw(service: RunningService) -> Iterator[Callable[..., RawClient]]:
    """Makes bare clients and closes them."""
    made: list[RawClient] = []

    def make(**options: str) -> RawClient:
        made.append(RawClient(service.connection, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def ball() -> Mesh:
    """An octahedron, divided twice: 66 vertices, 128 faces."""
    positions = [np.array(point, float) for point in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))]
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    for _ in range(2):
        middles: dict[tuple[int, int], int] = {}

        def middle(a: int, b: int) -> int:
            edge = min(a, b), max(a, b)
            if edge not in middles:
                point = positions[a] + positions[b]
                middles[edge] = len(positions)
                positions.append(point / np.linalg.norm(point))
            return middles[edge]

        faces = [
            face
            for a, b, c in faces
            for ab, bc, ca in [(middle(a, b), middle(b, c), middle(c, a))]
            for face in [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        ]
    return Mesh(np.array(positions, np.float32) * 0.8, np.array(faces, np.int32))
