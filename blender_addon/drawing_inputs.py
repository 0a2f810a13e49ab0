"""The panel's lists: reference pictures, and the regions of the active object."""

from __future__ import annotations

import bpy
from bpy.types import Object, UILayout

from .properties import GalateaSettings


def draw_pictures(layout: UILayout, settings: GalateaSettings) -> None:
    """One row for each picture, and from where it was taken."""
    count = len(settings.pictures)
    header, body = layout.panel("galatea_pictures", default_closed=True)
    header.label(text=f"Reference Pictures ({count})" if count else "Reference Pictures")
    if body is None:
        return
    for index, picture in enumerate(settings.pictures):
        column = body.column(align=True)
        row = column.row(align=True)
        row.alert = bool(picture.image) and picture.image not in bpy.data.images
        row.prop_search(picture, "image", bpy.data, "images", text="")
        row.operator("galatea.remove_picture", text="", icon="X").index = index
        row = column.row(align=True)
        row.prop(picture, "azimuth")
        row.prop(picture, "elevation")
    row = body.row(align=True)
    row.operator("galatea.add_picture", text="Add", icon="ADD")
    row.operator("galatea.open_picture", text="Open", icon="FILE_FOLDER")


def draw_regions(layout: UILayout, object: Object | None) -> None:
    """One row for each region of a mesh object."""
    regions = object.galatea_regions if object is not None and object.type == "MESH" else ()
    header, body = layout.panel("galatea_regions", default_closed=True)
    header.label(text=f"Regions to Refine ({len(regions)})" if len(regions) else "Regions to Refine")
    if body is None:
        return
    for index, region in enumerate(regions):
        column = body.column(align=True)
        row = column.row(align=True)
        row.alert = bool(region.group) and region.group not in object.vertex_groups
        row.prop_search(region, "group", object, "vertex_groups", text="")
        row.operator("galatea.remove_region", text="", icon="X").index = index
        column.prop(region, "prompt", text="", placeholder="The prompt above")
    row = body.row(align=True)
    row.operator("galatea.add_region", text="Add", icon="ADD")
    row.operator("galatea.region_from_selection", icon="RESTRICT_SELECT_OFF")
