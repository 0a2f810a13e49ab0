"""Vertex colors in Solid view, switched by hand."""

from __future__ import annotations

from bpy.types import Context, Operator

from .. import solid_colors


class GALATEA_OT_solid_colors(Operator):
    bl_idname = "galatea.solid_colors"
    bl_label = "Colors in Solid View"
    bl_description = "Show the objects' own colors in Solid view, or what was shown before"

    def execute(self, context: Context) -> set[str]:
        if solid_colors.are_shown(context):
            solid_colors.put_back()
        else:
            solid_colors.show()
        return {"FINISHED"}


CLASSES = (GALATEA_OT_solid_colors,)
