"""The bridge in real Blenders: every check of the bridge_*_checks.py scripts, one process for each script and Blender."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.blender.blender import Blender
from tests.blender.environments import Environment

HERE = Path(__file__).parent
CHECKS = [
    (path.stem, check)
    for path in sorted(HERE.glob("bridge_*_checks.py"))
    for check in re.findall(r"^def (check_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def outcomes(
    blender_environment: Environment, tmp_path_factory: pytest.TempPathFactory, addon_package, addon_zip
) -> Callable[[str], dict[str, str | None]]:
    """Runs a script when first asked for it: check -> None, or how it failed."""
    blender = Blender(blender_environment, tmp_path_factory.mktemp("bridge"), addon_package, addon_zip)
    return cache(lambda script: blender.run(HERE / f"{script}.py", extension="package", timeout=120))


@pytest.mark.parametrize(("script", "check"), CHECKS, ids=[f"{script[7:-7]}-{check[6:]}" for script, check in CHECKS])
def test_bridge(outcomes: Callable[[str], dict[str, str | None]], script: str, check: str) -> None:
    failure = outcomes(script)[check]
    assert failure is None, failure
