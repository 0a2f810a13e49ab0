"""pip's output as progress and sentences, an interrupted pip's leftovers, and environments that cannot be made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from backend.setup.pip_runner import (
    NotOffered,
    PipRunner,
    Progress,
    SetupError,
    create_venv,
    explain,
    pip_is_old,
    remove_half_installed,
)

SPEAKING = """
print("Collecting numpy==2.4.6")
print("  Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl (16.9 MB)")
print("Progress 0 of 16900000")
print("Progress 16900000 of 16900000")
print("Using cached six-1.17.0-py2.py3-none-any.whl (11 kB)")
print("Installing collected packages: six, numpy")
"""


@pytest.fixture
def lock(tmp_path: Path):
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def run_script(script: str, root: Path, lock: int) -> list[Progress]:
    heard: list[Progress] = []
    PipRunner(root, heard.append, 20.0, lock)([sys.executable, "-c", script], "packages")
    return heard


def test_megabytes_and_names_are_read_from_pip(tmp_path: Path, lock: int) -> None:
    heard = run_script(SPEAKING, tmp_path, lock)
    assert heard[-1] == Progress("packages", pytest.approx(16.911), 20.0, "unpacking 2 packages")
    assert Progress("packages", 16.9, 20.0, "numpy") in heard
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)


def test_a_package_that_other_sources_may_have_is_told_apart(tmp_path: Path, lock: int) -> None:
    with pytest.raises(NotOffered):
        run_script(
            "import sys; sys.exit('ERROR: No matching distribution found for torch==2.13.0+cpu')", tmp_path, lock
        )
    with pytest.raises(SetupError, match="disk is full") as caught:
        run_script("import sys; sys.exit('OSError: [Errno 28] No space left on device')", tmp_path, lock)
    assert not isinstance(caught.value, NotOffered)


def test_pip_does_not_inherit_other_targets(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path))
    monkeypatch.setenv("PIP_FIND_LINKS", "kept")
    script = "import os, sys; sys.exit('PIP_TARGET' in os.environ or os.environ['PIP_FIND_LINKS'] != 'kept')"
    run_script(script, tmp_path, lock)


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'",
            "cannot be written to",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/torch/\n"
            "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu (from versions: none)\n"
            "ERROR: No matching distribution found for torch==2.13.0+cpu",
            r"torch==2.13.0\+cpu could not be downloaded; check the network",
        ),
        (
            "ERROR: No matching distribution found for xatlas==0.0.11",
            r"No source that pip knows has xatlas==0.0.11 for Python",
        ),
        ("Collecting a\nERROR: something new\nmore", "Setting up failed: ERROR: something new"),
        ("", "no message"),
    ],
)
def test_failures_become_one_sentence(log: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        raise SetupError(explain(log, Path("somewhere")))
    assert "\n" not in explain(log, Path("somewhere"))


def fake_package(site: Path, name: str, size_in_record: int | None) -> Path:
    """An installed package of one 3-byte module, with a RECORD that tells its size, or none."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text("x=1")
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    if size_in_record is not None:
        (info / "RECORD").write_text(f"{name}.py,sha256=abc,{size_in_record}\n{info.name}/RECORD,,\n")
    return info


def test_half_installed_packages_are_taken_off_the_books(tmp_path: Path) -> None:
    whole = fake_package(tmp_path, "whole", 3)
    unlisted = fake_package(tmp_path, "unlisted", None)
    cut_off = fake_package(tmp_path, "cut_off", 4)
    lost = fake_package(tmp_path, "lost", 3)
    (tmp_path / "lost.py").unlink()
    (tmp_path / "~tashed").mkdir()
    assert remove_half_installed(tmp_path) == ["cut_off", "lost", "unlisted"]
    assert whole.exists() and not any(info.exists() for info in (unlisted, cut_off, lost, tmp_path / "~tashed"))


@pytest.mark.parametrize(("version", "old"), [("23.2.1", True), ("24.0", True), ("24.1", False), ("26.3", False)])
def test_old_pips_are_recognized(tmp_path: Path, version: str, old: bool) -> None:
    (tmp_path / f"pip-{version}.dist-info").mkdir()
    assert pip_is_old(tmp_path) == old


def test_a_missing_venv_module_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv.py").write_text("raise ModuleNotFoundError(\"No module named 'venv'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"apt install python3\.\d+-venv"):
        create_venv(tmp_path / ".venv", lambda _: None)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="is not a virtual environment; move it away"):
        create_venv(folder, lambda _: None)
    assert (folder / "thesis.txt").exists()
