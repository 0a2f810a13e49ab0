#!/usr/bin/env python3
"""Builds the Blender extension: `python3 build_addon.py` writes `dist/galatea-VERSION.zip`, to be installed from disk.

The zip holds `blender_addon/`, `protocol/` as its subpackage, and the wheels of the three packages that the protocol
needs, for every platform and every Python that a supported Blender comes with; Blender picks the ones that fit. Only
Python 3.11 or later with pip is needed. Wheels are downloaded once into the user's cache folder, in the versions that
pyproject.toml pins. The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

from backend.cache_folder import cache_folder

ROOT = Path(__file__).resolve().parent
PACKAGES = ("pyzmq", "msgpack", "msgspec")
PYTHONS = ("3.11", "3.13", "3.14")
"""Of Blender 4.5, of Blender 5, and of the Blender that Debian builds."""

# What wheels for a platform of Blender's may be tagged with, in pip's words; pip takes the first that is offered.
PLATFORM_TAGS = {
    "linux-x64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_26_x86_64", "manylinux_2_28_x86_64"),
    "linux-arm64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_26_aarch64", "manylinux_2_28_aarch64"),
    "windows-x64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
    "macos-arm64": ("macosx_11_0_arm64", "macosx_10_15_universal2"),
    "macos-x64": ("macosx_10_9_x86_64", "macosx_10_13_x86_64", "macosx_10_15_x86_64", "macosx_10_15_universal2"),
}  # fmt: skip
REQUIRED_FIELDS = (
    "schema_version", "id", "version", "name", "tagline", "maintainer", "type", "blender_version_min", "license",
    "platforms", "wheels", "permissions",
)  # fmt: skip
FIXED_TIME = (1980, 1, 1, 0, 0, 0)


class BuildError(Exception):
    """The extension cannot be built; the message is a sentence that says what to do."""


class Project(NamedTuple):
    """What pyproject.toml says: our version, and the pinned version of each bundled package."""

    version: str
    pins: dict[str, str]


def read_project(root: Path) -> Project:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(line.split("==") for line in project["dependencies"] if "==" in line)
    missing = [package for package in PACKAGES if package not in pins]
    if missing:
        raise BuildError(f"pyproject.toml does not pin {', '.join(missing)}: add each as `name==version`.")
    return Project(project["version"], {package: pins[package] for package in PACKAGES})


# ---- wheels


def python_tags(python: str) -> set[str]:
    """The (python, abi) tags, joined by a dash, of wheels that run on CPython `python` ("3.13"): its own, and abi3."""
    minor = int(python.split(".")[1])
    return {f"cp3{minor}-cp3{minor}"} | {f"cp3{older}-abi3" for older in range(2, minor + 1)}


def fits(wheel: Path, requirement: tuple[str, str], platform: str, python: str) -> bool:
    """Whether the wheel is of this (name, version) and runs on this platform and Python, by its file name."""
    parts = wheel.name.removesuffix(".whl").split("-")
    if len(parts) != 5 or (parts[0], parts[1]) != requirement:
        return False
    return f"{parts[2]}-{parts[3]}" in python_tags(python) and bool(set(parts[4].split(".")) & set(PLATFORM_TAGS[platform]))


def download(missing: list[tuple[str, str]], platform: str, python: str, cache: Path) -> None:
    """Lets pip fetch the wheels of `missing` into `cache`, each complete or not at all. Raises BuildError."""
    digits = python.replace(".", "")
    target = ["--implementation", "cp", "--python-version", python, "--abi", f"cp{digits}", "--abi", "abi3"]
    target += [word for tag in PLATFORM_TAGS[platform] for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--only-binary=:all:", "--no-deps", *target, "--dest", folder]
        command += [f"{name}=={version}" for name, version in missing]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            names = ", ".join(f"{name} {version}" for name, version in missing)
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise BuildError(f"pip could not download {names} for {platform}, Python {python}: {said}")
        for wheel in Path(folder).glob("*.whl"):
            os.replace(wheel, cache / wheel.name)


def collect_wheels(pins: dict[str, str], platforms: list[str], cache: Path) -> list[Path]:
    """The wheels for all `platforms` and PYTHONS, from the cache or downloaded into it; sorted by name."""
    cache.mkdir(parents=True, exist_ok=True)
    chosen = set()
    for platform in platforms:
        for python in PYTHONS:
            there = sorted(cache.glob("*.whl"))
            missing = [pin for pin in pins.items() if not any(fits(wheel, pin, platform, python) for wheel in there)]
            if missing:
                print(f"downloading {', '.join(name for name, _ in missing)} for {platform}, Python {python}", flush=True)
                download(missing, platform, python, cache)
                there = sorted(cache.glob("*.whl"))
            for name, version in pins.items():
                fitting = [wheel for wheel in there if fits(wheel, (name, version), platform, python)]
                if not fitting:
                    raise BuildError(f"there is no wheel of {name} {version} for {platform}, Python {python}.")
                chosen.add(fitting[0])
    return sorted(chosen, key=lambda wheel: wheel.name)


# ---- the zip


def complete_manifest(template: str, version: str, platforms: list[str], wheels: list[Path]) -> str:
    """The manifest with what only the build knows, put before its first table."""
    head, bracket, tables = template.partition("\n[")
    names = "".join(f"  {json.dumps(f'./wheels/{wheel.name}')},\n" for wheel in wheels)
    known = f"version = {json.dumps(version)}\nplatforms = {json.dumps(platforms)}\nwheels = [\n{names}]\n"
    return f"{head.rstrip()}\n{known}{bracket}{tables}"


def source_files(root: Path) -> dict[str, bytes]:
    """Path in the zip -> content, of everything but the manifest and the wheels."""
    files = {"LICENSE": (root / "LICENSE").read_bytes()}
    for folder, prefix in ((root / "blender_addon", ""), (root / "protocol", "protocol/")):
        for path in sorted(folder.rglob("*.py")):
            files[prefix + path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def make_zip(files: dict[str, bytes]) -> bytes:
    """A zip that depends on the files' names and contents only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.create_system = 3  # the same on every system that builds
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def build(root: Path, output: Path, platforms: list[str], cache: Path) -> Path:
    """Writes the zip into the folder `output` and returns its path. Raises BuildError."""
    project = read_project(root)
    wheels = collect_wheels(project.pins, platforms, cache)
    files = source_files(root)
    template = (root / "blender_addon" / "blender_manifest.toml").read_text(encoding="utf-8")
    files["blender_manifest.toml"] = complete_manifest(template, project.version, platforms, wheels).encode()
    files |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels}
    suffix = "" if len(platforms) == len(PLATFORM_TAGS) else "-" + "-".join(name.replace("-", "_") for name in platforms)
    path = output / f"galatea-{project.version}{suffix}.zip"
    output.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(make_zip(files))
    os.replace(partial, path)
    return path


