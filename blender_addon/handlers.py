"""What Blender tells: undo, redo, and another file. References are invalid after each, so all is found anew."""

from __future__ import annotations

import bpy
from bpy.app.handlers import persistent

from .bridge import materials
from .preferences import open_link
from .pump import report
from .session import current
from .timer import wake


@persistent
def after_undo(*_arguments: object) -> None:
    """The scene shows an older update, or a preview has come back: show the newest again."""
    session = current()
    try:
        session.take_up_strays()
        session.show_again()
    except Exception as error:
        report(session, error)
    wake()


@persistent
def after_load(*_arguments: object) -> None:
    """Go on with the jobs whose previews are in this file."""
    session = current()
    try:
        session.solid_before.clear()
        placements = session.scene.placements()
        if placements:
            materials.galatea_material()  # here, as data-blocks that come into being between undo steps crash undo
            open_link(bpy.context)
        session.settle(placements)
    except Exception as error:
        report(session, error)


HANDLERS = (
    (bpy.app.handlers.undo_post, after_undo),
    (bpy.app.handlers.redo_post, after_undo),
    (bpy.app.handlers.load_post, after_load),
)


def register() -> None:
    for handlers, function in HANDLERS:
        handlers.append(function)


def unregister() -> None:
    for handlers, function in HANDLERS:
        if function in handlers:
            handlers.remove(function)
