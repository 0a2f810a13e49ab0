"""The life of jobs as clients see it: a real service, a real worker and the shipped client, with few steps."""

from __future__ import annotations

import secrets
import time

import numpy as np
import psutil
import pytest
import zmq
from msgspec.structs import replace

from protocol.codec import encode
from protocol.mesh_codec import Mesh, mesh_frames
from protocol.messages import (
    Accepted,
    Acknowledge,
    Cancel,
    Cancelled,
    Failed,
    Fetch,
    Finished,
    Grant,
    JobRequest,
    ListJobs,
    MeshHeader,
    Paused,
    Ping,
    Pong,
    Queued,
    Refused,
    Resumed,
    Snapshot,
    Started,
    Steered,
    Submit,
    Warned,
    Watch,
)

REFINE = JobRequest("refine", "a red mug", steps=14)
LONG = JobRequest("refine", "a red mug", steps=100_000)


def kinds(watcher, job: str) -> list[str]:
    return [type(event.happening).__name__ for event in watcher.events(job)]


@pytest.fixture
def ready(service):
    service.wait_until_ready()


@pytest.fixture
def long_job(ready, watcher, ball):
    """A job that goes on until the test has ended."""
    job = watcher.submitted(LONG, ball)
    watcher.happened(job, Started)
    yield job
    watcher.reply(watcher.cancel(job))  # refused if the test has done so


def test_refine_from_submission_to_result(ready, watcher, ball) -> None:
    job = watcher.submitted(REFINE, ball)
    finished = watcher.happened(job, Finished)
    result = watcher.result(job)
    assert kinds(watcher, job) == ["Queued", "Started", "Finished"]
    assert finished == Finished(14, finished.seconds, len(ball.positions), len(ball.faces))
    assert np.array_equal(result.faces, ball.faces) and not np.array_equal(result.positions, ball.positions)
    assert result.colors is not None and np.isfinite(result.positions).all()
    steps = [snapshot.step for snapshot in watcher.snapshots]
    assert steps[0] == 1 and steps == sorted(set(steps))
    assert {snapshot.topology for snapshot in watcher.snapshots} == {0}
    serials = [snapshot.serial for snapshot in watcher.snapshots]
    assert serials == sorted(set(serials))
    assert watcher.snapshots[0].mesh.positions.shape == ball.positions.shape
    assert watcher.reply(watcher.cancel(job)).code == watcher.reply(watcher.resume(job)).code == "conflict"
    assert watcher.reply(watcher.steer(job, prompt="a blue mug")).code == "conflict"


def test_generate_gives_each_topology_a_number(ready, watcher) -> None:
    job = watcher.submitted(JobRequest("generate", "a red mushroom", steps=8))
    watcher.result(job)
    faces: dict[int, np.ndarray] = {}
    for snapshot in watcher.snapshots:
        assert snapshot.topology > 0
        assert np.array_equal(faces.setdefault(snapshot.topology, snapshot.mesh.faces), snapshot.mesh.faces)


def test_faces_that_the_client_has_are_left_out(ready, raw, watcher, long_job, ball) -> None:
    client = raw().hello()
    client.hand(Grant(long_job))
    first = client.hear(bulk=True)
    assert isinstance(first, Snapshot) and (first.topology, first.mesh.faces) == (0, len(ball.faces))
    for topology, faces in ((0, 0), (7, len(ball.faces)), (-1, len(ball.faces))):
        client.hand(Grant(long_job, first.serial, topology))
        then = client.hear(bulk=True)
        assert (then.topology, then.mesh.faces) == (0, faces) and then.serial > first.serial and then.step > first.step
        first = then
    client.hand(Grant("0" * 32))
    assert client.hear(bulk=True).code == "unknown_job"


def test_the_same_submission_makes_one_job(ready, raw, ball) -> None:
    client, job = raw().hello(), secrets.token_hex(16)
    header, buffers = mesh_frames(ball)
    other_header, other_buffers = mesh_frames(Mesh(ball.positions * 0.5, ball.faces))
    for number in (1, 2):
        client.hand(Submit(number, job, REFINE, header), buffers)
        assert client.answer(number, bulk=True) == Accepted(number, job)
    client.hand(Submit(3, job, JobRequest("refine", "a blue mug"), header), buffers)
    assert client.answer(3, bulk=True).code == "conflict"
    client.hand(Submit(4, job, REFINE, other_header), other_buffers)
    assert client.answer(4, bulk=True).code == "conflict"
    client.tell(Watch(5, job))
    assert [type(client.hear().happening), type(client.hear()).__name__] in ([Queued, "Done"], [Queued, "JobEvent"])
    client.hand(Fetch(6, job))
    assert client.answer(6, bulk=True).code == "conflict"


