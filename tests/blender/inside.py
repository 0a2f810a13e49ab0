"""Runs in Blender's Python, in a process of its own: `python inside.py TASK.json`; never imported by a test.

It makes the extension available as the task says, calls the task's function, writes what that returns, switches the
extension off and leaves at once: a timer that is still registered when the interpreter ends hangs Blender 4.5 for ever.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

MODULE = "bl_ext.user_default.galatea"


def main(task_file: str) -> int:
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    sys.path[:0] = task["paths"]
    sys.path.append(str(Path(__file__).parents[2]))  # last: scripts may share code as `tests....`
    if task["zip"]:
        install(task["zip"])
    try:
        returned = load(task["script"], task["function"])(*task["arguments"])
        Path(task["result"]).write_text(json.dumps(returned, default=plain), encoding="utf-8")
    finally:
        if task["zip"]:
            bpy.ops.preferences.addon_disable(module=MODULE)
    return 0


def install(zip_file: str) -> None:
    """As a person does it: Install from Disk, then the check mark."""
    import bpy

    bpy.ops.extensions.package_install_files(
        filepath=zip_file, repo="user_default", enable_on_install=False, overwrite=True
    )
    bpy.ops.preferences.addon_enable(module=MODULE)
    assert MODULE in bpy.context.preferences.addons, "the extension could not be enabled"


def load(script: str, function: str):
    """A function of a script file."""
    spec = importlib.util.spec_from_file_location("script", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["script"] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def plain(value):
    """numpy's values and Blender's vectors as JSON."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
