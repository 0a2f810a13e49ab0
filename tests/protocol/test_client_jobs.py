"""Jobs through a real connection: what is announced arrives once and in order, whatever is lost or restarted."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from protocol import client_inbox, client_jobs
from protocol.client_events import (
    ConnectionChanged,
    Happened,
    ProgressMade,
    Replied,
    ResultArrived,
    Submitted,
    WatchRefused,
)
from protocol.losses import ReferenceSettings, RegionSettings
from protocol.mesh_codec import Mesh
from protocol.messages import Finished, JobRequest, Started
from protocol.picture_codec import Picture

JOB = "0123456789abcdef" * 2
GENERATE = JobRequest(command="generate", prompt="a mug")
REFINE = JobRequest(command="refine", prompt="a mug")
FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again for lost events without waiting."""
    monkeypatch.setattr("protocol.client_link.PING_SECONDS", 0.05)
    monkeypatch.setattr(client_jobs, "REWATCH_SECONDS", 0.05)


def positions() -> np.ndarray:
    return np.eye(4, 3, dtype=np.float32)


def mesh() -> Mesh:
    return Mesh(positions(), FACES, None)


def numbers(consumer: Any) -> list[int]:
    return [happened.event.number for happened in consumer.of(Happened)]


def watched(service: Any, consumer: Any) -> None:
    service.jobs.setdefault(JOB, [])
    consumer.client.watch(JOB)
    service.until(lambda: JOB in service.watching)


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
        (JobRequest("generate", "", references=(ReferenceSettings(azimuth=400),)), None, "1 references and 0 pictures"),
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


def test_pictures_and_masks_go_with_it_and_go_again(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    request = JobRequest("refine", "", references=(ReferenceSettings(azimuth=90),), regions=(RegionSettings("a lid"), RegionSettings()))
    pixels, masks = np.arange(16 * 17 * 4, dtype=np.uint8).reshape(16, 17, 4), np.eye(2, 4, dtype=np.float32)
    service.silent_on = {"Submit"}
    consumer.client.submit(request, mesh(), JOB, [Picture(pixels)], list(masks))
    service.until(lambda: service.of("Submit"))
    service.silent_on = set()
    service.break_link()
    consumer.until(Submitted, job=JOB, refused=None)
    first, again = service.of("Submit")
    for submit in (first, again):
        assert submit["pictures"] == [{"width": 17, "height": 16, "depth": False, "normals": False}]
        assert [region["prompt"] for region in submit["job_request"]["regions"]] == ["a lid", ""]
        assert submit["buffers"] == [positions().tobytes(), FACES.tobytes(), pixels.tobytes(), masks[0].tobytes(), masks[1].tobytes()]


@pytest.mark.parametrize(
    ("pictures", "masks", "words"),
    [
        ([Picture(np.zeros((16, 16, 4), np.uint8))], [], "1 regions and 0 masks"),
        ([Picture(np.zeros((15, 16, 4), np.uint8))], [np.ones(4)], "Picture 1: .*16 x 15 pixels"),
        ([Picture(np.zeros((16, 16, 4)))], [np.ones(4)], "float64"),
        ([Picture(np.zeros((16, 16, 4), np.uint8))], [np.ones(5)], "Region 1: .*4 vertices"),
        ([Picture(np.zeros((16, 16, 4), np.uint8))], [np.full(4, np.nan)], "Region 1: .*nan"),
    ],
)
def test_pictures_and_masks_that_cannot_be_sent(
    start_service: Any, start_client: Any, pictures: list[Picture], masks: list[np.ndarray], words: str
) -> None:
    service, consumer = start_service(), start_client()
    request = JobRequest("refine", "", references=(ReferenceSettings(),), regions=(RegionSettings(),))
    job = consumer.client.submit(request, mesh(), None, pictures, masks)
    assert re.search(words, consumer.until(Submitted, job=job).refused.message)
    assert not service.of("Submit")


def test_a_submission_without_an_answer_is_sent_again_under_the_same_id(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.silent_on = {"Submit"}
    consumer.client.submit(REFINE, mesh(), job=JOB)
    service.until(lambda: service.of("Submit"))
    early = consumer.client.pause(JOB)
    consumer.until(Replied, request=consumer.client.pause("f" * 32))
    assert early not in [message["request"] for message in service.of("Pause")], "the service may not have the job yet"
    service.silent_on = set()
    service.break_link()
    consumer.until(Submitted, refused=None)
    consumer.until(Replied, request=early, refused=None)
    first, second = service.of("Submit")
    assert (first["job"], first["mesh"], first["buffers"]) == (second["job"], second["mesh"], second["buffers"])
    service.break_link()
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
    service.break_link()
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
    service.break_link()
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
    service.break_link()
    service.until(lambda: len(service.of("Acknowledge")) == 2)
    assert [message["number"] for message in service.of("Acknowledge")] == [3, 3]