@pytest.mark.parametrize(
    ("request_", "with_mesh", "said"),
    [
        (JobRequest("refine", "a mug"), False, "a mesh is needed"),
        (JobRequest("generate", "a mug"), True, "no mesh is used"),
        (JobRequest("generate", "a mug", prior="/etc"), False, "offers no prior '/etc'"),
        (JobRequest("generate", "a mug", recipe="../secret"), False, "There is no recipe"),
        (JobRequest("refine", "a mug", recipe="generate"), True, "topology"),
        (JobRequest("generate", "a mug", steps=1), False, "steps"),
        (JobRequest("generate", "   "), False, "The prompt is empty"),
    ],
)
def test_what_cannot_be_a_job_is_refused_at_once(raw, ball, request_, with_mesh, said) -> None:
    client = raw().hello()
    header, buffers = mesh_frames(ball) if with_mesh else (None, [])
    job = secrets.token_hex(16)
    client.hand(Submit(1, job, request_, header), buffers)
    refused = client.hear(bulk=True)
    assert isinstance(refused, Refused) and (refused.request, refused.code) == (1, "input") and said in refused.message
    client.tell(Watch(2, job))
    assert client.hear().code == "unknown_job"


def test_broken_meshes_are_refused_at_once(raw, ball, service) -> None:
    client = raw().hello()
    before = len(list((service.folder / "jobs").iterdir()))
    header, (positions, faces) = mesh_frames(ball)
    nan, far, wrong = (np.array(array) for array in (ball.positions, ball.positions, ball.faces))
    nan[7, 1], far[7, 1], wrong[3, 2] = np.nan, np.inf, 66
    broken = [
        (header, [memoryview(nan), faces]),
        (header, [memoryview(far), faces]),
        (header, [positions, memoryview(wrong)]),
        (header, [positions]),
        (header, [faces, positions]),
        (MeshHeader(2_000_000, 4_000_000, True), [positions, faces, positions]),
    ]
    for number, (said, buffers) in enumerate(broken):
        client.hand(Submit(number, secrets.token_hex(16), REFINE, said), buffers)
        refused = client.hear(bulk=True)
        assert isinstance(refused, Refused) and refused.request == number
        assert refused.code == "invalid" and len(refused.message) > 20
    assert len(list((service.folder / "jobs").iterdir())) == before


def test_a_mesh_that_the_views_would_cut_off_is_refused(raw, ball) -> None:
    client = raw().hello()
    largest = np.linalg.norm(ball.positions, axis=1).max()
    for number, (radius, expected) in enumerate([(5.0, Refused), (1.02, Refused), (1.0, Accepted)]):
        header, buffers = mesh_frames(Mesh(ball.positions * np.float32(radius / largest), ball.faces))
        job = secrets.token_hex(16)
        client.hand(Submit(number, job, REFINE, header), buffers)
        answer = client.answer(number, bulk=True)
        assert isinstance(answer, expected)
        assert expected is Accepted or (answer.code == "input" and "unit sphere" in answer.message)
    client.tell(Cancel(99, job))


def test_a_waiting_job_steered_to_unknown_words_says_what_it_goes_on_with(ready, watcher, long_job, ball) -> None:
    second = watcher.submitted(JobRequest("refine", "a red mug", steps=3), ball)
    watcher.happened(second, Queued)
    assert watcher.reply(watcher.steer(second, prompt="a qwertz", strength=0.7)) is None
    assert watcher.reply(watcher.cancel(long_job)) is None
    watcher.result(second)
    happened = [event.happening for event in watcher.events(second)]
    assert [type(one).__name__ for one in happened] == ["Queued", "Steered", "Started", "Warned", "Steered", "Finished"]
    assert "qwertz" in happened[3].message
    assert (happened[4].step, happened[4].prompt, happened[4].strength) == (0, "a red mug", 0.7)


