"""The frame of the command line: every subcommand is there and light, and errors become exit codes."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from backend.cli.bench_step import PARTS
from backend.cli.main import COMMANDS, main
from backend.cli.test import pytest_command
from backend.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"torch", "warp", "matplotlib", "diffusers", "transformers", "trimesh", "scipy", "skimage"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_subcommand_is_there(command) -> None:
    module = importlib.import_module(f"backend.cli.{command.module}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert callable(module.run)
    assert parser.format_help()


def test_arguments_are_read_without_heavy_imports() -> None:
    """`--help` and bad arguments must answer at once; a fresh process imports all subcommands and is asked what came."""
    names = ", ".join(f"backend.cli.{command.module}" for command in COMMANDS)
    script = f"import sys, {names}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr


def raising(error: BaseException) -> types.ModuleType:
    """A subcommand's module whose `run` raises."""
    module = types.ModuleType("backend.cli.doctor")
    module.add_arguments = lambda parser: None

    def run(arguments: argparse.Namespace) -> int:
        raise error

    module.run = run
    return module


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("The prompt is empty."), 2, "galatea: The prompt is empty.\n"),
        (KeyboardInterrupt(), 130, "galatea: interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "mesh.glb"),
            2,
            "galatea: the disk is full while writing mesh.glb; free some space and run the same command again\n",
        ),
    ],
)
def test_errors_become_one_sentence_and_a_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "backend.cli.doctor", raising(error))
    assert main(["doctor"]) == code
    assert capsys.readouterr() == ("", said)


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backend.cli.doctor", raising(OSError(errno.EIO, "odd")))
    with pytest.raises(OSError, match="odd"):
        main(["doctor"])


@pytest.mark.parametrize("argv", [[], ["paint"], ["doctor", "--jsn"], ["doctor", "extra"]])
def test_unknown_words_end_with_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "usage: galatea" in capsys.readouterr().err


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(command.name in said for command in COMMANDS)


def test_pytest_gets_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "backend.cli.test.subprocess.run",
        lambda command, **_: seen.update(got=command) or types.SimpleNamespace(returncode=5),
    )
    assert main(["test", "-k", "launcher", "tests/backend", "--all", "-x"]) == 5
    assert seen["got"] == pytest_command(True, ["-k", "launcher", "tests/backend", "-x"])
    assert seen["got"][1:5] == ["-m", "pytest", "-m", ""]


def test_bench_times_every_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    assert main(["bench", "--json", str(file), "--repeats", "1", "--resolution", "8"]) == 0
    assert "regularizers" in capsys.readouterr().out
    table = json.loads(file.read_text())
    assert len(table) == 2
    for parts in table.values():
        assert parts["all"] == pytest.approx(sum(parts[part] for part in PARTS), abs=0.1)
        assert min(parts.values()) > 0.0
    assert main(["bench", "--repeats", "0"]) == 2
    assert capsys.readouterr().err == "galatea: --repeats is 0; it must be 1 or more.\n"
