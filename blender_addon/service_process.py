"""The service as a process of this machine: started from a Galatea checkout, found again, and ended. No bpy.

The process outlives Blender. What it is doing is read from files in the service folder: `connection.json`, which the
service writes once it can be reached, and `start.json` and `start.log`, which are written here: on first use the launcher
installs packages for minutes before there is a service.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .processes import command_line, end_process, is_alive
from .protocol.location import LocationError, make_private_folder, read_connection

START_FILE, START_LOG, SERVICE_LOG = "start.json", "start.log", "log.txt"
PYTHONS = ((3, 11), (3, 12), (3, 13))
"""What Galatea runs on."""
PATIENCE = 10.0
"""Seconds that a service is given to end by itself."""
TAIL = 4096


class ServiceError(Exception):
    """The service cannot be started; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class ServiceState:
    """`text` is for a person: what the launcher is doing, or the last lines of a service that died."""

    kind: Literal["stopped", "starting", "running", "stopping", "died"]
    text: str = ""
    pid: int | None = None


class ServiceProcess:
    """The process of the service in one folder, whoever started it."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._child: subprocess.Popen | None = None
        self._end_at: float | None = None

    def start(self, checkout: Path) -> None:
        """Start `galatea.py serve` of a checkout; returns at once. Raises ServiceError.

        Does nothing while one is starting or stopping. Where one runs already, the new one sees that and ends by itself.
        """
        if self.state().kind in ("starting", "stopping"):
            return
        check_checkout(checkout)
        python = find_python(checkout)
        try:
            make_private_folder(self.folder)
            log = os.open(self.folder / START_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except (LocationError, OSError) as error:
            raise ServiceError(f"The service folder cannot be used: {error}") from None
        try:
            self._child = subprocess.Popen(
                [str(python), str(checkout / "galatea.py"), "serve", "--folder", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=checkout,
                env=clean_environment(dict(os.environ)),
                **outliving(),
            )
        except OSError as error:
            raise ServiceError(f"{python} could not be started: {error.strerror}.") from None
        finally:
            os.close(log)
        self._end_at = None
        self._write_start(self._child.pid)

    def state(self) -> ServiceState:
        """How it stands, from a few small files; ends a service that was told to stop and has not."""
        pid = self._service_pid()
        if self._end_at is not None:
            return self._stopping(pid)
        if pid is not None and is_alive(pid) and self._may_be_service(pid):
            return ServiceState("running", pid=pid)
        started = self._started_pid()
        if started is not None and is_alive(started, self._child):
            return ServiceState("starting", last_lines(self.folder / START_LOG, 1), started)
        return self._ended(started, crashed=pid is not None)

    def stop(self, ask: Callable[[], object] | None) -> None:
        """Begin to end the service: `ask` tells it to, if it is connected; one that is not gone in time is ended by `state`."""
        if ask is not None:
            ask()
        self._end_at = self._clock() + (PATIENCE if ask is not None else 0.0)

    def log_file(self) -> Path | None:
        """The log that tells most: the service's own, or that of an unfinished start."""
        own, start = self.folder / SERVICE_LOG, self.folder / START_LOG
        there = [path for path in (own, start) if path.is_file()]
        return max(there, key=lambda path: path.stat().st_mtime, default=None)

    def _service_pid(self) -> int | None:
        """Of the service that the connection file tells of."""
        try:
            connection = read_connection(self.folder)
        except LocationError:
            return None  # the client says what is wrong with it
        return connection.pid if connection else None

    def _started_pid(self) -> int | None:
        """Of what was started here last, by this Blender or one before it."""
        if self._child is not None:
            return self._child.pid
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            pid = int(json.loads((self.folder / START_FILE).read_text(encoding="utf-8"))["pid"])
            # The system gives numbers out again: another process of that number is none of ours.
            return pid if not is_alive(pid) or self._is_ours(pid) else None
        return None

    def _ended(self, started: int | None, crashed: bool) -> ServiceState:
        code = self._child.poll() if self._child is not None else None
        if started is None or (not crashed and code in (0, None)):
            return ServiceState("stopped")
        return ServiceState("died", last_lines(self.folder / START_LOG, 4) or last_lines(self.folder / SERVICE_LOG, 4))

    def _stopping(self, pid: int | None) -> ServiceState:
        pids = [number for number in (pid, self._started_pid()) if number is not None]
        alive = [number for number in dict.fromkeys(pids) if is_alive(number, self._child) and self._may_be_service(number)]
        if not alive:
            self._forget()
            return ServiceState("stopped")
        overdue = self._clock() - self._end_at
        if overdue < 0:
            return ServiceState("stopping", "Saving the running job", alive[0])
        ours = [number for number in alive if self._is_ours(number)]
        hard = overdue > PATIENCE
        for number in ours:
            # The service sees to its workers itself; what the launcher has under way ends with it.
            end_process(number, hard, with_group=hard or number != pid)
        if ours:
            return ServiceState("stopping", "It did not answer and is being ended", ours[0])
        if not hard and not command_line(alive[0]):  # a process that is just ending does not tell any more what it was
            return ServiceState("stopping", "Waiting for it to end", alive[0])
        self._end_at = None
        return ServiceState("running", f"Process {alive[0]} does not end: end it in the system's process manager.", alive[0])

    @property
    def stopping(self) -> bool:
        return self._end_at is not None

    def _may_be_service(self, pid: int) -> bool:
        """Not so if it is another program, to which the system gave the number of a service that has crashed."""
        line = command_line(pid)
        return not line or (" serve" in line and ("galatea" in line or "backend.cli" in line))

    def _is_ours(self, pid: int) -> bool:
        """Whether the process is provably the service of this folder."""
        if self._child is not None and self._child.pid == pid:
            return True
        line = command_line(pid)
        return " serve " in line and str(self.folder) in line

    def _write_start(self, pid: int) -> None:
        path = self.folder / START_FILE
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": pid}), encoding="utf-8")
        os.replace(partial, path)

    def _forget(self) -> None:
        """What was started has ended as it should."""
        (self.folder / START_FILE).unlink(missing_ok=True)
        self._child = self._end_at = None