def test_words_that_the_prior_does_not_know_fail_the_job(ready, watcher, ball) -> None:
    job = watcher.submitted(JobRequest("refine", "a zyzzyva", steps=5), ball)
    failed = watcher.happened(job, Failed)
    assert failed.code == "input" and "zyzzyva" in failed.message and not failed.resumable
    assert kinds(watcher, job) == ["Queued", "Failed"], "it was never started"


def test_a_mesh_without_area_fails_the_job_with_the_reason(ready, watcher, ball) -> None:
    on_a_line = np.array(ball.positions) * np.float32([1.0, 0.0, 0.0])
    job = watcher.submitted(REFINE, Mesh(on_a_line, ball.faces))
    failed = watcher.happened(job, Failed)
    assert failed.code == "input" and "no area" in failed.message


def test_pause_holds_and_resume_goes_on(ready, watcher, long_job) -> None:
    watcher.reached(long_job, 3)
    assert watcher.reply(watcher.pause(long_job)) is None
    paused = watcher.happened(long_job, Paused)
    time.sleep(0.5)
    watcher.look()
    assert watcher.step(long_job) == paused.step
    assert watcher.wait(lambda: [one for one in watcher.snapshots if one.step == paused.step]), "the object as it was paused"
    count = len(watcher.snapshots)
    time.sleep(0.3)
    watcher.look()
    assert len(watcher.snapshots) == count, "nothing newer exists"
    assert watcher.reply(watcher.pause(long_job)) is None and kinds(watcher, long_job).count("Paused") == 1
    assert watcher.reply(watcher.resume(long_job)) is None
    assert watcher.happened(long_job, Resumed).step == paused.step
    watcher.reached(long_job, paused.step + 2)


def test_steering_is_tried_before_it_is_promised(ready, watcher, long_job) -> None:
    assert watcher.reply(watcher.steer(long_job, prompt="a blue mug", strength=0.75)) is None
    steered = watcher.happened(long_job, Steered)
    assert (steered.prompt, steered.negative_prompt, steered.strength) == ("a blue mug", "", 0.75)
    refused = watcher.reply(watcher.steer(long_job, prompt="a zyzzyva"))
    assert refused.code == "input" and "zyzzyva" in refused.message
    assert watcher.reply(watcher.steer(long_job, prompt="  ")).code == "input"
    step = watcher.step(long_job)
    watcher.reached(long_job, step + 2)
    assert watcher.reply(watcher.pause(long_job)) is None
    assert watcher.reply(watcher.steer(long_job, strength=0.0)) is None
    steered = watcher.happened(long_job, Steered, times=2)
    assert (steered.prompt, steered.strength) == ("a blue mug", 0.0)
    assert watcher.reply(watcher.resume(long_job)) is None


def test_strength_from_a_steer_stops_the_vertices(ready, watcher, long_job) -> None:
    """The loop really takes it up: from then on positions stay bit for bit, and colors go on."""
    watcher.reply(watcher.steer(long_job, strength=0.2))
    steered = watcher.happened(long_job, Steered)
    later = lambda: [one for one in watcher.snapshots if one.step > steered.step + 1]  # noqa: E731
    watcher.wait(lambda: len(later()) >= 2)
    first, last = later()[0].mesh, later()[-1].mesh
    assert np.array_equal(first.positions, last.positions) and not np.array_equal(first.colors, last.colors)


def test_strength_zero_brings_the_mesh_back_as_it_was_and_says_so(ready, watcher, ball) -> None:
    job = watcher.submitted(replace(REFINE, strength=0.0), ball)
    back = watcher.result(job)
    assert back.positions.tobytes() == ball.positions.tobytes() and back.faces.tobytes() == ball.faces.tobytes()
    assert (back.colors is None) == (ball.colors is None) and (ball.colors is None or back.colors.tobytes() == ball.colors.tobytes())
    finished = watcher.happened(job, Finished)
    assert finished.step == 0 and "strength 0" in watcher.happened(job, Warned).message


def test_a_queued_job_can_be_steered_paused_and_cancelled(ready, watcher, long_job, ball) -> None:
    second = watcher.submitted(REFINE, ball)
    watcher.happened(second, Queued)
    assert watcher.reply(watcher.steer(second, prompt="a green mug")) is None
    assert watcher.happened(second, Steered).prompt == "a green mug"
    assert watcher.reply(watcher.pause(second)) is None
    assert watcher.reply(watcher.resume(second)) is None
    assert watcher.reply(watcher.cancel(second)) is None
    assert watcher.happened(second, Cancelled) == Cancelled(0, False)
    assert kinds(watcher, second) == ["Queued", "Steered", "Paused", "Queued", "Cancelled"]
    assert watcher.reply(watcher.cancel(second)) is None and len(watcher.events(second)) == 5


