"""The pump keeps to its budget, drops what is old, and survives everything: with a client and a scene that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blender.extension_parts import part
from tests.blender.scripted_link import JOB, OTHER, NotebookScene, ScriptedClient, events, m

pump = part("pump")
session_module = part("session")
SceneError = part("bridge.errors").SceneError


class Clock:
    """Time that only passes when somebody works."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(tmp_path: Path):
    made = session_module.Session("a test", NotebookScene(tmp_path, [JOB]), ScriptedClient)
    made.connect(tmp_path)
    made.submit(JOB, m.JobRequest(command="generate", prompt="a red mug"), None, "where")
    made.client.said.clear()
    yield made
    made.close()


def costing(clock: Clock, seconds: float, function: Callable) -> Callable:
    """The function, at a price."""

    def wrapped(*arguments):
        clock.seconds += seconds
        return function(*arguments)

    return wrapped


def shown(session) -> list[object]:
    return [prepared for _, prepared in session.scene.applied]


def test_the_newest_frame_wins_and_the_next_is_asked_for_after_it_is_shown(session) -> None:
    for step in (1, 2, 3):
        session.client.snapshot(step)
    pump.turn(session, 0.0)
    assert shown(session) == [("where", 3)]
    assert session.client.asked("applied") == [("applied", JOB)], "one credit for one frame"
    pump.turn(session, 0.1)
    assert len(shown(session)) == 1 and len(session.client.asked("applied")) == 1


def test_a_flood_is_taken_in_small_portions(session, clock: Clock) -> None:
    progress = m.Progress(
        job=JOB, state="running", what="x", step=1, total=9, stage=0, seconds_left=None, step_seconds=0.1, memory_megabytes=1.0
    )
    taken = []

    def poll(limit: int) -> list:
        clock.seconds += 0.001
        taken.append(limit)
        return [events.ProgressMade(progress)] * limit

    session.client.poll = poll
    for turn in range(5):
        begin = clock.seconds
        pump.turn(session, turn / 30, clock)
        assert clock.seconds - begin <= pump.BUDGET
    assert len(taken) >= 5


def test_frames_of_several_jobs_share_the_budget_in_turn(session, clock: Clock) -> None:
    session.scene.previews.add(OTHER)
    session.submit(OTHER, m.JobRequest(command="generate", prompt="a blue mug"), None, "there")
    session.scene.apply = costing(clock, 0.02, session.scene.apply)
    order = []
    for turn in range(6):
        session.client.snapshot(2 * turn)
        session.client.snapshot(2 * turn + 1, job=OTHER)
        before = len(session.scene.applied)
        pump.turn(session, turn / 30, clock)
        assert len(session.scene.applied) == before + 1, "one costly frame a turn"
        order.append(session.scene.applied[-1][0])
    assert order in ([JOB, OTHER] * 3, [OTHER, JOB] * 3)


def test_a_large_new_topology_comes_once_a_second_and_others_at_once(session) -> None:
    times = []
    for tenth in range(30):
        now = tenth / 10
        session.client.snapshot(tenth, vertices=pump.LARGE + 1, faces_are_new=True)
        before = len(session.scene.applied)
        pump.turn(session, now)
        times += [now] * (len(session.scene.applied) - before)
    assert times == [0.0, 1.0, 2.0]

    before = len(session.scene.applied)
    for tenth in range(30, 35):
        session.client.snapshot(tenth, vertices=pump.LARGE, faces_are_new=True)
        pump.turn(session, tenth / 10)
        session.client.snapshot(tenth, vertices=10 * pump.LARGE, faces_are_new=False)
        pump.turn(session, tenth / 10 + 0.05)
    assert len(session.scene.applied) == before + 10


