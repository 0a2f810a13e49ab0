"""`galatea test`: the fast suite, or all of it with `--all`; further arguments go to pytest as they are."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from backend.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="the slow tests as well")
    parser.set_defaults(passed_on=[])


def run(arguments: argparse.Namespace) -> int:
    """pytest's exit code. Raises InputError where pytest is not installed."""
    if importlib.util.find_spec("pytest") is None:
        raise InputError("pytest is not installed here; start the tests with: python3 galatea.py test")
    return subprocess.run(pytest_command(arguments.all, arguments.passed_on), cwd=ROOT, env=environment()).returncode


def pytest_command(everything: bool, further: list[str]) -> list[str]:
    """pytest's command line; its defaults (the slow tests left out) are in pyproject.toml."""
    return [sys.executable, "-m", "pytest", *(["-m", ""] if everything else []), *further]


def environment() -> dict[str, str]:
    """One thread: sums, and so results, depend on their number."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
