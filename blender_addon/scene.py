"""The open scene, as the session reaches it: frames go in through the bridge, and what shows them is drawn again."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import properties
from .bridge import finish, prepare, preview
from .bridge.errors import SceneError
from .bridge.placement import Placement
from .bridge.prepare import Prepared
from .live_job import LiveJob
from .preferences import preferences
from .protocol.client_events import ResultArrived, SnapshotArrived
from .session import NoPreview, current


class BlenderScene:
    """Fulfills `session.Scene`; keeps nothing, since undo and loading a file make every reference invalid."""

    def prepare(self, placement: Placement, arrived: SnapshotArrived | ResultArrived) -> Prepared:
        return prepare.prepare(placement, arrived)

    def folder(self) -> Path:
        return preferences(bpy.context).folder()

    def placement(self, job: str) -> Placement | None:
        found = preview.find(job)
        return None if found is None else preview.placement_of_preview(found)

    def placements(self) -> dict[str, Placement]:
        """Those of all previews in the open file whose stored placement is sound."""
        found = {}
        for job, object in preview.previews():
            if object.users_scene:
                try:
                    found[job] = preview.placement_of_preview(object)
                except SceneError as error:
                    current().problem = f"{object.name}: {error}"
        return found

    def apply(self, job: str, prepared: Prepared) -> None:
        found = preview.find(job)
        if found is None:
            raise NoPreview(job)
        if not preview.apply(found, prepared):
            raise SceneError(preview.why_not(found, prepared) or "The update could not be shown.")

    def remove_preview(self, job: str) -> None:
        finish.discard(bpy.context, preview.find(job))

    def refresh(self, jobs: list[LiveJob]) -> None:
        properties.match_controls(jobs)
        for manager in bpy.data.window_managers:
            for window in manager.windows:
                for area in window.screen.areas:
                    if area.type in ("VIEW_3D", "PREFERENCES"):
                        area.tag_redraw()