def check_checkout(checkout: Path) -> None:
    """Raises ServiceError if the folder is not one that Galatea can be started from."""
    if not (checkout / "galatea.py").is_file():
        raise ServiceError(
            f"{checkout} holds no galatea.py: in the extension's preferences, choose the folder that Galatea was unpacked into."
        )


def find_python(checkout: Path) -> Path:
    """What to run the launcher with: the checkout's own environment, a Python on PATH, or Blender's. Raises ServiceError."""
    own = checkout / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    on_path = (shutil.which("python{}.{}".format(*version)) for version in reversed(PYTHONS))
    if own.exists() and can_run(own, needs_venv=False):
        return own
    for python in (*on_path, sys.executable):
        if python and can_run(Path(python), needs_venv=True):
            return Path(python)
    raise ServiceError("Galatea needs Python 3.11, 3.12 or 3.13 and found none: install one, then press Start again.")


def can_run(python: Path, needs_venv: bool) -> bool:
    """Whether it is a Python of a right version, with what it takes to make an environment."""
    code = "import sys; print(*sys.version_info[:2])" + ("; import venv, ensurepip" if needs_venv else "")
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        environment = clean_environment(dict(os.environ))
        asked = subprocess.run(
            [str(python), "-I", "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=True
        )
        major, minor = asked.stdout.split()
        return (int(major), int(minor)) in PYTHONS
    return False


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """Without what Blender sets for its own Python, which would lead another Python astray."""
    stray = ("PYTHON", "BLENDER_", "VIRTUAL_ENV", "__PYVENV")
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(stray)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def outliving() -> dict:
    """Arguments of Popen for a process that lives on when Blender ends, and has no window."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def last_lines(path: Path, count: int) -> str:
    """The last lines of a log that say something; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read(TAIL).decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-count:])
