"""Jobs through a real connection: what is announced arrives once and in order, whatever is lost or restarted."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import msgpack
import numpy as np
import pytest

from protocol import client_inbox, client_jobs
from protocol.client_events import (
    ConnectionChanged,
    Happened,
    JobsListed,
    ProgressMade,
    Replied,
    ResultArrived,
    SnapshotArrived,
    Submitted,
    WatchRefused,
)
from protocol.mesh_codec import Mesh
from protocol.messages import Finished, JobRequest, Queued, Started

JOB = "0123456789abcdef" * 2
GENERATE = JobRequest(command="generate", prompt="a mug")
REFINE = JobRequest(command="refine", prompt="a mug")
FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
OTHER_FACES = np.array([[0, 1, 3], [1, 2, 3]], dtype=np.int32)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again for lost events without waiting."""
    monkeypatch.setattr("protocol.client_link.PING_SECONDS", 0.05)
    monkeypatch.setattr(client_jobs, "REWATCH_SECONDS", 0.05)


def positions(step: float = 0.0) -> np.ndarray:
    return (np.eye(4, 3) + step / 100).astype(np.float32)


def mesh() -> Mesh:
    return Mesh(positions(), FACES, None)


def numbers(consumer: Any) -> list[int]:
    return [happened.event.number for happened in consumer.of(Happened)]


def watched(service: Any, consumer: Any) -> None:
    service.jobs.setdefault(JOB, [])
    consumer.client.watch(JOB)
    service.until(lambda: JOB in service.watching)


def lose_connection(service: Any, consumer: Any) -> None:
    """The service stays the same instance; the client connects again."""
    before = len(service.of("Hello"))
    service.send([b"garbage"])
    service.until(lambda: len(service.of("Hello")) > before)


