"""The launcher without a network: which torch, which command lines, what counts as ready, how it hands over."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import galatea
from backend.setup.pip_runner import SetupError

ROOT = Path(galatea.__file__).resolve().parent
INDEX = "https://download.pytorch.org/whl"
POSIX = pytest.mark.skipif(os.name == "nt", reason="uses POSIX shells, links and signals")


@pytest.mark.parametrize(
    ("machine", "wanted", "build"),
    [
        (galatea.Machine("Linux"), None, "cpu"),
        (galatea.Machine("Linux", nvidia_driver=580), None, "cuda"),
        (galatea.Machine("Linux", nvidia_driver=570), None, "cpu"),  # CUDA 13 and Warp need R580
        (galatea.Machine("Linux", nvidia_driver=570), "cuda", "cuda"),
        (galatea.Machine("Linux", nvidia_driver=590), "cpu", "cpu"),
        (galatea.Machine("Linux", rocm=True), None, "rocm"),
        (galatea.Machine("Windows"), None, "cpu"),
        (galatea.Machine("Windows", nvidia_driver=591), None, "cuda"),
        (galatea.Machine("Darwin"), None, "mps"),
        (galatea.Machine("Darwin"), "cpu", "mps"),  # one build does both
    ],
)
def test_torch_build_fits_the_machine(machine: galatea.Machine, wanted: str | None, build: str) -> None:
    assert galatea.choose_torch(machine, wanted)[0] == build


@pytest.mark.parametrize(("system", "wanted"), [("Darwin", "cuda"), ("Darwin", "rocm"), ("Windows", "rocm")])
def test_builds_that_do_not_exist_are_refused(system: str, wanted: str) -> None:
    with pytest.raises(SetupError, match=f"There is no {wanted} build|There is no ROCm build"):
        galatea.choose_torch(galatea.Machine(system), wanted)


@pytest.mark.parametrize(
    ("build", "system", "configured", "folder", "on_index"),
    [
        ("cpu", "Linux", "torch==2.13.0+cpu", "cpu", "torch==2.13.0+cpu"),
        ("cuda", "Linux", "torch===2.13.0", "cu130", "torch==2.13.0+cu130"),
        ("rocm", "Linux", "torch==2.13.0+rocm7.2", "rocm7.2", "torch==2.13.0+rocm7.2"),
        ("cpu", "Windows", "torch===2.13.0", "cpu", "torch==2.13.0+cpu"),
        ("cuda", "Windows", "torch==2.13.0+cu130", "cu130", "torch==2.13.0+cu130"),
        ("mps", "Darwin", "torch===2.13.0", "cpu", "torch===2.13.0"),
    ],
)
def test_configured_sources_come_before_pytorchs_index(
    build: str, system: str, configured: str, folder: str, on_index: str
) -> None:
    first, second = galatea.torch_commands("PY", build, system)
    pip = [
        "PY",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "raw",
        "--no-deps",
    ]
    assert first == [*pip, configured]
    assert second == [*pip, "--index-url", f"{INDEX}/{folder}", on_index]


def test_packages_come_from_configured_sources_alone_but_for_rocm(tmp_path: Path) -> None:
    command = galatea.packages_command("PY", "cuda", tmp_path, ["torch==2.13.0", "numpy==1"])
    assert not any("index-url" in argument for argument in command)
    assert command[-4:] == ["--constraint", str(tmp_path / "constraints.txt"), "torch==2.13.0", "numpy==1"]
    command = galatea.packages_command("PY", "rocm", tmp_path, ["torch==2.13.0"])
    assert command[command.index("--extra-index-url") + 1] == f"{INDEX}/rocm7.2"


def test_torch_version_is_the_pinned_one() -> None:
    assert f"torch=={galatea.TORCH}" in galatea.read_requirements(ROOT)[""]


@pytest.mark.parametrize("name", ["galatea.py", "backend/setup/pip_runner.py"])
def test_old_pythons_can_read_the_launcher(name: str) -> None:
    ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 8))


@POSIX
@pytest.mark.parametrize(
    ("printed", "driver"), [("580.95.05", 580), ("570.211.01\n570.211.01", 570), ("NVIDIA-SMI has failed", 0)]
)
def test_nvidia_driver_is_read_from_its_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, driver: int
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{printed}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert galatea.detect_machine().nvidia_driver == driver


@pytest.mark.parametrize(
    ("arguments", "torch", "rest"),
    [
        (["--torch", "cpu", "generate", "a mug"], "cpu", ["generate", "a mug"]),
        (["generate", "a mug", "--torch=cuda"], "cuda", ["generate", "a mug"]),
        (["generate", "a --torch lamp"], None, ["generate", "a --torch lamp"]),
    ],
)
def test_torch_option_stands_anywhere(arguments: list[str], torch: str | None, rest: list[str]) -> None:
    assert galatea.take_torch(arguments) == (torch, rest)


@pytest.mark.parametrize("arguments", [["--torch"], ["--torch", "tpu"], ["generate", "--torch="]])
def test_other_torch_builds_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SetupError, match="cpu, cuda or rocm"):
        galatea.take_torch(arguments)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything is installed already, as its stamp tells; its CLI prints how it was called."""
    root = tmp_path / "the checkout"
    shutil.copytree(ROOT / "backend" / "setup", root / "backend" / "setup")
    for name in ("galatea.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    (root / "backend" / "__init__.py").touch()
    (root / "backend" / "cli").mkdir()
    (root / "backend" / "cli" / "__init__.py").touch()
    (root / "backend" / "cli" / "__main__.py").write_text(
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.getcwd()]))\nsys.exit(7)\n"
    )
    python = galatea.venv_python(root)
    python.parent.mkdir(parents=True)
    if os.name != "nt":
        python.symlink_to(sys.executable)
    stamp = {"fingerprint": galatea.fingerprint(root, galatea.read_requirements(root)), "torch": "cpu", "groups": []}
    (root / ".venv" / "galatea.json").write_text(json.dumps(stamp))
    return root


