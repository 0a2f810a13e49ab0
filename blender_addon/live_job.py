"""One job as this Blender knows it: plain values for the panel, fed by what the client tells. No bpy, no references to data.

Times are seconds on the pump's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .protocol import messages as m
from .protocol.mesh_codec import Mesh

Phase = Literal["sending", "queued", "running", "paused", "finished", "failed", "cancelled", "refused"]
"""The service's job states, before them "sending" (not yet on the service's disk) and instead of them "refused"."""
ENDED: tuple[Phase, ...] = ("finished", "failed", "cancelled", "refused")
SILENT_AFTER = 15.0
"""A running job that has not been heard of for so long is worth a word."""
STEER_DELAY = 0.3
"""A slider that is being dragged is sent when it has rested for so long."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An update that can be put into the scene as it is: `prepared` is complete, whatever the scene shows now."""

    step: int
    prepared: object
    vertices: int
    new_faces: bool


@dataclass
class LiveJob:
    """State of one job. The pump alone changes it, and operators for what they ask; the panel only reads."""

    job: str
    command: Literal["generate", "refine"]
    prompt: str
    negative_prompt: str = ""
    strength: float = 0.5
    phase: Phase = "sending"
    what: str = ""
    step: int = 0
    total: int = 0
    seconds_left: float | None = None
    device: str = ""
    megabytes: float = 0.0
    """What the worker takes of the device's memory."""
    heard: float | None = None
    """When the service was last heard to speak of the job."""
    problem: str = ""
    """What went wrong and what to do, until it is over."""
    notes: tuple[str, ...] = ()
    """What the artist should know but need not act on, newest last."""
    warnings: tuple[str, ...] = ()
    """What the job itself warned of, newest last."""
    diagnosis: m.Diagnosis | None = None
    """What it last told about itself."""
    resumable: bool = False
    result: Mesh | None = None

    frame: Frame | None = None
    """The newest, not in the scene yet."""
    shown: Frame | None = None
    """The newest that is in the scene, kept to be applied again after undo."""
    obstacle: str = ""
    """Why the newest frame cannot be shown just now; it is tried again."""
    try_again: float = 0.0
    shown_at: float = float("-inf")
    """When a frame was last put into the scene, or tried to be."""
    topology_shown: float = float("-inf")
    """When a large new topology was last put into the scene."""
    has_preview: bool = True

    wanted_strength: float | None = None
    wanted_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes = (*self.notes, text)[-4:]

    # ---- what the client tells

    def take_event(self, event: m.JobEvent, now: float) -> None:
        """One happening, in order."""
        self.heard = now
        happening = event.happening
        match happening:
            case m.Queued():
                self.phase, self.what = "queued", ""
            case m.Started():
                self.phase, self.problem, self.step, self.device = "running", "", happening.step, happening.device
            case m.Resumed():
                self.phase, self.problem, self.step = "running", "", happening.step
            case m.Paused():
                self.phase, self.step = "paused", happening.step
            case m.Steered():
                self.prompt, self.negative_prompt = happening.prompt, happening.negative_prompt
                self.strength = happening.strength
            case m.Warned():
                if happening.message not in self.warnings:
                    self.warnings = (*self.warnings, happening.message)[-4:]
            case m.Finished():
                self.phase, self.step, self.seconds_left, self.problem = "finished", happening.step, None, ""
            case m.Failed():
                self.phase, self.problem, self.resumable = "failed", happening.message, happening.resumable
            case m.Cancelled():
                self.phase, self.resumable, self.step = "cancelled", happening.resumable, happening.step

    def take_progress(self, progress: m.Progress, now: float) -> None:
        """Newest wins; an event that ended the job is not taken back by progress that was under way."""
        if self.ended:
            return
        self.heard = now
        self.phase, self.what = progress.state, progress.what
        self.step, self.total, self.seconds_left = progress.step, progress.total, progress.seconds_left
        self.megabytes = progress.memory_megabytes
        self.diagnosis = progress.diagnosis or self.diagnosis

    def take_summary(self, summary: m.JobSummary) -> None:
        """For a job that was taken up again: what its events do not tell, and how it stands before they come."""
        self.command, self.prompt = summary.command, self.prompt or summary.prompt
        self.total = self.total or summary.total
        if self.phase == "sending":
            self.phase, self.step = summary.state, summary.step

    def take_frame(self, frame: Frame, now: float) -> None:
        """The newest replaces one that has not been shown; new faces of that one stay new."""
        if self.frame is not None and self.frame.new_faces:
            frame = replace(frame, new_faces=True)
        self.heard, self.frame = now, frame

    def show_again(self) -> None:
        """What was in the scene is not there any more, after undo or loading a file: show the newest frame anew."""
        if self.shown is not None and self.frame is None:
            self.frame = replace(self.shown, new_faces=True)
        self.try_again = 0.0

    # ---- steering by a slider

    def want_strength(self, strength: float, now: float) -> None:
        """Remember what the slider shows; `take_due_strength` gives it out when it has rested."""
        same = abs(strength - self.strength) < 1e-6
        self.wanted_strength, self.wanted_at = (None if same else strength), now

    def take_due_strength(self, now: float) -> float | None:
        """The strength to send now, once."""
        if self.wanted_strength is None or now - self.wanted_at < STEER_DELAY or self.ended:
            return None
        wanted, self.wanted_strength = self.wanted_strength, None
        self.strength = wanted
        return wanted

    # ---- words for the panel

    def headline(self) -> str:
        """The state in words."""
        words = {
            "sending": "Sending to the service",
            "queued": self._what_or("Waiting for its turn"),
            "running": self._what_or("Starting"),
            "paused": "Paused",
            "finished": "Finished" if self.result is not None else "Finished: fetching the result",
            "failed": "Failed",
            "cancelled": "Cancelled",
            "refused": "Refused",
        }
        return words[self.phase]

    def _what_or(self, otherwise: str) -> str:
        return self.what[:1].upper() + self.what[1:] if self.what else otherwise

    def fraction(self) -> float:
        return min(1.0, self.step / self.total) if self.total else 0.0

    def progress_text(self) -> str:
        """ "120 of 400, 12 s left", or nothing before the first step."""
        if not self.total:
            return ""
        left = f", {duration(self.seconds_left)} left" if self.seconds_left is not None and not self.ended else ""
        return f"{self.step} of {self.total}{left}"

    def age_text(self, now: float) -> str:
        """How old the last update is, and what the job takes: "Update 0 s ago, 812 MB on cpu"; empty if it does not run."""
        if self.heard is None or self.phase != "running":
            return ""
        takes = f"{self.megabytes:.0f} MB" if self.megabytes else ""
        where = f"on {self.device}" if self.device else ""
        return ", ".join(filter(None, (f"Update {duration(now - self.heard)} ago", f"{takes} {where}".strip())))

    def silent(self, now: float) -> bool:
        return self.heard is not None and self.phase == "running" and now - self.heard > SILENT_AFTER


def duration(seconds: float) -> str:
    """As people say it: "8 s", "3 min", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
