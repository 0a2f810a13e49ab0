"""What clients cost the loop: processor time per step with two clients, one of which reads nothing, against none.

    python -m benchmarks.service_overhead [--subdivisions 4 6] [--pairs 8] [--seconds 8]

Starts a service of its own in a temporary folder and refines a ball of 10 * 4^n + 2 vertices for each n. The job is
paused and resumed in turns, without clients and with two: one follows as fast as it can (it applies each snapshot at
once), the other watches, gives credit and never reads. While the job is paused its step is exact and its worker idle, so
each turn is judged by the worker's own processor time (all its threads) over the steps it took. Turns alternate, since other
load on the machine makes processor time longer as well, by a third at times; the median of the pairs is held to the target
of 1.05. Run it on a quiet machine, with eight pairs or more.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import psutil
import trimesh
import zmq

from protocol.client import Client
from protocol.client_events import JobsListed, Replied, SnapshotArrived
from protocol.codec import apply_limits, encode
from protocol.location import Connection, read_connection
from protocol.mesh_codec import Mesh
from protocol.messages import PROTOCOL, Grant, Hello, JobRequest, Ping, Watch

PATIENCE = 300.0
TARGET = 1.05

T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """Of one stretch between two pauses."""

    steps: int
    cpu_seconds: float
    snapshots: int

    @property
    def milliseconds(self) -> float:
        return 1000 * self.cpu_seconds / self.steps


class Bench:
    """A service with one long job, which is paused between turns."""

    def __init__(self, folder: Path, subdivisions: int) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "serve", "--folder", str(folder), "--device", "cpu"], stdout=subprocess.DEVNULL
        )
        self._client = Client(folder, "the benchmark")
        self._client.start()
        self._answers: list[object] = []
        ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.8)
        self._mesh = Mesh(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32))
        self._job = self._client.submit(JobRequest("refine", "a red mug", steps=1_000_000), self._mesh)
        self._until(lambda: self._step() > 5)
        self._pause()
        self.service = psutil.Process(self._process.pid)
        self.worker = self.service.children()[0]

    def close(self) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def turn(self, seconds: float, with_clients: bool) -> Turn:
        """Let the job go on for so long."""
        with contextlib.ExitStack() as clients:
            seen: list[int] = []
            work: Callable[[], None] = lambda: time.sleep(0.02)  # noqa: E731
            if with_clients:
                clients.enter_context(stalled(self._connection(), self._job))
                work = clients.enter_context(following(self._folder, self._job, seen))
                time.sleep(1.0)  # both are connected, and what they ask for at once is not counted
            before, cpu = self._step(), self._cpu()
            self._reply(self._client.resume(self._job))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                work()
            self._pause()
            return Turn(self._step() - before, self._cpu() - cpu, len(seen))

    def megabytes(self) -> tuple[float, float]:
        """Resident memory of service and worker."""
        return self.service.memory_info().rss / 1e6, self.worker.memory_info().rss / 1e6

    @property
    def vertices(self) -> int:
        return len(self._mesh.positions)

    def _connection(self) -> Connection:
        return read_connection(self._folder)

    def _cpu(self) -> float:
        times = self.worker.cpu_times()
        return times.user + times.system

    def _pause(self) -> None:
        self._reply(self._client.pause(self._job))

    def _step(self) -> int:
        """Exact while the job is paused."""
        request = self._client.list_jobs(1)
        listed = self._answer(lambda one: isinstance(one, JobsListed) and one.request == request)
        return listed.jobs[0].step if listed.jobs else 0

    def _reply(self, request: int) -> None:
        reply = self._answer(lambda one: isinstance(one, Replied) and one.request == request)
        if reply.refused is not None:
            raise RuntimeError(reply.refused.message)

    def _answer(self, is_it: Callable[[object], bool]) -> object:
        def found() -> object:
            self._answers += self._client.poll()
            return next((one for one in self._answers if is_it(one)), None)

        answer = self._until(found)
        self._answers.clear()
        return answer

    def _until(self, what: Callable[[], T]) -> T:
        until = time.monotonic() + PATIENCE
        while not (found := what()):
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"the service does not get on; see {self._folder / 'log.txt'}")
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def following(folder: Path, job: str, seen: list[int]) -> Iterator[Callable[[], None]]:
    """A client that applies each snapshot at once; what it saw is noted in `seen`. Yields what is to be called often."""
    client = Client(folder, "the one that follows")
    client.start()
    client.watch(job)
    client.follow(job)

    def look() -> None:
        for one in client.poll():
            if isinstance(one, SnapshotArrived):
                seen.append(one.step)
                client.applied(job)
        time.sleep(0.005)

    try:
        yield look
    finally:
        client.close()


@contextlib.contextmanager
def stalled(connection: Connection, job: str) -> Iterator[None]:
    """A client that asks for everything and never reads."""
    session = secrets.token_hex(16).encode()
    with zmq.Context() as context:
        context.linger = 0
        sockets = []
        for port, bulk in ((connection.control_port, False), (connection.bulk_port, True)):
            socket = context.socket(zmq.DEALER)
            apply_limits(socket, bulk=bulk)
            socket.plain_username, socket.plain_password = session, connection.token.encode()
            socket.connect(f"tcp://127.0.0.1:{port}")
            sockets.append(socket)
        for message in (Hello(PROTOCOL, "the one that reads nothing"), Watch(1, job)):
            sockets[0].send_multipart(encode(message))
        sockets[0].poll(10_000)
        for number in range(50):
            with contextlib.suppress(zmq.Again):
                sockets[0].send_multipart(encode(Ping(number)), zmq.NOBLOCK)
                sockets[1].send_multipart(encode(Grant(job)), zmq.NOBLOCK)
        yield
        for socket in sockets:
            socket.close(0)


def measure(subdivisions: int, pairs: int, seconds: float) -> float:
    """Prints the table of one mesh; returns the median ratio of the pairs."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "service", subdivisions)
        try:
            print(f"\n{bench.vertices:,} vertices: ms of processor time per step, memory in MB")
            print("pair     none  two clients  ratio  steps  snapshots  service  worker")
            ratios = []
            bench.turn(seconds / 2, with_clients=True)  # the memory of both is settled by now
            for pair in range(pairs):
                order = (False, True) if pair % 2 == 0 else (True, False)
                turns = {with_clients: bench.turn(seconds, with_clients) for with_clients in order}
                ratios.append(turns[True].milliseconds / turns[False].milliseconds)
                service, worker = bench.megabytes()
                print(
                    f"{pair + 1:4} {turns[False].milliseconds:8.2f} {turns[True].milliseconds:12.2f} {ratios[-1]:6.3f} "
                    f"{turns[False].steps + turns[True].steps:6} {turns[True].snapshots:10} {service:8.1f} {worker:7.1f}"
                )
            print(f"median of the pairs {median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} (target <= {TARGET})")
            return median(ratios)
        finally:
            bench.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subdivisions", type=int, nargs="+", default=[4, 6], metavar="N")
    parser.add_argument("--pairs", type=int, default=8, metavar="N")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="length of a turn")
    arguments = parser.parse_args()
    ratios = [measure(subdivisions, arguments.pairs, arguments.seconds) for subdivisions in arguments.subdivisions]
    return 0 if max(ratios) <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