@POSIX
def test_hands_over_arguments_folder_and_exit_code(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "backend").mkdir(parents=True)
    (elsewhere / "backend" / "__init__.py").write_text("raise SystemExit('a stranger shadowed Galatea')")
    command = [sys.executable, str(checkout / "galatea.py"), "generate", "a red mug", "--torch", "cpu", "--steps", "3"]
    ended = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=60)
    assert json.loads(ended.stdout) == [["generate", "a red mug", "--steps", "3"], str(elsewhere)]
    assert (ended.returncode, ended.stderr) == (7, "")


@POSIX
def test_ready_until_anything_pinned_changes(checkout: Path) -> None:
    assert galatea.is_ready(checkout, None, ())
    assert galatea.is_ready(checkout, "cpu", ())
    assert not galatea.is_ready(checkout, "cuda", ())
    assert not galatea.is_ready(checkout, None, ("test",))
    with (checkout / "constraints.txt").open("a") as constraints:
        constraints.write("another==1.0\n")
    assert not galatea.is_ready(checkout, None, ())


@POSIX
def test_not_ready_where_the_interpreter_or_the_stamp_is_gone(checkout: Path) -> None:
    stamp = checkout / ".venv" / "galatea.json"
    stamp.write_text(stamp.read_text()[:20])  # cut off
    assert not galatea.is_ready(checkout, None, ())
    stamp.unlink()
    assert not galatea.is_ready(checkout, None, ())


@POSIX
def test_a_killed_start_frees_the_lock_but_its_pip_does_not(tmp_path: Path) -> None:
    """The lock's descriptor goes to pip, so an orphaned pip keeps others waiting until it has ended."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import galatea, pathlib, subprocess, sys, time\n"
            f"with galatea.only_one(pathlib.Path({str(tmp_path)!r}), print) as lock:\n"
            "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'], pass_fds=(lock,))\n"
            "    print(child.pid, flush=True)\n"
            "    time.sleep(30)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = int(holder.stdout.readline())
    descriptor = os.open(tmp_path / ".venv.lock", os.O_RDWR)
    try:
        holder.kill()
        holder.wait()
        assert not galatea.try_lock(descriptor)
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not galatea.try_lock(descriptor):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.close(descriptor)
        holder.stdout.close()


def test_a_full_disk_is_told_before_anything_is_made(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galatea.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 3_000_000))
    with pytest.raises(SetupError, match="has 3 MB free and Galatea needs 2300 MB; free some space"):
        galatea.check_space(checkout, 2300)


def test_what_is_there_counts_as_space(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galatea.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 3_000_000))
    (checkout / ".venv" / "large").write_bytes(bytes(4_000_000))
    galatea.check_space(checkout, 7)
