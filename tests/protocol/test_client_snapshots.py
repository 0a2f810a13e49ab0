"""Snapshots on credit: one at a time, faces only when they are new, and right through restarts and broken meshes."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from protocol.client_events import ConnectionChanged, ResultArrived, SnapshotArrived, Submitted
from protocol.mesh_codec import Mesh
from protocol.messages import JobRequest

JOB = "0123456789abcdef" * 2
GENERATE = JobRequest(command="generate", prompt="a mug")
REFINE = JobRequest(command="refine", prompt="a mug")
FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
OTHER_FACES = np.array([[0, 1, 3], [1, 2, 3]], dtype=np.int32)


def positions(step: float = 0.0) -> np.ndarray:
    return (np.eye(4, 3) + step / 100).astype(np.float32)


def test_one_snapshot_at_a_time_and_faces_only_when_they_are_new(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.jobs[JOB] = []
    consumer.client.follow(JOB)
    grant = service.snapshot(JOB, 1, 5, positions(), FACES)
    assert (grant["after"], grant["topology"]) == (0, -1)
    first = consumer.until(SnapshotArrived)
    assert first.faces_are_new and (first.serial, first.topology, first.step) == (1, 5, 1)
    time.sleep(0.1)
    assert JOB not in service.credit, "no credit before the consumer is done"
    consumer.client.applied(JOB)
    consumer.client.applied(JOB)
    service.until(lambda: JOB in service.credit)
    grant = service.credit[JOB]
    service.snapshot(JOB, 1, 5, positions(1), FACES)  # older than the credit is for
    service.credit[JOB] = grant
    grant = service.snapshot(JOB, 2, 5, positions(1), FACES)
    assert (grant["after"], grant["topology"]) == (1, 5)
    second = consumer.until(SnapshotArrived, 2)
    assert second.serial == 2 and not second.faces_are_new and second.mesh.faces is first.mesh.faces
    assert second.mesh.positions.tolist() == positions(1).tolist()
    consumer.client.applied(JOB)
    service.snapshot(JOB, 3, 6, positions(2), OTHER_FACES)
    third = consumer.until(SnapshotArrived, 3)
    assert third.faces_are_new and third.mesh.faces.tolist() == OTHER_FACES.tolist()


def test_the_submitted_topology_is_known_from_the_start_and_after_a_restart(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    own_faces = FACES.astype(np.int64)
    consumer.client.submit(REFINE, Mesh(positions(), own_faces, None), job=JOB)
    consumer.client.follow(JOB)
    consumer.until(Submitted)
    own_faces[:] = 0
    assert service.snapshot(JOB, 7, 0, positions(1), FACES)["topology"] == 0
    first = consumer.until(SnapshotArrived)
    assert first.mesh.faces.tolist() == FACES.tolist() and first.faces_are_new and first.topology == 0
    service.stop()
    consumer.until_state("lost")
    consumer.client.applied(JOB)
    again = start_service(jobs=service.jobs)
    grant = again.snapshot(JOB, 1, 0, positions(2), FACES)
    assert (grant["after"], grant["topology"]) == (0, 0)
    assert not consumer.until(SnapshotArrived, 2).faces_are_new


def test_topologies_of_another_instance_mean_nothing(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.client.submit(GENERATE, job=JOB)
    consumer.client.follow(JOB)
    service.snapshot(JOB, 9, 5, positions(), FACES)
    first = consumer.until(SnapshotArrived)
    consumer.client.applied(JOB)
    service.until(lambda: JOB in service.credit)
    service.break_link()
    service.until(lambda: JOB in service.credit and service.credit[JOB]["after"] == 9)
    assert service.credit[JOB]["topology"] == 5, "the same instance still knows"
    service.stop()
    again = start_service(jobs=service.jobs)
    grant = again.snapshot(JOB, 1, 5, positions(1), FACES)
    assert (grant["after"], grant["topology"]) == (0, -1)
    second = consumer.until(SnapshotArrived, 2)
    assert not second.faces_are_new and second.mesh.faces is first.mesh.faces, "the same faces need no new object"
    consumer.client.applied(JOB)
    again.snapshot(JOB, 2, 6, positions(2), OTHER_FACES)
    assert consumer.until(SnapshotArrived, 3).faces_are_new


def test_following_again_brings_the_object_as_it_is_with_new_faces(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.jobs[JOB] = []
    consumer.client.follow(JOB)
    service.snapshot(JOB, 4, 5, positions(), FACES)
    consumer.until(SnapshotArrived)
    consumer.client.follow(JOB)
    grant = service.snapshot(JOB, 4, 5, positions(), FACES)
    assert (grant["after"], grant["topology"]) == (0, 5)
    second = consumer.until(SnapshotArrived, 2)
    assert second.faces_are_new and second.mesh.faces.tolist() == FACES.tolist()


def test_snapshots_nobody_asked_for_are_dropped(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.jobs[JOB] = []
    consumer.client.follow(JOB)
    service.until(lambda: JOB in service.credit)
    grant = service.credit[JOB]
    for serial in range(1, 6):
        service.credit[JOB] = grant
        service.snapshot(JOB, serial, 5, positions(serial), FACES)
    consumer.client.fetch(JOB)  # answered on the same socket as snapshots, so after them
    consumer.until(ResultArrived)
    consumer.client.applied(JOB)
    service.until(lambda: JOB in service.credit)
    service.credit[JOB] = grant | {"topology": 77}
    service.snapshot(JOB, 7, 77, positions(), FACES)  # without faces, of a topology that is not known
    consumer.client.fetch(JOB)
    consumer.until(ResultArrived, 2)
    assert [snapshot.serial for snapshot in consumer.of(SnapshotArrived)] == [1]
    consumer.client.unfollow(JOB)
    consumer.client.applied(JOB)
    service.credit[JOB] = grant
    service.snapshot(JOB, 8, 5, positions(), FACES)
    consumer.client.fetch(JOB)
    consumer.until(ResultArrived, 3)
    assert len(consumer.of(SnapshotArrived)) == 1 and consumer.of(ConnectionChanged)[-1].state == "connected"


@pytest.mark.parametrize("value", [np.nan, 5000.0])
def test_a_broken_snapshot_is_told_and_the_next_good_one_arrives(start_service: Any, start_client: Any, value: float) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.jobs[JOB] = []
    consumer.client.follow(JOB)
    broken = positions()
    broken[2, 1] = value
    service.snapshot(JOB, 1, 5, broken, FACES)
    assert "broken mesh. Vertex 2" in consumer.until_state("lost").message
    service.until(lambda: len(service.of("Hello")) == 2)
    service.snapshot(JOB, 2, 5, positions(), FACES)
    assert consumer.until(SnapshotArrived).serial == 2


def test_more_jobs_than_fit_the_bulk_sockets_queue(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    jobs = [f"{number:032x}" for number in range(200)]
    for job in jobs:
        service.jobs[job] = []
        consumer.client.follow(job)
    service.until(lambda: len(service.credit) == len(jobs))
    assert [event.state for event in consumer.of(ConnectionChanged)] in (["connected"], ["connecting", "connected"])


def test_a_service_that_does_not_read_is_lost_and_gets_all_in_the_end(start_service: Any, start_client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("protocol.client_link.LOST_SECONDS", 0.5)
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    asleep, awake = threading.Event(), threading.Event()
    service._tasks.append(lambda: (asleep.set(), awake.wait(10)))
    assert asleep.wait(5)
    many = Mesh(np.zeros((300_000, 3), np.float32) + np.arange(3, dtype=np.float32), FACES)
    jobs = [consumer.client.submit(REFINE, many) for _ in range(12)]
    assert consumer.until_state("lost").message
    awake.set()
    for job in jobs:
        consumer.until(Submitted, job=job, refused=None, seconds=20)


def test_prepare_runs_in_the_clients_thread_and_may_fail(start_service: Any, start_client: Any) -> None:
    threads = []

    def prepare(job: str, arrived: SnapshotArrived | ResultArrived) -> str:
        threads.append(threading.current_thread().name)
        if isinstance(arrived, ResultArrived):
            return f"{job[:3]} of {10 // (len(arrived.mesh.positions) - 3)}"
        if arrived.serial == 1:
            raise ZeroDivisionError("a defect of the consumer")
        return f"{job[:3]} {arrived.serial}"

    service, consumer = start_service(), start_client(prepare=prepare)
    service.jobs[JOB] = []
    consumer.client.follow(JOB)
    service.snapshot(JOB, 1, 5, positions(), FACES)
    first = consumer.until(SnapshotArrived)
    assert first.prepared is None and isinstance(first.failure, ZeroDivisionError)
    consumer.client.applied(JOB)
    service.snapshot(JOB, 2, 5, positions(), FACES)
    second = consumer.until(SnapshotArrived, 2)
    assert second.prepared == "012 2" and second.failure is None

    service.results[JOB] = [positions().tobytes(), FACES.astype("<i4").tobytes()]
    consumer.client.fetch(JOB)
    result = consumer.until(ResultArrived)
    assert result.prepared == "012 of 10" and result.failure is None and result.mesh is not None
    service.results[JOB] = [positions()[:3].tobytes(), FACES[:1].astype("<i4").tobytes()]
    consumer.client.fetch(JOB)
    result = consumer.until(ResultArrived, 2)
    assert result.prepared is None and isinstance(result.failure, ZeroDivisionError) and result.mesh is not None
    del service.results[JOB]
    consumer.client.fetch(JOB)
    assert consumer.until(ResultArrived, 3).refused is not None, "the thread goes on, and what is refused is not prepared"
    assert set(threads) == {"galatea-client"}
