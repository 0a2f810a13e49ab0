"""Generate, refine, and taking up a job that the service has already."""

from __future__ import annotations

import bpy
from bpy.props import StringProperty
from bpy.types import Context, Object, Operator

from .. import prompt_history, solid_colors
from ..bridge import collect, finish, materials, preview
from ..bridge.errors import SceneError
from ..bridge.placement import Placement, default_placement
from ..live_job import LiveJob
from ..preferences import open_link
from ..protocol.codec import WireError
from ..protocol.mesh_codec import Mesh
from ..protocol.messages import JobRequest
from ..session import Session, current
from . import inputs


def why_not_now(context: Context) -> str:
    """Why no job can be sent, in a sentence; empty if one can."""
    settings = context.window_manager.galatea
    if not settings.prompt.strip() and not len(settings.pictures):
        return "Type a prompt or add a reference picture first: what shall be made?"
    active = context.view_layer.objects.active
    if active is not None and active.mode != "OBJECT":
        mode = active.mode.replace("_", " ").title()
        way_out = "leave it with Tab" if mode == "Edit" else "switch to Object Mode"
        return f"{active.name} is in {mode} Mode: {way_out} first."
    connection = current().connection
    if connection is not None and connection.state == "refused":
        return connection.message
    if connection is not None and connection.state == "searching":
        return "The service is not running: press Start."
    return ""


def request_of(context: Context, original: Object | None) -> JobRequest:
    """The panel's fields as a request: to refine the object if there is one, else to generate."""
    settings = context.window_manager.galatea
    return JobRequest(
        command="generate" if original is None else "refine",
        prompt=settings.prompt.strip(),
        negative_prompt=settings.negative_prompt.strip(),
        seed=settings.seed,
        steps=settings.steps or None,
        strength=settings.strength,
        prior=settings.prior or "toybox",
        references=inputs.references_of(context),
        regions=() if original is None else inputs.regions_of(original),
    )


def begin(context: Context, session: Session, mesh: Mesh | None, original: Object | None, placement: Placement) -> LiveJob:
    """Puts the preview into the scene and sends the job, or leaves all as it was. Raises SceneError and WireError."""
    request, pictures = request_of(context, original), inputs.pictures_of(context)
    masks = () if original is None else inputs.masks_of(original)
    job = session.new_job_id()
    shown = preview.begin(context, job, inputs.name_of(context, request), original, placement)
    try:
        live = session.submit(job, request, mesh, placement, pictures, masks)
    except Exception:
        finish.discard(context, shown)
        raise
    push_step(request.command.capitalize())
    if request.prompt:
        prompt_history.remember(request.prompt)
    return live


def push_step(name: str) -> None:
    """An undo step with the new preview in it, and with the material that its first colors will need.

    Undo takes it that between two steps no data-blocks have come into being: with a new one it crashes Blender.
    """
    materials.galatea_material()
    bpy.ops.ed.undo_push(message=name)


def show_colors(operator: Operator) -> None:
    if solid_colors.show_once():
        operator.report({"INFO"}, "Solid view now shows colors; the switch is in the Galatea panel.")


class GALATEA_OT_generate(Operator):
    bl_idname = "galatea.generate"
    bl_label = "Generate"
    bl_description = "Make an object from the prompt, the reference pictures or both, at the 3D cursor, live in the scene"

    @classmethod
    def poll(cls, context: Context) -> bool:
        reason = why_not_now(context)
        cls.poll_message_set(reason)
        return not reason

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        placement = default_placement(tuple(context.scene.cursor.location))
        try:
            begin(context, session, None, None, placement)
        except (SceneError, WireError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        show_colors(self)
        return {"FINISHED"}


class GALATEA_OT_refine(Operator):
    bl_idname = "galatea.refine"
    bl_label = "Refine Selected"
    bl_description = "Change the active object toward the prompt, or only its regions, on a copy; vertices, faces and UVs stay"

    @classmethod
    def poll(cls, context: Context) -> bool:
        reason = why_not_now(context)
        active = context.view_layer.objects.active
        if not reason and (active is None or active.type != "MESH" or not active.select_get()):
            reason = "Select a mesh object first: it is refined toward the prompt."
        cls.poll_message_set(reason)
        return not reason

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        original = context.view_layer.objects.active
        try:
            collected = collect.collect(original)
            live = begin(context, session, collected.mesh, original, collected.placement)
        except (SceneError, WireError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        for note in collected.notes:
            live.note(note)
        show_colors(self)
        return {"FINISHED"}


class GALATEA_OT_reattach(Operator):
    bl_idname = "galatea.reattach"
    bl_label = "Reattach"
    bl_description = "Show this job in the scene and follow it"

    job: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        summary = next((summary for summary in session.listed if summary.job == self.job), None)
        live = session.jobs.get(self.job)
        name = live.prompt if live else summary.prompt if summary else "Galatea"
        try:
            placement = session.scene.placement(self.job)
            if placement is None:
                placement = default_placement(tuple(context.scene.cursor.location))
                preview.begin(context, self.job, name, None, placement)
                push_step("Reattach")
        except SceneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.attach(self.job, placement, summary)
        return {"FINISHED"}


CLASSES = (GALATEA_OT_generate, GALATEA_OT_refine, GALATEA_OT_reattach)
