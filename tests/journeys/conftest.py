"""What the journeys share: the real command line in a subprocess, and a prior small enough to answer at once."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.journeys.service import Service

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "backend.cli")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a command: one thread, so that nothing depends on the machine."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def galatea(environment: dict[str, str]) -> Run:
    """Runs the command line with `words` in the folder `cwd` to its end."""

    def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, words)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def here() -> Run:
    """The same within this process: for the many runs that need no process of their own to be killed or watched."""
    from backend.cli.main import main

    def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main([*map(str, words)])
        return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all journeys that do not kill it: its prior is loaded once."""
    with Service(tmp_path_factory.mktemp("served") / "service") as running:
        yield running


@pytest.fixture(scope="session")
def untrained_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of toybox's kind with random weights: every part of a job runs, only nothing sensible appears."""
    from backend.toybox.captions import VOCABULARY
    from backend.toybox.model import ToyboxModel

    folder = tmp_path_factory.mktemp("prior") / "untrained"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ToyboxModel.new(list(VOCABULARY)).save(folder)
    return folder
