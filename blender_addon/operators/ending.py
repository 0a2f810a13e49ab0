"""What becomes of a job's object: accepted, kept as a copy, or discarded. Each ends with one undo step."""

from __future__ import annotations

from collections.abc import Callable

import bpy
from bpy.types import Context, Object, Operator

from ..bridge import finish, materials, preview
from ..bridge.errors import SceneError
from ..live_job import LiveJob
from ..preferences import open_link
from ..protocol.mesh_codec import Mesh
from ..session import Session
from .running import JobOperator


def end(session: Session, live: LiveJob, message: str) -> None:
    """The scene is as it shall be: stop what still runs, and push the step."""
    materials.remove_unused(tuple(bpy.data.materials))
    if not live.ended:
        session.ask(live.job, "cancel")
    session.forget(live.job)
    bpy.ops.ed.undo_push(message=message)


class TakingOperator(JobOperator):
    """Takes the job's object, by `take`, into the scene for good."""

    take: Callable[[Context, Object, Mesh | None], Object]

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        live = session.jobs[self.chosen(session)]
        try:
            type(self).take(context, preview.find(live.job), live.result)
        except SceneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.taken.add(live.job)
        end(session, live, type(self).bl_label)
        return {"FINISHED"}


class GALATEA_OT_accept(TakingOperator, Operator):
    bl_idname = "galatea.accept"
    bl_label = "Accept"
    bl_description = "Take the result into the scene for good. A job that still runs is stopped and taken as it is now"
    take = staticmethod(finish.accept)


class GALATEA_OT_keep_copy(TakingOperator, Operator):
    bl_idname = "galatea.keep_copy"
    bl_label = "Keep as Copy"
    bl_description = "Keep the result as an object of its own, and the original as it was"
    take = staticmethod(finish.keep_as_copy)


class GALATEA_OT_discard(JobOperator, Operator):
    bl_idname = "galatea.discard"
    bl_label = "Discard"
    bl_description = "Stop the job, remove its preview and show the original as it was"

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        live = session.jobs[self.chosen(session)]
        shown = preview.find(live.job)
        if shown is not None:
            finish.discard(context, shown)
        else:
            finish.show_original(live.job)
        end(session, live, "Discard")
        return {"FINISHED"}


CLASSES = (GALATEA_OT_accept, GALATEA_OT_keep_copy, GALATEA_OT_discard)
