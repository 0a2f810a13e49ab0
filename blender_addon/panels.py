"""The panel in the 3D View's sidebar."""

from __future__ import annotations

from bpy.types import Context, Panel

from .drawing import draw_job, draw_lines, draw_service
from .drawing_inputs import draw_pictures, draw_regions
from .preferences import preferences
from .session import current
from .solid_colors import are_shown


class GalateaPanel:
    """Where they all are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Galatea"


class GALATEA_PT_main(GalateaPanel, Panel):
    bl_label = "Galatea"

    def draw(self, context: Context) -> None:
        layout, session, settings = self.layout, current(), context.window_manager.galatea
        session.wanted = True
        problem = preferences(context).checkout_problem()
        draw_service(layout, context, session, bool(problem))

        column = layout.column(align=True)
        row = column.row(align=True)
        row.prop(settings, "prompt", text="", placeholder="What to make")
        row.menu("GALATEA_MT_prompts", text="", icon="DOWNARROW_HLT")
        column.prop(settings, "negative_prompt", text="", placeholder="What to stay away from")
        draw_pictures(layout, settings)
        draw_regions(layout, context.view_layer.objects.active)
        column = layout.column(align=True)
        column.scale_y = 1.3
        column.operator("galatea.generate", icon="MESH_ICOSPHERE")
        column.operator("galatea.refine", icon="MOD_SMOOTH")
        for live in reversed(list(session.jobs.values())):
            draw_job(layout, context, session, live, settings.jobs.get(live.job))
        column = layout.column(align=True)
        column.operator("galatea.solid_colors", icon="SHADING_SOLID", depress=are_shown(context))
        column.operator("galatea.show_colors", icon="MATERIAL")


class GALATEA_PT_settings(GalateaPanel, Panel):
    bl_label = "Settings"
    bl_parent_id = "GALATEA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        layout, settings = self.layout, context.window_manager.galatea
        layout.use_property_split = True
        layout.use_property_decorate = False
        row = layout.row(align=True)
        row.prop(settings, "seed")
        row.operator("galatea.random_seed", text="", icon="FILE_REFRESH")
        layout.prop(settings, "steps")
        layout.prop(settings, "strength")
        layout.prop(settings, "prior")


class GALATEA_PT_service_jobs(GalateaPanel, Panel):
    bl_label = "Jobs of the Service"
    bl_parent_id = "GALATEA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        layout, session = self.layout, current()
        others = [summary for summary in session.listed if summary.job not in session.jobs]
        if not session.connected:
            layout.label(text="Not connected")
        elif not others:
            draw_lines(layout, context, "Jobs that are not in this scene appear here; they go on without Blender.")
        for summary in others:
            row = layout.row(align=True)
            words = summary.state if summary.state != "running" else f"{summary.step} of {summary.total}"
            row.label(text=f"{summary.prompt or 'From a picture'} ({words})")
            row.operator("galatea.reattach", text="Reattach", icon="LINKED").job = summary.job


CLASSES = (GALATEA_PT_main, GALATEA_PT_settings, GALATEA_PT_service_jobs)
