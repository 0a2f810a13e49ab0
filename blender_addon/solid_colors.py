"""Vertex colors in Solid view, where Blender shows the material's color instead unless it is told otherwise.

Nothing of the shading is touched but that one choice, and it is put back to what it was in each view.
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


def show() -> None:
    before = current().solid_before
    for name, space in views():
        if space.shading.color_type != "VERTEX":
            before[name] = space.shading.color_type
            space.shading.color_type = "VERTEX"


def put_back() -> None:
    before = current().solid_before
    for name, space in views():
        if space.shading.color_type == "VERTEX":
            space.shading.color_type = before.get(name, BLENDERS_OWN)
    before.clear()


def show_once() -> bool:
    """At the first job: show them if the views are as Blender sets them up. Whether anything was changed."""
    session = current()
    if session.solid_offered:
        return False
    session.solid_offered = True
    solid = [space.shading for _, space in views() if space.shading.type == "SOLID"]
    if not solid or any(shading.color_type != BLENDERS_OWN for shading in solid):
        return False
    show()
    return True
