"""What the panel is told of a job and the connection, from what a client tells."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from tests.blender.extension_parts import part
from tests.blender.scripted_link import JOB, OTHER, Mesh, NotebookScene, ScriptedClient, events, m

live_job = part("live_job")
session_module = part("session")
pump = part("pump")

RESULT = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))


@pytest.fixture
def scene(tmp_path: Path) -> NotebookScene:
    return NotebookScene(tmp_path)


@pytest.fixture
def session(scene: NotebookScene):
    made = session_module.Session("a test", scene, ScriptedClient)
    made.connect(scene.where)
    yield made
    made.close()


def submit(session, job: str = JOB, **fields):
    session.scene.previews.add(job)
    request = m.JobRequest(**({"command": "generate", "prompt": "a red mug", "steps": 40} | fields))
    return session.submit(job, request, None, "where")


def turn(session, now: float = 0.0) -> float:
    return pump.turn(session, now)


def progress(job: str = JOB, **fields):
    usual = {"state": "running", "what": "optimizing the mesh", "step": 10, "total": 40, "stage": 1, "seconds_left": 30.0}
    rest = {"step_seconds": 0.5, "memory_megabytes": 812.4}
    return events.ProgressMade(m.Progress(job=job, **(usual | rest | fields)))


@pytest.mark.parametrize(
    ("ours", "real"), [(ScriptedClient, part("protocol.client").Client), (NotebookScene, session_module.Scene)]
)
def test_the_doubles_have_the_signatures_of_the_real_ones(ours: type, real: type) -> None:
    """Every method of the real one that the session calls exists here, with the same parameters."""
    used = [name for name in vars(ours) if name in vars(real) and not name.startswith("_")]
    assert len(used) >= 6
    for name in used:
        theirs = inspect.signature(getattr(real, name)).parameters
        mine = inspect.signature(getattr(ours, name)).parameters
        assert [(p.name, p.kind) for p in mine.values()] == [(p.name, p.kind) for p in theirs.values()], name


def test_a_job_from_sending_to_its_result(session) -> None:
    live = submit(session)
    client = session.client
    assert [words[0] for words in client.said[1:]] == ["submit", "follow"]
    assert live.headline() == "Sending to the service"
    client.tell(events.Submitted(JOB, None))
    client.happen(m.Queued())
    turn(session)
    assert (live.phase, live.headline()) == ("queued", "Waiting for its turn")

    client.happen(m.Started(step=0, device="cpu"), first=2)
    client.tell(progress())
    turn(session, 5.0)
    assert live.headline() == "Optimizing the mesh" and live.fraction() == 0.25
    assert live.progress_text() == "10 of 40, 30 s left"
    assert live.age_text(7.0) == "Update 2 s ago, 812 MB on cpu"
    assert not live.silent(7.0) and live.silent(60.0)

    client.happen(m.Finished(step=40, seconds=20.0, vertices=3, faces=1), first=3)
    client.tell(progress(step=39))
    turn(session)
    assert (live.phase, live.headline()) == ("finished", "Finished: fetching the result")
    client.result(RESULT)
    turn(session)
    assert live.result is RESULT and live.headline() == "Finished"
    assert session.scene.applied[-1] == (JOB, ("where", "result"))
    assert [words[2] for words in client.asked("acknowledge")] == [1, 2, 3]
    assert not session.is_live()


def test_a_result_that_could_not_be_made_ready_is_told_and_kept(session) -> None:
    live = submit(session)
    session.client.tell(events.ResultArrived(JOB, RESULT, None, None, ValueError("no room")))
    turn(session)
    assert live.result is RESULT and live.problem == "The result could not be shown: no room"
    assert session.scene.applied == []


def test_pauses_failures_and_cancelled_jobs_are_told_apart(session) -> None:
    live = submit(session)
    steps = [
        (m.Started(step=0, device="cpu"), "running", ""),
        (m.Paused(step=3), "paused", ""),
        (m.Resumed(step=3), "running", ""),
        (m.Failed(code="worker", message="The worker was killed.", resumable=True), "failed", "The worker was killed."),
        (m.Started(step=2, device="cpu"), "running", ""),
        (m.Cancelled(step=5, resumable=True), "cancelled", ""),
    ]
    for number, (happening, phase, problem) in enumerate(steps, 1):
        session.client.happen(happening, first=number)
        turn(session)
        assert (live.phase, live.problem) == (phase, problem)
        assert live.ended == (phase in ("failed", "cancelled"))
    assert live.resumable and live.step == 5


def test_refusals_are_told_where_they_belong(session) -> None:
    live, other = submit(session), submit(session, OTHER)
    client = session.client
    refused = m.Refused(request=1, code="input", message="I do not know the word xylophone.")
    client.tell(events.Submitted(OTHER, refused))
    turn(session)
    assert (other.phase, other.problem) == ("refused", refused.message) and live.problem == ""

    session.ask(JOB, "pause")
    number = len(client.said)
    client.tell(events.Replied(number, m.Refused(request=number, code="conflict", message="It has ended.")))
    turn(session)
    assert live.problem == "Pause was not done: It has ended." and session.problem == ""
    session.ask(JOB, "resume")
    assert live.problem == "", "a new attempt"

    client.tell(events.Replied(None, m.Refused(request=None, code="invalid", message="That was no message.")))
    turn(session)
    assert session.problem == "That was no message."
    client.tell(events.ConnectionChanged("connected", "", None))
    turn(session)
    assert session.problem == ""


def test_an_answer_for_a_job_that_was_let_go_disturbs_nobody(session) -> None:
    submit(session)
    session.ask(JOB, "cancel")
    number = len(session.client.said)
    session.forget(JOB)
    session.client.tell(
        events.Replied(number, m.Refused(request=number, code="conflict", message="It has ended.")),
        events.Submitted(JOB, None),
        progress(),
        events.ResultArrived(JOB, RESULT),
    )
    session.client.snapshot(3)
    turn(session)
    assert session.problem == "" and not session.jobs and session.scene.applied == []


def test_a_slider_is_sent_once_when_it_rests(session) -> None:
    live = submit(session, strength=0.5)
    for tenth in range(10):
        live.want_strength(0.5 + 0.04 * tenth, now=tenth / 10)
        turn(session, tenth / 10)
    assert session.client.asked("steer") == []
    turn(session, 0.9 + live_job.STEER_DELAY + 0.01)
    turn(session, 5.0)
    assert session.client.asked("steer") == [("steer", JOB, None, None, pytest.approx(0.86))]
    live.want_strength(live.strength, now=6.0)
    turn(session, 7.0)
    assert len(session.client.asked("steer")) == 1, "nothing changed"


def test_another_file_takes_up_its_own_jobs(session) -> None:
    submit(session)
    session.client.said.clear()
    session.settle({OTHER: "elsewhere"})
    assert list(session.jobs) == [OTHER]
    assert ("unwatch", JOB) in session.client.said and ("unfollow", JOB) in session.client.said
    assert ("watch", OTHER) in session.client.said and ("follow", OTHER) in session.client.said
    summary = m.JobSummary(OTHER, "running", "refine", "a blue mug", 5, 40, 0.0, 2)
    session.client.tell(events.JobsListed(1, (summary,)))
    turn(session)
    live = session.jobs[OTHER]
    assert (live.prompt, live.phase, live.total) == ("a blue mug", "running", 40)


def test_a_change_of_folder_closes_the_old_client_and_keeps_the_jobs(session, tmp_path: Path) -> None:
    submit(session)
    first = session.client
    assert session.connect(session.scene.where) is first
    second = session.connect(tmp_path / "other")
    assert first.closed and second is not first
    assert ("watch", JOB) in second.said and ("follow", JOB) in second.said


def test_previews_of_unknown_jobs_are_taken_up_when_connecting(tmp_path: Path) -> None:
    made = session_module.Session("a test", NotebookScene(tmp_path, [JOB]), ScriptedClient)
    made.connect(tmp_path)
    assert list(made.jobs) == [JOB] and ("follow", JOB) in made.client.said
    made.client.snapshot(7)
    turn(made)
    assert made.scene.applied == [(JOB, ("placement of a", 7))]
    made.close()


def test_the_preview_of_a_job_that_was_taken_is_none_any_more(session) -> None:
    submit(session)
    submit(session, OTHER)
    session.taken.add(JOB)
    session.forget(JOB)
    session.forget(OTHER)
    session.take_up_strays()
    assert session.scene.previews == {OTHER} and list(session.jobs) == [OTHER]


def test_durations_as_people_say_them() -> None:
    said = [live_job.duration(seconds) for seconds in (-3, 0.4, 42, 99, 100, 3599, 8040)]
    assert said == ["0 s", "0 s", "42 s", "99 s", "2 min", "1 h 0 min", "2 h 14 min"]
