"""The extension's zip: what is in it, that the same sources give the same bytes, and that faults are found."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import build_addon
from tests.blender.environments import ROOT, Environment

PINS = build_addon.read_project(ROOT).pins


@pytest.fixture
def stocked(tmp_path: Path) -> Path:
    """A cache of wheels, named as the real ones are; what is in them does not matter to who packs them."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for name, version in PINS.items():
        for python, abi in (("cp311", "cp311"), ("cp312", "abi3"), ("cp313", "cp313"), ("cp314", "cp314")):
            if (name == "pyzmq") == (python in ("cp311", "cp312")) or python == "cp311":
                for tags in build_addon.PLATFORM_TAGS.values():
                    (cache / f"{name}-{version}-{python}-{abi}-{tags[0]}.whl").write_bytes(f"{name} {python} {tags[0]}".encode())
    return cache


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("everything is in the cache")

    monkeypatch.setattr(build_addon, "download", refuse)


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.mark.usefixtures("no_downloads")
def test_the_same_sources_give_the_same_bytes(stocked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for folder in ("blender_addon", "protocol"):
        shutil.copytree(ROOT / folder, copy / folder)
    for file in ("pyproject.toml", "LICENSE"):
        shutil.copyfile(ROOT / file, copy / file)
    platforms = list(build_addon.PLATFORM_TAGS)
    built = [build_addon.build(root, tmp_path / name, platforms, stocked) for root, name in ((ROOT, "one"), (copy, "two"))]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in built}
    assert len(digests) == 1
    names = names_in(built[0])
    assert names == sorted(names) and not [name for name in names if "__pycache__" in name]


@pytest.mark.usefixtures("no_downloads")
def test_every_platform_and_python_has_each_library_once(stocked: Path, tmp_path: Path) -> None:
    (stocked / f"pyzmq-1.0-cp311-cp311-{build_addon.PLATFORM_TAGS['linux-x64'][0]}.whl").write_bytes(b"another version")
    wheels = build_addon.collect_wheels(PINS, list(build_addon.PLATFORM_TAGS), stocked)
    assert len(wheels) == len({wheel.name for wheel in wheels}) == 6 * (2 + 3 + 3)
    for platform in build_addon.PLATFORM_TAGS:
        for python in build_addon.PYTHONS:
            for pin in PINS.items():
                assert sum(build_addon.fits(wheel, pin, platform, python) for wheel in wheels) == 1, (platform, python, pin)


def test_which_wheels_fit() -> None:
    def fits(tags: str, platform: str, python: str) -> bool:
        return build_addon.fits(Path(f"pyzmq-27.0-{tags}.whl"), ("pyzmq", "27.0"), platform, python)

    assert fits("cp312-abi3-manylinux_2_26_x86_64.manylinux_2_28_x86_64", "linux-x64", "3.13")
    assert fits("cp312-abi3-macosx_10_15_universal2", "macos-arm64", "3.14")
    assert not fits("cp312-abi3-win_amd64", "windows-x64", "3.11"), "made for later Pythons"
    assert not fits("cp313-cp313-win_amd64", "windows-x64", "3.14")
    assert not fits("cp313-cp313t-win_amd64", "windows-x64", "3.13"), "without the global lock"
    assert not fits("cp311-cp311-musllinux_1_2_x86_64", "linux-x64", "3.11")
    assert not build_addon.fits(Path("pyzmq-27.0.tar.gz"), ("pyzmq", "27.0"), "linux-x64", "3.11")


def test_the_built_zip_holds_the_sources_and_wheels_that_blender_accepts(
    addon_zip: Callable[[], Path], blender_environment: Environment
) -> None:
    path = addon_zip()
    assert build_addon.check(path) == []
    build_addon.validate(path, str(blender_environment.python))
    names = names_in(path)
    ours = {file.relative_to(ROOT / "blender_addon").as_posix() for file in (ROOT / "blender_addon").rglob("*.py")}
    protocol = {file.relative_to(ROOT).as_posix() for file in (ROOT / "protocol").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == ours | protocol
    assert {name for name in names if not name.endswith((".py", ".whl"))} == {"LICENSE", "blender_manifest.toml"}
    with zipfile.ZipFile(path) as archive:
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert manifest["version"] == project["version"] and manifest["license"] == [f"SPDX:{project['license']}"]
    assert "Blender" not in manifest["name"] and manifest["blender_version_min"] == "4.5.0"


MANIFEST = (ROOT / "blender_addon" / "blender_manifest.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"__init__.py": b"def f(:\n"}, "__init__.py line 1"),
        ({"__init__.py": b"type X = int\n"}, "__init__.py line 1"),  # Python 3.12's
        ({"__init__.py": None}, "__init__.py is missing"),
        ({"protocol/__init__.py": None}, "protocol/__init__.py is missing"),
        ({"a/__pycache__/b.pyc": b""}, "has no place"),
        ({"../outside.py": b""}, "has no place"),
        ({"wheels/stray.whl": b""}, "wheels/stray.whl is not in the manifest"),
        ({"wheels/a.whl": None}, "lists wheels/a.whl, which is not there"),
        ({"blender_manifest.toml": b'id = "galatea"'}, "the manifest has no version"),
        ({"blender_manifest.toml": b"[permissions]\nnetwork = 'Anything.'"}, "permission network"),
    ],
)
def test_faults_are_found(tmp_path: Path, files: dict[str, bytes | None], complaint: str) -> None:
    sound = {
        "__init__.py": b"",
        "protocol/__init__.py": b"",
        "wheels/a.whl": b"",
        "blender_manifest.toml": build_addon.complete_manifest(MANIFEST, "1.0.0", ["linux-x64"], [Path("a.whl")]).encode(),
    }
    path = tmp_path / "a.zip"
    path.write_bytes(build_addon.make_zip(sound))
    assert build_addon.check(path) == []
    path.write_bytes(build_addon.make_zip({name: data for name, data in (sound | files).items() if data is not None}))
    assert any(complaint in wrong for wrong in build_addon.check(path)), build_addon.check(path)


def test_a_damaged_zip_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(build_addon.make_zip({"__init__.py": b"x = 1  # some text", "wheels/a.whl": b"0123456789"}))
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    assert "wheels/a.whl is damaged" in build_addon.check(path)


def test_a_missing_pin_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1"\ndependencies = ["pyzmq==27.0", "msgspec==0.1"]\n')
    with pytest.raises(build_addon.BuildError, match="does not pin msgpack"):
        build_addon.read_project(tmp_path)


def test_what_pip_cannot_find_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(build_addon.BuildError, match=r"could not download pyzmq .* for linux-x64, Python 3.11: "):
        build_addon.collect_wheels(PINS, ["linux-x64"], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half done is left"
