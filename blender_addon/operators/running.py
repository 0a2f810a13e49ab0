"""Steering, pausing, resuming and cancelling a job. What comes of it is told by the job's events."""

from __future__ import annotations

from bpy.props import StringProperty
from bpy.types import Context, Operator

from ..preferences import open_link
from ..session import Session, current


class JobOperator:
    """An operator on one job: that of `job`, or the newest if it is empty."""

    job: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not current().jobs:
            cls.poll_message_set("There is no job in this scene.")
        return bool(current().jobs)

    def chosen(self, session: Session) -> str:
        """Raises KeyError if there is no such job."""
        job = self.job or next(reversed(session.jobs))
        return session.jobs[job].job


class GALATEA_OT_steer(JobOperator, Operator):
    bl_idname = "galatea.steer"
    bl_label = "Apply Prompt"
    bl_description = "Let the running job work toward these words from now on"

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        live = session.jobs[self.chosen(session)]
        controls = context.window_manager.galatea.jobs.get(live.job)
        if controls is None or (live.prompt and not controls.prompt.strip()):
            self.report({"ERROR"}, "The job's prompt is empty: type what it should work toward.")
            return {"CANCELLED"}
        session.steer(live.job, controls.prompt.strip(), controls.negative_prompt.strip(), None)
        return {"FINISHED"}


class Asking(JobOperator):
    """One that only passes its verb on."""

    verb = ""

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        session.ask(self.chosen(session), self.verb)
        return {"FINISHED"}


class GALATEA_OT_pause(Asking, Operator):
    bl_idname = "galatea.pause"
    bl_label = "Pause"
    bl_description = "Let the job rest after the step under way"
    verb = "pause"


class GALATEA_OT_resume(Asking, Operator):
    bl_idname = "galatea.resume"
    bl_label = "Resume"
    bl_description = "Go on where the job stopped"
    verb = "resume"


class GALATEA_OT_cancel(Asking, Operator):
    bl_idname = "galatea.cancel"
    bl_label = "Cancel"
    bl_description = "Stop the job; what it has made so far stays until you accept or discard it"
    verb = "cancel"


CLASSES = (GALATEA_OT_steer, GALATEA_OT_pause, GALATEA_OT_resume, GALATEA_OT_cancel)
