"""The service of a journey: `galatea.py serve` as a real process with a folder of its own, to be killed and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from protocol.location import Connection, read_connection
from tests.blender.environments import ROOT


class Service:
    """Runs from `start` (or entering it as a context manager) until `stop`; `kill` and `start` again at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._started: list[int] = []

    def start(self, timeout: float = 60.0) -> Connection:
        """Returns when clients can connect. Raises AssertionError with the log if that does not happen in time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GALATEA_SERVICE_FOLDER": str(self.folder), "OMP_NUM_THREADS": "1"}
        with (self.folder.parent / f"{self.folder.name}-output.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "galatea.py"), "serve"],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._started.append(self.process.pid)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            connection = read_connection(self.folder)
            if connection and connection.pid in self._pids():
                return connection
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the service did not start:\n{self.log()}")

    def kill(self) -> None:
        """SIGKILL to the service alone, as the system does when memory is short; its workers have to notice by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait_until_warm(self, timeout: float = 120.0) -> None:
        """Until a worker has its prior loaded, as the log tells. Raises AssertionError with the log."""
        deadline = time.monotonic() + timeout
        while "ready: " not in self.log():
            assert time.monotonic() < deadline, f"the service did not get ready:\n{self.log()}"
            time.sleep(0.1)

    def workers(self) -> list[psutil.Process]:
        """Every process that the service has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, timeout: float = 20.0) -> None:
        """Ends the service in its own way, and what is left of it by force."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        for group in self._started:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def log(self) -> str:
        """What it wrote, for messages of failed tests."""
        files = (self.folder.parent / f"{self.folder.name}-output.txt", self.folder / "log.txt")
        return "\n".join(file.read_text(encoding="utf-8", errors="replace")[-4000:] for file in files if file.exists())

    def _pids(self) -> set[int]:
        """The launcher hands over to another process where it cannot become it."""
        assert self.process is not None
        try:
            process = psutil.Process(self.process.pid)
            return {process.pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.NoSuchProcess:
            return set()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