# ---- is it what it should be


def check(path: Path) -> list[str]:
    """What is wrong with an extension zip, one sentence each; empty if it can be installed."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        broken = archive.testzip()
        wrong = [f"{broken} is damaged"] if broken else []
        wrong += [f"{name} has no place in the zip" for name in names if "__pycache__" in name or ".." in name.split("/")]
        for name in names:
            if name.endswith(".py"):
                try:
                    ast.parse(archive.read(name), name, feature_version=(3, 11))
                except SyntaxError as error:
                    wrong.append(f"{name} line {error.lineno}: {error.msg}")
        needed = ("__init__.py", "protocol/__init__.py", "blender_manifest.toml")
        wrong += [f"{name} is missing" for name in needed if name not in names]
        if "blender_manifest.toml" in names:
            manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
            wrong += check_manifest(manifest, names)
    return wrong


def check_manifest(manifest: dict, names: list[str]) -> list[str]:
    """What is wrong with the manifest of a zip that holds `names`."""
    wrong = [f"the manifest has no {field}" for field in REQUIRED_FIELDS if field not in manifest]
    listed = [wheel.removeprefix("./") for wheel in manifest.get("wheels", [])]
    there = [name for name in names if name.endswith(".whl")]
    wrong += [f"the manifest lists {wheel}, which is not there" for wheel in listed if wheel not in there]
    wrong += [f"{wheel} is not in the manifest" for wheel in there if wheel not in listed]
    for key, reason in manifest.get("permissions", {}).items():
        if not 0 < len(reason) <= 64 or reason.endswith("."):
            wrong.append(f"the reason for the permission {key} must be short and without a full stop")
    return wrong


def blenders_validator(python: str | None) -> list[str] | None:
    """The beginning of the command line of Blender's own check: of the bpy module in `python`, else of a Blender on PATH."""
    if python:
        where = "import importlib.util as u; print(u.find_spec('bpy').submodule_search_locations[0])"
        asked = subprocess.run([python, "-c", where], capture_output=True, text=True)
        scripts = list(Path(asked.stdout.strip()).glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
        if asked.returncode or not scripts:
            raise BuildError(f"{python} has no bpy module: give --validate-with a Python that has one.")
        return [python, str(scripts[0]), "validate"]
    blender = shutil.which("blender")
    return [blender, "--background", "--factory-startup", "--command", "extension", "validate"] if blender else None


def validate(path: Path, python: str | None) -> None:
    """Our own checks, then Blender's where there is one. Raises BuildError."""
    wrong = check(path)
    if wrong:
        raise BuildError(f"{path} is not sound: {'; '.join(wrong)}.")
    validator = blenders_validator(python)
    if validator is None:
        print("no Blender found to validate with (see --validate-with); our own checks passed")
        return
    done = subprocess.run([*validator, str(path)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise BuildError(f"Blender refuses {path}: {(done.stdout + done.stderr).strip()}")
    print(f"valid, says {validator[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds and validates the Blender extension.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the zip (default: dist)")
    parser.add_argument("--platform", action="append", choices=list(PLATFORM_TAGS), help="only for this one; repeatable")
    parser.add_argument("--validate-with", metavar="PYTHON", help="a Python with the bpy module, for Blender's own check")
    arguments = parser.parse_args()
    platforms = sorted(set(arguments.platform or PLATFORM_TAGS), key=list(PLATFORM_TAGS).index)
    try:
        path = build(ROOT, arguments.output, platforms, cache_folder() / "wheels")
        validate(path, arguments.validate_with)
    except BuildError as error:
        print(f"build_addon: {error}", file=sys.stderr)
        return 1
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
