"""What service and worker hold each other to: a share of the time for snapshots, one writer for each job, readable messages."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zmq

from backend.file_lock import try_lock
from backend.optimize.events import Preview
from backend.representations import MeshData
from backend.service import worker_job
from backend.service.service import Service, ServiceOptions
from backend.service.worker_job import SNAPSHOT_SHARE, _SnapshotMaker
from backend.service.worker_process import WorkerProcess

ROOT = Path(__file__).resolve().parents[3]


class Clock:
    """Stands in for `time` in the worker."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Link:
    """Takes everything, or nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, list[memoryview]]] = []
        self.takes = True

    def offer(self, message: object, buffers: list[memoryview]) -> bool:
        if self.takes:
            self.sent.append((message, buffers))
        return self.takes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(worker_job, "time", one)
    return one


def preview(mesh: MeshData, clock: Clock, seconds: float) -> Preview:
    """One that takes so long to be made."""

    def make() -> MeshData:
        clock.now += seconds
        return mesh

    return Preview(1, make, lambda *_: None)


def test_snapshots_take_their_share_of_the_time_and_no_more(ball, clock) -> None:
    """A loop of steps that takes a snapshot whenever one is due, as a client that always waits makes it do."""
    maker, mesh = _SnapshotMaker("0" * 32, Link()), MeshData(ball.positions, ball.faces)
    maker.begin(mesh)
    assert maker.are_due(), "the first one at once"
    began, spent = clock.now, 0.0
    for step in range(1, 3000):
        clock.now += 0.1
        if maker.are_due():
            cost = (0.002, 0.05, 0.3)[step % 3]
            assert maker.make(preview(mesh, clock, cost), step)
            spent += cost
    assert 0.8 * SNAPSHOT_SHARE < spent / (clock.now - began) <= 1.05 * SNAPSHOT_SHARE


def test_faces_travel_once_for_each_topology(ball, clock) -> None:
    link = Link()
    maker, mesh = _SnapshotMaker("0" * 32, link), MeshData(ball.positions, ball.faces)
    other = MeshData(ball.positions, np.ascontiguousarray(ball.faces[::-1]))
    maker.begin(mesh)
    for step, shown in enumerate((mesh, mesh, other, other, mesh), 1):
        assert maker.make(preview(shown, clock, 0.0), step)
    told = [(message.topology, message.mesh.faces, len(buffers)) for message, buffers in link.sent]
    assert told == [(0, 128, 2), (0, 0, 1), (1, 128, 2), (1, 0, 1), (2, 128, 2)]
    assert not maker.make(preview(mesh, clock, 0.0), 5), "nothing new since"
    link.takes = False
    assert not maker.make(preview(other, clock, 0.0), 6)
    link.takes = True
    assert maker.make(preview(other, clock, 0.0), 6)
    assert link.sent[-1][0].mesh.faces == 128, "what was not taken has not arrived"


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from backend.file_lock import try_lock; held = try_lock(Path(sys.argv[1])); print(held is not None, flush=True); time.sleep(60)"
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"True\n"
        assert try_lock(path) is None
        holder.kill()
    with try_lock(path):
        assert try_lock(path) is None
    try_lock(path).close()


def test_a_worker_that_sends_what_cannot_be_read_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    monkeypatch.setattr(WorkerProcess, "kill", lambda worker: killed.append(worker))
    monkeypatch.setattr(WorkerProcess, "close", lambda worker: None)
    service = Service(ServiceOptions(tmp_path, ("cpu",), {"toybox": "toybox"}, "0"))
    try:
        worker = WorkerProcess("cpu", secrets.token_hex(16), process=None, ready=True)
        service._pool._workers.append(worker)
        service._on_worker(secrets.token_hex(16), [zmq.Frame(b"id"), zmq.Frame(b"\xc1")])
        assert killed == [], "that one is not a worker of ours (any more)"
        service._on_worker(worker.session, [zmq.Frame(b"id"), zmq.Frame(b"\xc1")])
        assert killed == [worker]
    finally:
        service._close()