def test_faces_that_were_never_shown_stay_new(session) -> None:
    """A frame with the same faces as a frame that was skipped still costs a rebuild, and waits like one."""
    session.client.snapshot(1, vertices=pump.LARGE + 1, faces_are_new=True)
    pump.turn(session, 0.0)
    session.client.snapshot(2, vertices=pump.LARGE + 1, faces_are_new=True)
    session.client.snapshot(3, vertices=pump.LARGE + 1, faces_are_new=False)
    pump.turn(session, 0.5)
    assert shown(session) == [("where", 1)]
    pump.turn(session, 1.1)
    assert shown(session) == [("where", 1), ("where", 3)]


def test_what_stands_in_the_way_is_told_and_tried_again(session) -> None:
    live = session.jobs[JOB]
    session.scene.trouble = SceneError("It is in Edit Mode.")
    session.client.snapshot(5)
    for turn in range(10):
        pump.turn(session, turn / 30)
    assert live.obstacle == "It is in Edit Mode." and live.frame is not None
    assert session.client.asked("applied") == [], "no next frame before this one"
    session.scene.trouble = None
    pump.turn(session, 2.0)
    assert live.obstacle == "" and shown(session) == [("where", 5)]


def test_a_deleted_preview_lets_go_of_the_frames(session) -> None:
    live = session.jobs[JOB]
    session.scene.previews.clear()
    session.client.snapshot(5)
    pump.turn(session, 0.0)
    assert not live.has_preview and session.client.asked("unfollow") == [("unfollow", JOB)]

    session.scene.previews.add(JOB)
    session.show_again()
    pump.turn(session, 0.1)
    assert live.has_preview and shown(session) == [("where", 5)]
    assert ("follow", JOB) in session.client.said


def test_defects_are_told_once_and_do_not_stop_it(session, capsys: pytest.CaptureFixture[str]) -> None:
    session.scene.trouble = ZeroDivisionError("a defect")
    for step in range(3):
        session.client.snapshot(step)
        pump.turn(session, step)
    assert len(session.client.asked("applied")) == 3, "the next frame may be better"
    assert "a defect" in session.jobs[JOB].problem and "a defect" in session.problem
    assert capsys.readouterr().err.count("Traceback") == 1

    session.scene.trouble = None
    session.client.snapshot(9)
    pump.turn(session, 9.0)
    assert shown(session) == [("where", 9)]


@pytest.mark.parametrize("broken", ["client.poll", "client.applied", "client.steer", "scene.refresh", "scene.folder"])
def test_nothing_that_breaks_keeps_it_from_coming_back(session, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*arguments, **keywords):
        raise OSError("broken")

    owner, method = broken.split(".")
    setattr(getattr(session, owner), method, fail)
    session.wanted = True
    session.jobs[JOB].want_strength(0.9, -9.0)
    session.client.snapshot(1)
    assert 0 < pump.turn(session, 0.0) <= 1.0
    assert "broken" in session.problem and "broken" in capsys.readouterr().err


def test_it_draws_only_what_has_changed(session) -> None:
    pump.turn(session, 0.0)
    session.client.happen(m.Started(step=0, device="cpu"))
    pump.turn(session, 0.0)
    count = session.scene.refreshed
    for turn in range(1, 10):
        pump.turn(session, turn / 30)
    assert session.scene.refreshed == count, "nothing to show"
    pump.turn(session, 1.2)
    assert session.scene.refreshed == count + 1, "the age of the last update is another"


def test_it_comes_seldom_when_nothing_goes_on(session) -> None:
    assert pump.turn(session, 0.0) == pytest.approx(1 / 30)
    session.client.happen(m.Started(step=0, device="cpu"), m.Finished(step=9, seconds=1.0, vertices=3, faces=1))
    assert pump.turn(session, 0.1) >= 0.25
    session.forget(JOB)
    assert pump.turn(session, 0.2) == 1.0


def test_undo_shows_the_newest_frame_again(session) -> None:
    session.client.snapshot(4)
    pump.turn(session, 0.0)
    session.show_again()
    pump.turn(session, 0.1)
    assert shown(session) == [("where", 4), ("where", 4)]
