"""Running scripts in a Blender of the tests: a process with a time limit, a home of its own and nothing of the user's."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.blender.environments import ROOT, Environment

Extension = Literal["none", "package", "installed"]


class ScriptFailed(AssertionError):
    """The script raised or ran out of time; the message is its output."""


class Blender:
    """One of the Blenders, with a folder for what a test's scripts leave behind (each has its own user folder in it).

    How a script gets the extension: "none"; "package" (the source as the package `galatea`, its bundled libraries on
    the path: for its parts); "installed" (the built zip, installed and enabled as a person does it; then it is
    `bl_ext.user_default.galatea`).
    """

    def __init__(self, environment: Environment, folder: Path, package: Callable[[], Path], zip_file: Callable[[], Path]):
        self.environment, self.folder = environment, folder
        self._package, self._zip_file = package, zip_file
        self._count = 0

    @property
    def name(self) -> str:
        return self.environment.release.name

    def run(
        self,
        script: Callable[..., Any] | Path,
        *arguments: Any,
        function: str = "main",
        extension: Extension = "none",
        timeout: float = 60.0,
        variables: dict[str, str] | None = None,
    ) -> Any:
        """What the script returned, through JSON.

        `script` is a function that brings its own imports (its source is taken; it sees nothing of the test's file), or
        a file whose `function` is called. Arguments must be JSON; paths become text. Raises ScriptFailed.
        """
        return self.start(
            script, *arguments, function=function, extension=extension, variables=variables
        ).result(timeout)

    def start(
        self,
        script: Callable[..., Any] | Path,
        *arguments: Any,
        function: str = "main",
        extension: Extension = "none",
        variables: dict[str, str] | None = None,
    ) -> Running:
        """The same without waiting, for tests that do something meanwhile."""
        self._count += 1
        home = self.folder / f"run-{self._count}"
        (home / "user").mkdir(parents=True)
        if not isinstance(script, Path):
            script, function = write_source(script, home), script.__name__
        paths = [self._package(), self.environment.wheels] if extension == "package" else []
        task = {
            "script": str(script),
            "function": function,
            "arguments": arguments,
            "paths": [str(path) for path in paths],
            "zip": str(self._zip_file()) if extension == "installed" else None,
            "result": str(home / "result.json"),
        }
        (home / "task.json").write_text(json.dumps(task, default=str), encoding="utf-8")
        return Running(self.environment.python, home, variables or {})


class Running:
    """A script under way; leaving it as a context manager ends it."""

    def __init__(self, python: Path, home: Path, variables: dict[str, str]) -> None:
        self.home = home
        self._log = (home / "output.txt").open("wb")
        self.process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("inside.py")), str(home / "task.json")],
            env=clean_environment(home) | variables,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def result(self, timeout: float) -> Any:
        """Raises ScriptFailed, with the output, if the script raised or is not done in `timeout` seconds."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            self.end()
        if code != 0:
            how = f"ended with {code}" if code is not None else f"was not done after {timeout:.0f} s"
            raise ScriptFailed(f"the script {how}; its output:\n{self.output()[-8000:]}")
        return json.loads((self.home / "result.json").read_text(encoding="utf-8"))

    def output(self) -> str:
        return (self.home / "output.txt").read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """Kills what is left of the script and of what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()


def write_source(function: Callable[..., Any], folder: Path) -> Path:
    """A function's source as a script file, so that tracebacks can show its lines."""
    path = folder / "script.py"
    source = textwrap.dedent(inspect.getsource(function))
    path.write_text(f"from __future__ import annotations\n\n{source}", encoding="utf-8")
    return path


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's but what a process needs to start; every folder of the user lies in `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "LOCALAPPDATA": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "BLENDER_USER_RESOURCES": str(home / "user"),
    }


def copy_package(folder: Path) -> Path:
    """`folder` with the extension's source in it as the package `galatea`, laid out as in the built zip."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "wheels")
    shutil.copytree(ROOT / "blender_addon", folder / "galatea", ignore=ignored)
    shutil.copytree(ROOT / "protocol", folder / "galatea" / "protocol", ignore=ignored)
    return folder


def build_zip(python: str, folder: Path) -> Path:
    """The extension's zip, built as a person builds it."""
    command: Sequence[str] = [python, str(ROOT / "build_addon.py"), "--output", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.zip")
    return path
