"""The Blenders that tests of the extension run in: `blender` stands for each of them in turn."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from tests.blender.blender import Blender, build_zip, copy_package
from tests.blender.environments import RELEASES, Environment, make_environment


@pytest.fixture(scope="session", params=sorted(RELEASES))
def blender_environment(request: pytest.FixtureRequest) -> Environment:
    """bpy in an environment of its own; skips where it cannot be had."""
    return make_environment(RELEASES[request.param])


@pytest.fixture(scope="session")
def addon_package(tmp_path_factory: pytest.TempPathFactory):
    """Makes, when first called, a folder in which the extension's source is the package `galatea`."""
    return cache(lambda: copy_package(tmp_path_factory.mktemp("package")))


@pytest.fixture(scope="session")
def addon_zip(tmp_path_factory: pytest.TempPathFactory):
    """Builds, when first called, the extension's zip; returns its path."""
    return cache(lambda: build_zip(sys.executable, tmp_path_factory.mktemp("zip")))


@pytest.fixture
def blender(blender_environment: Environment, tmp_path: Path, addon_package, addon_zip) -> Blender:
    """See `Blender`: `blender.run(function, *arguments, extension="package")`."""
    return Blender(blender_environment, tmp_path / "blender", addon_package, addon_zip)
