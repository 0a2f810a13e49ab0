"""Pieces that the panels and the preferences are drawn from. They read the session and change nothing."""

from __future__ import annotations

import textwrap
import time

from bpy.types import Context, UILayout

from .drawing_diagnosis import draw_diagnosis
from .live_job import LiveJob
from .properties import JobControls
from .session import Session

CHARACTER = 6.2
"""Mean width of a character in pixels at the interface's usual scale."""
MARGINS, ICON = 10, 4
"""What a box's margins and an icon take, in characters."""

PHASE_ICONS = {
    "sending": "SORTTIME",
    "queued": "SORTTIME",
    "running": "PLAY",
    "paused": "PAUSE",
    "finished": "CHECKMARK",
    "failed": "ERROR",
    "cancelled": "CANCEL",
    "refused": "ERROR",
}


def draw_lines(layout: UILayout, context: Context, text: str, icon: str = "NONE") -> None:
    """Text, wrapped to the width of the region; the icon stands before the first line."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for line in text.splitlines():
        for part in textwrap.wrap(line, characters(context) - (0 if icon == "NONE" else ICON)):
            column.label(text=part, icon=icon)
            icon = "NONE" if icon == "NONE" else "BLANK1"


def characters(context: Context) -> int:
    """How many fit into a line of the region."""
    width = context.region.width if context.region else 300
    scale = context.preferences.system.ui_scale or 1.0  # 0 without a window
    return max(20, int(width / (CHARACTER * scale)) - MARGINS)


def draw_service(layout: UILayout, context: Context, session: Session, cannot_start: bool) -> None:
    """How it stands with the service, and what can be done about it."""
    state = session.service
    if state.kind == "stopping":
        layout.label(text="Stopping the service", icon="SORTTIME")
        draw_lines(layout, context, state.text)
    elif session.connected:
        row = layout.split(factor=0.6)
        row.label(text="Connected", icon="LINKED")
        row.operator("galatea.stop_service", text="Stop", icon="QUIT")
    elif state.kind == "starting":
        row = layout.split(factor=0.6)
        row.label(text="Starting", icon="SORTTIME")
        row.operator("galatea.stop_service", text="Stop", icon="QUIT")
        draw_lines(layout, context, f"Starting: {state.text or 'one moment'}")
    else:
        draw_unconnected(layout, context, session)
        row = layout.row()
        if state.kind == "running":
            row.operator("galatea.stop_service", text="Stop", icon="QUIT")
        if cannot_start:
            row.operator("galatea.open_preferences", icon="PREFERENCES")
        else:
            row.operator("galatea.start_service", text="Start", icon="PLAY")
        if state.kind == "died":
            row.operator("galatea.open_log", icon="TEXT")
    if session.problem:
        draw_lines(layout, context, session.problem, icon="ERROR")


def draw_unconnected(layout: UILayout, context: Context, session: Session) -> None:
    """Why there is no connection."""
    state, connection = session.service, session.connection
    if state.kind == "died":
        layout.label(text="The service has ended by itself", icon="ERROR")
        draw_lines(layout, context, state.text or "Its log may tell why.")
    elif connection is None:
        layout.label(text="Looking for the service", icon="UNLINKED")
    elif connection.state in ("refused", "lost") or state.kind == "running":
        draw_lines(layout, context, connection.message or "Connecting to the service", icon="ERROR")
        draw_lines(layout, context, state.text)
    else:
        layout.label(text="The service is not running", icon="UNLINKED")


def draw_job(layout: UILayout, context: Context, session: Session, live: LiveJob, controls: JobControls | None) -> None:
    """The box of one job."""
    now = time.monotonic()
    box = layout.box()
    waiting = not live.ended and not session.connected
    box.label(text="Waiting for the connection" if waiting else live.headline(), icon=PHASE_ICONS[live.phase])
    steerable = not live.ended and controls is not None
    if not steerable:  # else the prompt stands in a field of its own
        box.label(text=live.prompt or ("A job of the service" if live.phase == "sending" else "From a picture"))
    draw_progress(box, live, now)
    for text in (live.problem, live.obstacle):
        if text:
            draw_lines(box, context, text, icon="ERROR")
    for text in live.warnings:
        draw_lines(box, context, text, icon="ERROR")
    for text in live.notes:
        draw_lines(box, context, text, icon="INFO")
    draw_diagnosis(box, live, controls)
    if not live.has_preview:
        draw_lines(box, context, "Its preview is not in the scene any more.", icon="GHOST_DISABLED")
        box.operator("galatea.reattach", text="Show Again", icon="HIDE_OFF").job = live.job
    if not live.ended:
        draw_controls(box, live)
    if steerable:
        draw_steering(box, live, controls)
    draw_endings(box, live)


def draw_progress(box: UILayout, live: LiveJob, now: float) -> None:
    """The bar, and how fresh it is."""
    if live.total:
        box.progress(factor=live.fraction(), type="BAR", text=live.progress_text())
    age = live.age_text(now)
    if age:
        box.label(text=age, icon="ERROR" if live.silent(now) else "NONE")


def draw_controls(box: UILayout, live: LiveJob) -> None:
    row = box.row(align=True)
    if live.phase == "paused":
        row.operator("galatea.resume", icon="PLAY").job = live.job
    else:
        row.operator("galatea.pause", icon="PAUSE").job = live.job
    row.operator("galatea.cancel", icon="CANCEL").job = live.job


def draw_steering(box: UILayout, live: LiveJob, controls: JobControls) -> None:
    """What the job works toward, to be changed while it runs."""
    column = box.column(align=True)
    column.prop(controls, "prompt", text="")
    column.prop(controls, "negative_prompt", text="", placeholder="Negative prompt")
    changed = (controls.prompt, controls.negative_prompt) != (live.prompt, live.negative_prompt)
    row = column.row(align=True)
    row.enabled = changed
    row.operator("galatea.steer", icon="FILE_REFRESH").job = live.job
    box.prop(controls, "strength", slider=True)


def draw_endings(box: UILayout, live: LiveJob) -> None:
    """What becomes of the object."""
    if live.phase in ("failed", "cancelled") and live.resumable:
        box.operator("galatea.resume", icon="PLAY").job = live.job
    column = box.column(align=True)
    there_is_something = live.has_preview and (live.result is not None or live.shown is not None)
    if there_is_something:
        accept = "Accept" if live.result is not None else "Accept as It Is Now"
        large = column.row(align=True)
        large.scale_y = 1.3 if live.ended else 1.0
        large.operator("galatea.accept", text=accept, icon="CHECKMARK").job = live.job
    row = column.row(align=True)
    if there_is_something:
        row.operator("galatea.keep_copy", text="Keep as Copy", icon="DUPLICATE").job = live.job
    row.operator("galatea.discard", text="Discard", icon="TRASH").job = live.job
