"""The extension's modules: within a Blender that has it installed those, elsewhere the ones that need no Blender.

Elsewhere they are imported from the source, as the package that the built zip makes of it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
INSTALLED = "bl_ext.user_default.galatea"
FROM_SOURCE = "galatea_extension"


def part(name: str) -> ModuleType:
    """A module of the extension, `protocol` inside it."""
    if INSTALLED in sys.modules:
        return importlib.import_module(f"{INSTALLED}.{name}")
    for package, folder in ((FROM_SOURCE, ROOT / "blender_addon"), (f"{FROM_SOURCE}.protocol", ROOT / "protocol")):
        if package not in sys.modules:
            module = sys.modules[package] = ModuleType(package)
            module.__path__ = [str(folder)]
    return importlib.import_module(f"{FROM_SOURCE}.{name}")
