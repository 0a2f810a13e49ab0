"""The installed extension in real Blenders: the checks of the extension_*_checks.py scripts, and its coming and going."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.blender.blender import Blender, ScriptFailed, clean_environment
from tests.blender.environments import Environment

HERE = Path(__file__).parent
CHECKS = [
    (path.stem, check)
    for path in sorted(HERE.glob("extension_*_checks.py"))
    for check in re.findall(r"^def (check_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def outcomes(
    blender_environment: Environment, tmp_path_factory: pytest.TempPathFactory, addon_package, addon_zip
) -> Callable[[str], dict[str, str | None]]:
    """Runs a script when first asked for it: check -> None, or how it failed."""
    blender = Blender(blender_environment, tmp_path_factory.mktemp("extension"), addon_package, addon_zip)

    def run(script: str) -> dict[str, str | None]:
        try:
            return blender.run(HERE / f"{script}.py", extension="installed", timeout=120)
        except ScriptFailed as failure:
            return dict.fromkeys((check for _, check in CHECKS), str(failure))

    return cache(run)


@pytest.mark.parametrize(("script", "check"), CHECKS, ids=[f"{script[10:-7]}-{check[6:]}" for script, check in CHECKS])
def test_extension(outcomes: Callable[[str], dict[str, str | None]], script: str, check: str) -> None:
    failure = outcomes(script)[check]
    assert failure is None, failure


def test_the_libraries_are_the_bundled_ones(blender: Blender) -> None:
    def script() -> dict:
        import importlib.metadata

        import bpy
        import msgpack
        import msgspec
        import zmq

        user = bpy.utils.resource_path("USER")
        versions = {name: importlib.metadata.version(name) for name in ("pyzmq", "msgpack", "msgspec")}
        return {"versions": versions, "inside": all(module.__file__.startswith(user) for module in (msgpack, msgspec, zmq))}

    import build_addon

    seen = blender.run(script, extension="installed")
    assert seen["inside"] and seen["versions"] == build_addon.read_project(build_addon.ROOT).pins


def test_it_comes_and_goes_without_a_trace(blender: Blender) -> None:
    def script() -> list:
        import sys
        import threading

        import bpy

        module = "bl_ext.user_default.galatea"

        def traces() -> dict:
            handlers = [getattr(bpy.app.handlers, name) for name in ("undo_post", "redo_post", "load_post")]
            timer = sys.modules[f"{module}.timer"].tick
            return {
                "types": sorted(name for name in dir(bpy.types) if name.lower().startswith(("galatea", "jobcontrols"))),
                "operators": sorted(dir(bpy.ops.galatea)),
                "handlers": sum(function.__module__.startswith(module) for each in handlers for function in each),
                "timer": bpy.app.timers.is_registered(timer),
                "settings": hasattr(bpy.types.WindowManager, "galatea") or hasattr(bpy.types.Object, "galatea_regions"),
                "threads": [thread.name for thread in threading.enumerate() if thread.name.startswith("galatea")],
            }

        seen = [traces()]
        for _ in range(2):
            sys.modules[f"{module}.preferences"].open_link(bpy.context)
            bpy.ops.preferences.addon_disable(module=module)
            seen.append(traces())
            bpy.ops.preferences.addon_enable(module=module)
            seen.append(traces())
        return seen

    on, *later = blender.run(script, extension="installed")
    assert on["timer"] and on["handlers"] == 3 and len(on["operators"]) >= 15 and on["settings"] and on["threads"] == []
    off = {"types": [], "operators": [], "handlers": 0, "timer": False, "settings": False, "threads": []}
    assert later == [off, on, off, on]


def test_it_can_be_installed_over_itself(blender: Blender, addon_zip: Callable[[], Path]) -> None:
    def script(zip_file: str) -> list:
        import sys

        import bpy

        module = "bl_ext.user_default.galatea"
        before = sys.modules[f"{module}.session"]
        old_timer = sys.modules[f"{module}.timer"].tick
        bpy.ops.extensions.package_install_files(
            filepath=zip_file, repo="user_default", enable_on_install=False, overwrite=True
        )
        after = sys.modules[f"{module}.session"]
        new_timer = sys.modules[f"{module}.timer"].tick
        timers = [bpy.app.timers.is_registered(timer) for timer in (old_timer, new_timer)]
        return [after is not before, timers, after.current().jobs, before._session is None]

    assert blender.run(script, addon_zip(), extension="installed") == [True, [False, True], {}, True]


LEAVING = """
import sys
import bpy
module = "bl_ext.user_default.galatea"
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.extensions.package_install_files(filepath=sys.argv[1], repo="user_default", enable_on_install=False, overwrite=True)
bpy.ops.preferences.addon_enable(module=module)
bpy.context.window_manager.galatea.prompt = "a red mug"
bpy.ops.galatea.generate()
assert bpy.app.timers.is_registered(sys.modules[f"{module}.timer"].tick)
"""


def test_blender_can_end_while_a_job_runs(
    blender_environment: Environment, addon_zip: Callable[[], Path], tmp_path: Path
) -> None:
    """A timer that is registered when the interpreter ends hangs Blender 4.5."""
    command = [str(blender_environment.python), "-c", LEAVING, str(addon_zip())]
    done = subprocess.run(command, env=clean_environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
