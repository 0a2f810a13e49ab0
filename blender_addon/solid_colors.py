"""Vertex colors in Solid view, where Blender shows the material's color instead unless it is told otherwise.

Nothing of the shading is touched but that one choice, and it can be put back to what it was in each view.
"""

from __future__ import annotations

from collections.abc import Iterator

import bpy
from bpy.types import Context, SpaceView3D

from .session import current

BLENDERS_OWN = "MATERIAL"


def views() -> Iterator[tuple[tuple[str, int], SpaceView3D]]:
    """Every 3D View of every screen, with a name for it that outlives references."""
    for screen in bpy.data.screens:
        for index, area in enumerate(screen.areas):
            for space in area.spaces:
                if space.type == "VIEW_3D":
                    yield (screen.name, index), space


def are_shown(context: Context) -> bool:
    """Whether the view that is drawn shows them, or outside of one, whether all views do."""
    if isinstance(context.space_data, SpaceView3D):
        return context.space_data.shading.color_type == "VERTEX"
    return all(space.shading.color_type == "VERTEX" for _, space in views())


def toggle(context: Context) -> None:
    """Show them in the view that the button is in and in all that are as Blender sets them up; or put all of that back."""
    chosen = [space for _, space in views() if space == context.space_data] or [space for _, space in views()]
    if are_shown(context):
        put_back(chosen)
    else:
        show(chosen)


def show(chosen: list[SpaceView3D]) -> bool:
    """Show them in the `chosen` views and in those that have Blender's own setting. Whether anything was changed."""
    before, changed = current().solid_before, False
    for name, space in views():
        color_type = space.shading.color_type
        if color_type == BLENDERS_OWN or (space in chosen and color_type != "VERTEX"):
            before[name], changed = color_type, True
            space.shading.color_type = "VERTEX"
    return changed


def put_back(chosen: list[SpaceView3D]) -> None:
    """Where they were switched on here, and in the `chosen` views."""
    before = current().solid_before
    for name, space in views():
        if space.shading.color_type == "VERTEX" and (name in before or space in chosen):
            space.shading.color_type = before.get(name, BLENDERS_OWN)
    before.clear()


def show_once() -> bool:
    """At the first job: show them in the views that are as Blender sets them up. Whether anything was changed."""
    session = current()
    if session.solid_offered:
        return False
    session.solid_offered = True
    return show([])
