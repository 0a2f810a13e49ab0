"""Making the colors visible: in Solid view, and in the materials of objects that have their own."""

from __future__ import annotations

import bpy
from bpy.types import Context, Operator

from .. import solid_colors
from ..bridge import materials
from ..bridge.errors import SceneError


class GALATEA_OT_solid_colors(Operator):
    bl_idname = "galatea.solid_colors"
    bl_label = "Colors in Solid View"
    bl_description = "Show the objects' own colors in Solid view, or what was shown before"

    def execute(self, context: Context) -> set[str]:
        solid_colors.toggle(context)
        return {"FINISHED"}


class GALATEA_OT_show_colors(Operator):
    bl_idname = "galatea.show_colors"
    bl_label = "Colors in Materials"
    bl_description = "Let the active object's materials show its colors, in copies; the materials themselves stay as they are"

    @classmethod
    def poll(cls, context: Context) -> bool:
        active = context.view_layer.objects.active
        colored = active is not None and active.type == "MESH" and len(active.data.color_attributes) > 0
        if not colored:
            cls.poll_message_set("Select an object that has colors first.")
        return colored

    def execute(self, context: Context) -> set[str]:
        try:
            left_alone = materials.show_colors(context.view_layer.objects.active)
        except SceneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        bpy.ops.ed.undo_push(message=self.bl_label)
        if left_alone:
            self.report({"WARNING"}, " ".join(left_alone))
        return {"FINISHED"}


CLASSES = (GALATEA_OT_solid_colors, GALATEA_OT_show_colors)