def test_a_paused_job_makes_room_and_comes_back(ready, watcher, long_job, ball) -> None:
    watcher.reached(long_job, 2)
    assert watcher.reply(watcher.pause(long_job)) is None
    second = watcher.submitted(JobRequest("refine", "a green mug", steps=3), ball)
    watcher.result(second)
    listed = watcher.list_jobs(5)
    jobs = watcher.wait(lambda: [one for one in watcher.said if getattr(one, "request", None) == listed and hasattr(one, "jobs")])[0].jobs
    states = {one.job: one.state for one in jobs}
    assert (states[long_job], states[second]) == ("paused", "finished") and jobs[0].job == second
    paused = watcher.happened(long_job, Paused)
    assert watcher.reply(watcher.resume(long_job)) is None
    assert watcher.happened(long_job, Started, times=2).step >= paused.step


def test_a_job_paused_before_its_first_step_stays_paused_when_it_makes_room(ready, watcher, ball) -> None:
    """Making room takes a step to save; that is no start."""
    first = watcher.submitted(LONG, ball)
    assert watcher.reply(watcher.pause(first)) is None
    second = watcher.submitted(JobRequest("refine", "a green mug", steps=3), ball)
    watcher.result(second)
    assert kinds(watcher, first)[-1] == "Paused"
    assert watcher.reply(watcher.resume(first)) is None
    watcher.reached(first, 3)
    assert watcher.reply(watcher.cancel(first)) is None


def test_a_stalled_client_holds_nobody_up(ready, raw, service, watcher, ball) -> None:
    """It watches, grants credit again and again, and reads nothing; another one gets everything."""
    stalled = raw().hello()
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    job = watcher.submitted(JobRequest("refine", "a red mug", steps=30), ball)
    stalled.tell(Watch(1, job))
    granted = 0
    while not any(isinstance(event.happening, Finished) for event in watcher.events(job)):
        for line, message in ((stalled.bulk, Grant(job)), (stalled.control, Watch(2, job)), (stalled.control, Ping(3))):
            try:
                line.send_multipart(encode(message), zmq.NOBLOCK)
                granted += 1
            except zmq.Again:
                pass
        time.sleep(0.001)
    watcher.result(job)
    assert granted > 1000
    assert len({snapshot.step for snapshot in watcher.snapshots}) > 10
    assert process.memory_info().rss - before < 60e6
    fresh = raw().hello()
    fresh.tell(Ping(1))
    assert isinstance(fresh.hear(), Pong)


def test_an_end_that_was_not_heard_is_heard_after_connecting_again(ready, raw, watcher, ball) -> None:
    job = watcher.submitted(JobRequest("refine", "a red mug", steps=3), ball)
    client = raw().hello()
    client.tell(Watch(1, job))
    client.close()
    watcher.result(job)
    again = raw(session=client.session).hello()
    again.tell(Watch(1, job))
    numbers = []
    while (heard := again.hear()) is not None and hasattr(heard, "number"):
        numbers.append(heard.number)
    assert numbers == list(range(1, len(watcher.events(job)) + 1))
    again.tell(Acknowledge(job, numbers[-1]))
    again.tell(Ping(2))
    assert again.answer(2).last_events == {job: numbers[-1]}


def test_of_many_long_prompts_as_many_are_listed_as_fit(raw) -> None:
    client, jobs = raw().hello(), [secrets.token_hex(16) for _ in range(20)]
    for number, job in enumerate(jobs, 1):
        client.hand(Submit(number, job, JobRequest("generate", "\N{MUSHROOM}" * 1000)))
        assert client.answer(number, bulk=True) == Accepted(number, job)
    client.tell(ListJobs(30, 20))
    listed = client.answer(30).jobs
    assert 15 <= len(listed) < 20, "65,536 bytes hold 15 prompts of 4,000 bytes, with room to spare"
    assert [one.job for one in listed] == jobs[::-1][: len(listed)]
    assert {one.prompt for one in listed} == {"\N{MUSHROOM}" * 1000}
    client.tell(ListJobs(31, 3))
    assert [one.job for one in client.answer(31).jobs] == jobs[:-4:-1]
