"""Results and requests: each gets one answer, over as many connections as it takes."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from protocol.client_events import ConnectionChanged, Happened, JobsListed, Replied, ResultArrived
from protocol.messages import Queued

JOB = "0123456789abcdef" * 2
FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)


def positions() -> np.ndarray:
    return np.eye(4, 3, dtype=np.float32)


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
    service.break_link()
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
    service.break_link()
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
