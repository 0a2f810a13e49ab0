"""Blender as a Python module, each version in a virtual environment of its own within the user's cache folder.

The environments never hold pyzmq, msgpack or msgspec: the extension brings these as wheels, and copies in the environment
would hide that they are missing or broken there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

import galatea
from backend.cache_folder import cache_folder

ROOT = Path(__file__).parents[2]
BUNDLED = ("pyzmq", "msgpack", "msgspec")


@dataclass(frozen=True)
class Release:
    """A version of the bpy module and the only Python that it runs on."""

    name: str
    bpy: str
    python: tuple[int, int]


RELEASES = {
    "blender-4.5": Release("blender-4.5", "4.5.15", (3, 11)),
    "blender-5.2": Release("blender-5.2", "5.2.3", (3, 13)),
}


@dataclass(frozen=True)
class Environment:
    """A ready one. `wheels` is a folder with what the extension bundles, for tests of its code without its packaging."""

    release: Release
    python: Path
    wheels: Path


def make_environment(release: Release) -> Environment:
    """The release's environment, made on first use (15 s and 1 GB, mostly the download).

    Skips the test where the release's Python is not there, and where bpy cannot be installed or started, unless CI is
    set: then that is a failure.
    """
    base = find_python(release.python)
    if base is None:
        pytest.skip(f"{release.name} needs Python {release.python[0]}.{release.python[1]}, which is not on this machine")
    places = cache_folder() / "blender"
    places.mkdir(exist_ok=True)
    environment = Environment(release, places / f"bpy-{release.bpy}" / python_in_venv(), places / f"wheels-{release.bpy}")
    with galatea.only_one(places, lambda progress: None):
        try:
            ensure(places / f"bpy-{release.bpy}", [f"bpy=={release.bpy}"], lambda folder: fill_venv(base, folder, release.bpy))
            pins = bundled_pins()
            ensure(environment.wheels, pins, lambda folder: pip(environment.python, "--target", folder, "--no-deps", *pins))
        except subprocess.CalledProcessError as error:
            give_up(f"{release.name} cannot be installed here: {error.stderr.strip()[-600:]}")
    tried = subprocess.run([str(environment.python), "-c", "import bpy"], capture_output=True, text=True, timeout=120)
    if tried.returncode:
        give_up(f"{release.name} does not start here: {tried.stderr.strip()[-300:]} (.ci/run installs what it needs)")
    names = installed(environment.python)
    assert not names & set(BUNDLED), f"{environment.python} must not hold what the extension bundles"
    return environment


def give_up(reason: str) -> NoReturn:
    """Where CI is set, everything has to be tested; elsewhere a machine may lack something."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_python(version: tuple[int, int]) -> str | None:
    """An interpreter of that version: this one, one on PATH, or one of pyenv's."""
    name = f"python{version[0]}.{version[1]}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [sys.executable, shutil.which(name), *sorted(pyenv.glob(f"{version[0]}.{version[1]}.*/bin/{name}"))]
    return next((str(path) for path in candidates if path and galatea.python_version(str(path)) == version), None)


def python_in_venv() -> str:
    return "Scripts/python.exe" if os.name == "nt" else "bin/python"


def ensure(folder: Path, contents: list[str], fill: Callable[[Path], None]) -> None:
    """`folder` filled with `contents`, complete or not there at all: made under another name and then renamed."""
    stamp = folder / "complete.json"
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == contents:
        return
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", suffix="-unfinished", dir=folder.parent))
    try:
        fill(unfinished)
        (unfinished / stamp.name).write_text(json.dumps(contents), encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fill_venv(base: str, folder: Path, bpy: str) -> None:
    call([base, "-m", "venv", "--clear", str(folder)])
    pip(folder / python_in_venv(), f"bpy=={bpy}")


def pip(python: Path, *arguments: object) -> None:
    call([str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *map(str, arguments)])


def call(command: list[str]) -> None:
    """Raises CalledProcessError with the output in it, and ends a download that hangs."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired as error:
        raise subprocess.CalledProcessError(124, command, stderr="it took more than 15 minutes") from error


def installed(python: Path) -> set[str]:
    """The names of the packages in an environment, read without starting it."""
    root = python.parents[1]
    folders = [*root.glob("lib/python*/site-packages"), root / "Lib" / "site-packages"]
    return {info.name.split("-")[0].lower() for folder in folders for info in folder.glob("*.dist-info")}


def bundled_pins() -> list[str]:
    """`name==version` of what the extension bundles, as this project pins it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line for line in project["dependencies"] if line.split("==")[0] in BUNDLED]
