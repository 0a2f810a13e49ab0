"""Brings what the client has received into the scene, a little at a time: `pump(now)` on Blender's main thread.

It never blocks, survives everything, and stops soon after its budget; only a single frame can take longer than that,
and large new topologies come at most once a second. No bpy: timers do not fire in background mode, where tests call it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from .bridge.errors import SceneError
from .live_job import LiveJob
from .session import NoPreview, Session, current

BUDGET = 0.008
"""Seconds of the main thread for one call."""
BATCH = 16
"""Events taken from the client at once."""
LARGE = 20_000
"""Vertices beyond which a new topology costs a noticeable moment."""
LARGE_EVERY = 1.0
TRY_AGAIN = 0.5
"""Seconds until a frame that could not be shown is tried again."""

BUSY, WAITING, IDLE = 1 / 30, 0.25, 1.0
"""Seconds to the next call: a job is live; something is about to change; nothing is."""


def pump(now: float) -> float:
    """One turn at time `now`, in seconds on a clock that never goes back; returns the seconds until the next is due."""
    return turn(current(), now)


def turn(session: Session, now: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """`pump` for a given session. Whatever goes wrong is told in the panel and on the console once, and the next turn comes."""
    begin = clock()

    def left() -> float:
        return BUDGET - (clock() - begin)

    try:
        take_events(session, now, lambda: left() > BUDGET / 2)
        session.send_due_steering(now)
        show_frames(session, now, lambda: left() > 0)
        session.look_around(now)
    except Exception as error:
        report(session, error)
    try:
        redraw_if_needed(session, now)
    except Exception as error:
        report(session, error)
    if session.is_live():
        return BUSY
    return IDLE if session.connected or not session.wanted else WAITING


def take_events(session: Session, now: float, may_go_on: Callable[[], bool]) -> None:
    """Takes at least one batch."""
    while session.client is not None:
        events = session.client.poll(BATCH)
        for event in events:
            try:
                session.take(event, now)
            except Exception as error:
                report(session, error)
        if len(events) < BATCH or not may_go_on():
            return


def show_frames(session: Session, now: float, may_go_on: Callable[[], bool]) -> None:
    """Shows at least one frame if there is one; the job that has waited longest comes first."""
    waiting = [live for live in session.jobs.values() if live.frame is not None and is_due(live, now)]
    for live in sorted(waiting, key=lambda live: live.shown_at):
        show(session, live, now)
        if not may_go_on():
            return


def is_due(live: LiveJob, now: float) -> bool:
    """Whether the job's frame may be shown now."""
    large = live.frame.new_faces and live.frame.vertices > LARGE
    return live.has_preview and now >= live.try_again and not (large and now - live.topology_shown < LARGE_EVERY)


def show(session: Session, live: LiveJob, now: float) -> None:
    """Puts the job's frame into the scene and asks for the next, or remembers why that cannot be."""
    session.changed = True
    frame = live.frame
    live.shown_at = now
    try:
        session.scene.apply(live.job, frame.prepared)
    except NoPreview:
        live.has_preview, live.obstacle = False, ""
        if session.client is not None:
            session.client.unfollow(live.job)
        return
    except SceneError as error:
        live.obstacle, live.try_again = str(error), now + TRY_AGAIN
        return
    except Exception as error:
        live.frame = None
        live.problem = f"An update could not be shown: {error}"
        report(session, error)
    else:
        live.frame, live.shown, live.obstacle = None, frame, ""
        if frame.new_faces:
            live.topology_shown = now
    if session.client is not None:
        session.client.applied(live.job)


def redraw_if_needed(session: Session, now: float) -> None:
    """Asks for a redraw if anything that is shown has changed, the ages of the last updates included."""
    texts = tuple(live.age_text(now) for live in session.jobs.values())
    if session.changed or texts != session.texts:
        session.changed, session.texts = False, texts
        session.scene.refresh(list(session.jobs.values()))


def report(session: Session, error: Exception) -> None:
    """A defect, told in words in the panel; its traceback goes to the console once, not thirty times a second."""
    problem = f"Galatea stumbled: {type(error).__name__}: {error}"
    if problem != session.problem:
        session.problem, session.changed = problem, True
        traceback.print_exception(error)
