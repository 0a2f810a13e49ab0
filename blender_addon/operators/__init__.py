"""What the buttons do. Operators are thin: they check, call the bridge and the session, and tell what went wrong.

None of them has Blender push undo steps by itself: a job pushes one when its preview appears and one when it ends;
updates push none. Undoing the end leads to a scene with a preview, which `Session.take_up_strays` takes out again after
Accept, so that one undo brings back the object as it was.
"""

from __future__ import annotations

from . import ending, inputs, making, prompts, running, service, view

CLASSES = (
    *making.CLASSES,
    *inputs.CLASSES,
    *running.CLASSES,
    *ending.CLASSES,
    *service.CLASSES,
    *view.CLASSES,
    *prompts.CLASSES,
)
