"""The extension's modules that need no Blender, imported from the source as the package that the built zip makes of it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.blender.environments import ROOT

PACKAGE = "galatea_extension"


def part(name: str) -> ModuleType:
    """A module of the extension, `protocol` inside it."""
    for package, folder in ((PACKAGE, ROOT / "blender_addon"), (f"{PACKAGE}.protocol", ROOT / "protocol")):
        if package not in sys.modules:
            module = sys.modules[package] = ModuleType(package)
            module.__path__ = [str(folder)]
    return importlib.import_module(f"{PACKAGE}.{name}")
