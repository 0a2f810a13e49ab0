"""Starting and stopping the service, its log, and the connection test."""

from __future__ import annotations

import threading
from pathlib import Path

import bpy
from bpy.types import Context, Operator

from ..connection_test import test_connection
from ..preferences import GalateaPreferences, open_link, preferences
from ..service_process import ServiceError, ServiceState
from ..session import Session


class GALATEA_OT_start_service(Operator):
    bl_idname = "galatea.start_service"
    bl_label = "Start"
    bl_description = "Start the Galatea service on this machine. It goes on when Blender is closed"

    @classmethod
    def poll(cls, context: Context) -> bool:
        problem = preferences(context).checkout_problem()
        cls.poll_message_set(problem)
        return not problem

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        session.problem = ""
        checkout = preferences(context).checkout_folder()
        try:
            if not (checkout / ".venv" / "galatea.json").is_file() and not bpy.app.online_access:
                raise ServiceError(
                    "On first use Galatea downloads the packages that it needs, and Blender is not allowed to go online: "
                    "turn on Preferences > System > Network > Allow Online Access for it, then press Start again."
                )
            session.process.start(checkout)
        except ServiceError as error:
            session.problem = str(error)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.look_soon()
        return {"FINISHED"}


class GALATEA_OT_stop_service(Operator):
    bl_idname = "galatea.stop_service"
    bl_label = "Stop"
    bl_description = "Save the running job and end the service. Its jobs go on when it is started again"

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        session.problem = ""
        session.stop_service()
        return {"FINISHED"}


class GALATEA_OT_open_log(Operator):
    bl_idname = "galatea.open_log"
    bl_label = "Open Log"
    bl_description = "Show the file in which the service tells what it does"

    def execute(self, context: Context) -> set[str]:
        log = open_link(context).process.log_file()
        if log is None:
            self.report({"WARNING"}, "There is no log yet: the service has not been started.")
            return {"CANCELLED"}
        return bpy.ops.wm.path_open(filepath=str(log))


class GALATEA_OT_test_connection(Operator):
    bl_idname = "galatea.test_connection"
    bl_label = "Test Connection"
    bl_description = "Try to reach the service, and tell what was found and what to do"

    def execute(self, context: Context) -> set[str]:
        session = open_link(context)
        session.test_report = ("Testing ...",)
        # In a thread of its own: a service that does not answer must not hold Blender up.
        process, name = session.process, session.name
        threading.Thread(target=_test, args=(session, process.folder, process.state(), name), daemon=True).start()
        return {"FINISHED"}


def _test(session: Session, folder: Path, state: ServiceState, name: str) -> None:
    """Touches no bpy; the pump sees to it that the answer is drawn."""
    _, lines = test_connection(folder, state, name)
    session.test_report, session.changed = tuple(lines), True


class GALATEA_OT_open_preferences(Operator):
    bl_idname = "galatea.open_preferences"
    bl_label = "Choose the Galatea Folder"
    bl_description = "Open the extension's preferences"

    def execute(self, context: Context) -> set[str]:
        return bpy.ops.preferences.addon_show(module=GalateaPreferences.bl_idname)


CLASSES = (
    GALATEA_OT_start_service,
    GALATEA_OT_stop_service,
    GALATEA_OT_open_log,
    GALATEA_OT_test_connection,
    GALATEA_OT_open_preferences,
)