def test_a_job_from_submission_to_result(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    job = consumer.client.submit(GENERATE)
    consumer.client.follow(job)
    assert consumer.until(Submitted).job == job
    [submit] = service.of("Submit")
    assert submit["job_request"]["prompt"] == "a mug" and submit["mesh"] is None and submit["buffers"] == []
    service.until(lambda: job in service.watching)
    service.happen(job, "Queued")
    service.happen(job, "Started", step=0, device="cpu")
    assert consumer.until(Happened, 2).event.happening == Started(step=0, device="cpu")
    service.results[job] = [positions().tobytes(), FACES.tobytes()]
    service.happen(job, "Finished", step=9, seconds=1.0, vertices=4, faces=2)
    result = consumer.until(ResultArrived)
    assert result.job == job and result.mesh.positions.tolist() == positions().tolist() and result.mesh.faces.tolist() == FACES.tolist()
    assert isinstance(consumer.of(Happened)[-1].event.happening, Finished)
    kinds = [type(event) for event in consumer.told]
    assert kinds.index(ResultArrived) > max(index for index, kind in enumerate(kinds) if kind is Happened)


def test_a_mesh_to_refine_travels_bit_for_bit(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    colors = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
    consumer.client.submit(REFINE, Mesh(positions(), FACES, colors), job=JOB)
    consumer.until(Submitted, job=JOB, refused=None)
    [submit] = service.of("Submit")
    assert submit["mesh"] == {"vertices": 4, "faces": 2, "colors": True}
    assert submit["buffers"] == [positions().tobytes(), FACES.tobytes(), colors.tobytes()]


def test_a_submission_that_the_service_refuses(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.answers["Submit"] = lambda message: {"type": "Refused", "request": message["request"], "code": "input", "message": "No."}
    consumer.client.submit(GENERATE, job=JOB)
    assert consumer.until(Submitted, job=JOB).refused.message == "No."
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert not service.of("Watch")


@pytest.mark.parametrize(
    ("request_", "broken", "words"),
    [
        (JobRequest("generate", "x" * 1001), None, "1000"),
        (JobRequest("generate", ""), None, "prompt"),
        (REFINE, Mesh(positions() * np.float32(np.nan), FACES), "Vertex 0"),
        (REFINE, Mesh(positions(), FACES + 2), "Face 0"),
        (REFINE, Mesh(positions(), None), "no faces"),
        (REFINE, Mesh([[0, 1], [2]], FACES), "no array"),
        (JobRequest("generate", "a mug", strength=object()), None, "strength|object"),
    ],
)
def test_a_submission_that_cannot_be_sent(start_service: Any, start_client: Any, request_: JobRequest, broken: Mesh, words: str) -> None:
    service, consumer = start_service(), start_client()
    job = consumer.client.submit(request_, broken)
    assert re.search(words, consumer.until(Submitted, job=job).refused.message)
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert not service.of("Submit") and consumer.of(ConnectionChanged)[-1].state == "connected"


def test_a_submission_without_an_answer_is_sent_again_under_the_same_id(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.silent_on = {"Submit"}
    consumer.client.submit(REFINE, mesh(), job=JOB)
    service.until(lambda: service.of("Submit"))
    early = consumer.client.pause(JOB)
    consumer.until(Replied, request=consumer.client.pause("f" * 32))
    assert early not in [message["request"] for message in service.of("Pause")], "the service may not have the job yet"
    service.silent_on = set()
    lose_connection(service, consumer)
    consumer.until(Submitted, refused=None)
    consumer.until(Replied, request=early, refused=None)
    first, second = service.of("Submit")
    assert (first["job"], first["mesh"], first["buffers"]) == (second["job"], second["mesh"], second["buffers"])
    lose_connection(service, consumer)
    service.until(lambda: len(service.of("Watch")) == 2)
    assert len(service.of("Submit")) == 2


def test_submitting_before_there_is_a_service(start_service: Any, start_client: Any) -> None:
    consumer = start_client()
    consumer.until_state("searching")
    job = consumer.client.submit(GENERATE)
    request = consumer.client.pause(job)
    service = start_service()
    consumer.until(Replied, request=request)
    kinds = [message["type"] for message in service.heard]
    assert kinds.index("Submit") < kinds.index("Watch") and kinds.index("Submit") < kinds.index("Pause")


def test_cancelling_what_was_never_sent(start_service: Any, start_client: Any) -> None:
    consumer = start_client()
    job = consumer.client.submit(GENERATE)
    consumer.until(Replied, request=consumer.client.cancel(job), refused=None)
    assert "cancelled" in consumer.until(Submitted, job=job).refused.message
    service = start_service()
    consumer.until_state("connected")
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert not service.of("Submit") and not service.of("Cancel")


def test_events_lost_on_the_way_are_had_again(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    service.happen(JOB, "Queued")
    service.happen(JOB, "Warned", "Warned", lose=True, message="lost, and no other follows: the next Pong tells")
    consumer.until(Happened, 3)
    service.happen(JOB, "Warned", lose=True, message="lost, and another follows: the gap tells")
    service.happen(JOB, "Warned", message="that other")
    consumer.until(Happened, 5)
    time.sleep(0.2)
    assert numbers(consumer) == [1, 2, 3, 4, 5]


def test_events_that_come_twice_are_handed_out_once(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    service.happen(JOB, "Queued", "Queued", "Queued")
    for event in service.jobs[JOB]:
        service.do(lambda event=event: service._to_watcher(JOB, event))
    service.happen(JOB, "Queued")
    consumer.until(Happened, 4)
    assert numbers(consumer) == [1, 2, 3, 4]


def test_watching_goes_on_after_the_last_event_through_losses_and_restarts(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    service.happen(JOB, "Queued", "Queued")
    consumer.until(Happened, 2)
    lose_connection(service, consumer)
    service.until(lambda: len(service.of("Watch")) == 2)
    assert service.of("Watch")[-1]["after"] == 2
    service.stop()
    service.happen(JOB, "Queued", lose=True)  # stored before the end, told to nobody
    again = start_service(jobs=service.jobs)
    again.until(lambda: JOB in again.watching)
    again.happen(JOB, "Queued")
    consumer.until(Happened, 4)
    assert numbers(consumer) == [1, 2, 3, 4] and again.of("Watch")[0]["after"] == 2


def test_watching_from_an_event_on_and_again_from_the_start(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.happen(JOB, "Queued", "Queued", "Queued", lose=True)
    consumer.client.watch(JOB, after=2)
    consumer.until(Happened)
    consumer.client.watch(JOB)
    consumer.until(Happened, 4)
    assert numbers(consumer) == [3, 1, 2, 3]


def test_a_consumer_that_does_not_look_bounds_what_waits_and_misses_nothing(
    start_service: Any, start_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_inbox, "MAX_HAPPENINGS", 10)
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    service.happen(JOB, *["Queued"] * 35)
    for step in range(50):
        service.progress(JOB, step)
    consumer.client.pause(JOB)
    service.until(lambda: service.of("Pause"))
    time.sleep(0.3)  # several Pongs
    assert len(service.of("Watch")) == 1, "nothing is asked for as long as there is no room"
    first = consumer.client.poll(1000)
    assert len([event for event in first if isinstance(event, Happened)]) == 10
    assert [event.progress.step for event in first if isinstance(event, ProgressMade)] == [49]
    consumer.told += first
    consumer.until(Happened, 35)
    assert numbers(consumer) == list(range(1, 36))


def test_a_job_that_the_service_does_not_know(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.client.follow(JOB)
    assert consumer.until(WatchRefused, job=JOB).refused.code == "unknown_job"
    lose_connection(service, consumer)
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert len(service.of("Watch")) == 1


@pytest.mark.parametrize(("job", "after"), [("../../etc/passwd", 0), (JOB, -1), (JOB, 2**60)])
def test_a_watch_that_cannot_be_sent(start_service: Any, start_client: Any, job: str, after: int) -> None:
    service, consumer = start_service(), start_client()
    consumer.client.watch(job, after)
    assert consumer.until(WatchRefused, job=job).refused.code == "invalid"
    assert not service.of("Watch")


def test_unwatching(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    service.happen(JOB, "Queued")
    service.progress(JOB, 1)
    consumer.until(ProgressMade)
    service.happen(JOB, "Queued")
    consumer.client.unwatch(JOB)
    service.until(lambda: service.of("Unwatch"))
    service.happen(JOB, "Queued")
    service.progress(JOB, 2)
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert numbers(consumer) in ([1], [1, 2]) and [event.progress.step for event in consumer.of(ProgressMade)] == [1]


def test_acknowledging_outlives_the_connection(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    watched(service, consumer)
    consumer.client.acknowledge(JOB, 3)
    consumer.client.acknowledge(JOB, 2)
    service.until(lambda: service.of("Acknowledge"))
    lose_connection(service, consumer)
    service.until(lambda: len(service.of("Acknowledge")) == 2)
    assert [message["number"] for message in service.of("Acknowledge")] == [3, 3]


# ---- snapshots


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
    lose_connection(service, consumer)
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


def test_prepare_runs_in_the_clients_thread_and_may_fail(start_service: Any, start_client: Any) -> None:
    threads = []

    def prepare(job: str, snapshot: SnapshotArrived) -> str:
        threads.append(threading.current_thread().name)
        if snapshot.serial == 1:
            raise ZeroDivisionError("a defect of the consumer")
        return f"{job[:3]} {snapshot.serial}"

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
    assert set(threads) == {"galatea-client"}


# ---- results and requests


def test_the_result_of_a_job_that_finished_while_nobody_was_there(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.happen(JOB, "Queued", lose=True)
    service.happen(JOB, "Finished", lose=True, step=9, seconds=1.0, vertices=4, faces=2)
    service.results[JOB] = [positions().tobytes(), FACES.tobytes()]
    consumer.client.watch(JOB)
    consumer.until(Happened, 2)
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert not service.of("Fetch"), "only a followed job's result is fetched unasked"
    consumer.client.follow(JOB)
    assert consumer.until(ResultArrived, job=JOB).mesh is not None
    consumer.client.fetch(JOB)
    consumer.until(ResultArrived, 2)
    assert len(service.of("Fetch")) == 2


def test_a_result_that_was_lost_is_fetched_again(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.silent_on = {"Fetch"}
    service.results[JOB] = [positions().tobytes(), FACES.tobytes()]
    consumer.client.fetch(JOB)
    service.until(lambda: service.of("Fetch"))
    service.silent_on = set()
    lose_connection(service, consumer)
    assert consumer.until(ResultArrived).mesh is not None


def test_a_result_that_is_refused_or_broken(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.client.fetch(JOB)
    assert consumer.until(ResultArrived).refused.code == "conflict"
    service.results[JOB] = [positions().tobytes(), (FACES + 2).tobytes()]
    consumer.client.fetch(JOB)
    assert "broken result. Face 0" in consumer.until(ResultArrived, 2).refused.message
    service.results[JOB] = [positions().tobytes()[:-12], FACES.tobytes()]
    consumer.client.fetch(JOB)
    assert "Face" in consumer.until(ResultArrived, 3).refused.message
    assert consumer.of(ConnectionChanged)[-1].state == "connected"


def test_each_request_travels_as_given_and_gets_its_answer(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.answers["Cancel"] = lambda message: {"type": "Refused", "request": message["request"], "code": "conflict", "message": "Over."}
    client = consumer.client
    sent = {
        "Steer": client.steer(JOB, prompt="a cup", strength=0.25),
        "Pause": client.pause(JOB),
        "Resume": client.resume(JOB),
        "Shutdown": client.shutdown(),
    }
    for kind, request in sent.items():
        consumer.until(Replied, request=request, refused=None)
        assert service.of(kind)[0]["request"] == request
    steer = service.of("Steer")[0]
    assert (steer["prompt"], steer["negative_prompt"], steer["strength"]) == ("a cup", None, 0.25)
    assert consumer.until(Replied, request=client.cancel(JOB)).refused.message == "Over."
    assert consumer.until(JobsListed, request=client.list_jobs(limit=5)).jobs == ()
    assert service.of("ListJobs")[0]["limit"] == 5


def test_a_request_that_cannot_be_sent_is_refused_here(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    for request in (
        consumer.client.steer(JOB, prompt="x" * 1001),
        consumer.client.steer(JOB, strength=float("nan")),
        consumer.client.pause("../../etc/passwd"),
        consumer.client.list_jobs(limit=0),
    ):
        assert consumer.until(Replied, request=request).refused.code == "invalid"
    assert not {"Steer", "Pause", "ListJobs"} & {message["type"] for message in service.heard}


def test_requests_are_sent_again_over_a_new_link_but_shutdown_is_not(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.silent_on = {"Cancel", "Shutdown"}
    cancel, shutdown = consumer.client.cancel(JOB), consumer.client.shutdown()
    service.until(lambda: service.of("Shutdown"))
    service.silent_on = set()
    lose_connection(service, consumer)
    consumer.until(Replied, request=cancel, refused=None)
    assert "broke off" in consumer.until(Replied, request=shutdown).refused.message
    assert [message["request"] for message in service.of("Cancel")] == [cancel, cancel] and len(service.of("Shutdown")) == 1


def test_what_is_refused_without_a_number_is_handed_on(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.send([msgpack.packb({"type": "Refused", "request": None, "code": "unknown_job", "message": "No such job."})])
    assert consumer.until(Replied, request=None).refused.message == "No such job."


def test_answers_to_nothing_are_dropped(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    for message in (
        {"type": "Done", "request": 999},
        {"type": "Jobs", "request": 999, "jobs": []},
        {"type": "Refused", "request": 999, "code": "internal", "message": "?"},
        {"type": "JobEvent", "job": JOB, "number": 1, "time": 0.0, "happening": {"type": "Queued"}},
        {"type": "Pong", "request": 999, "instance": service.instance, "last_events": {JOB: 7}},
    ):
        service.send([msgpack.packb(message)])
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert [type(event) for event in consumer.told if not isinstance(event, ConnectionChanged)] == [Replied]
    assert Queued() not in [happened.event.happening for happened in consumer.of(Happened)]
