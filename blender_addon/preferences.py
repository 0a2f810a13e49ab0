"""The extension's preferences: where Galatea is, and its service."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import StringProperty
from bpy.types import AddonPreferences, Context

from .drawing import draw_lines, draw_service
from .protocol.location import service_folder
from .service_process import ServiceError, check_checkout
from .session import Session, current
from .timer import wake


def changed(_preferences: AddonPreferences, _context: Context) -> None:
    """The panel is in another window."""
    current().look_soon()
    wake()


class GalateaPreferences(AddonPreferences):
    bl_idname = __package__

    checkout: StringProperty(
        name="Galatea Folder",
        description="The folder that Galatea was unpacked or cloned into; it holds galatea.py",
        subtype="DIR_PATH",
        update=changed,
    )
    service_folder: StringProperty(
        name="Service Folder",
        description="Where the service keeps its jobs and tells how to be reached. Empty: the user's own data folder",
        subtype="DIR_PATH",
        update=changed,
    )

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.prop(self, "checkout")
        problem = self.checkout_problem()
        if problem:
            draw_lines(layout, context, problem, icon="ERROR")
        session = current()
        session.wanted = True
        draw_service(layout, context, session, bool(problem))
        row = layout.row()
        row.operator("galatea.test_connection", icon="VIEWZOOM")
        row.operator("galatea.open_log", icon="TEXT")
        for line in session.test_report:
            draw_lines(layout, context, line, icon="DOT")
        header, body = layout.panel("galatea_advanced", default_closed=True)
        header.label(text="Advanced")
        if body is not None:
            body.prop(self, "service_folder")
            body.label(text=f"In use: {self.folder()}")
        # Blender's Online Access is not asked here: the extension itself only talks to this machine.

    def folder(self) -> Path:
        """The service folder in use."""
        return absolute(self.service_folder) if self.service_folder.strip() else service_folder()

    def checkout_folder(self) -> Path:
        return absolute(self.checkout)

    def checkout_problem(self) -> str:
        """What is wrong with the Galatea folder, in a sentence; empty if it can be used."""
        if not self.checkout.strip():
            return "Choose the folder that Galatea was unpacked into (it holds galatea.py)."
        try:
            check_checkout(self.checkout_folder())
        except ServiceError as error:
            return str(error)
        return ""


def absolute(path: str) -> Path:
    return Path(bpy.path.abspath(path.strip())).expanduser()


def preferences(context: Context) -> GalateaPreferences:
    return context.preferences.addons[__package__].preferences


def open_link(context: Context) -> Session:
    """The session with its client made and looking for the service."""
    session = current()
    session.wanted = True
    session.connect(preferences(context).folder())
    wake()
    return session
