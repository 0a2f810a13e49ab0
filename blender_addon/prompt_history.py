"""The prompts used last, in a file of the extension's own user folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bpy

KEPT = 20


def read() -> list[str]:
    """Newest first; empty if there are none, or if the file cannot be read."""
    try:
        stored = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [prompt for prompt in stored if isinstance(prompt, str)][:KEPT] if isinstance(stored, list) else []


def remember(prompt: str) -> None:
    """Put it first. Not being able to is no reason to stop anything."""
    prompts = [prompt, *(other for other in read() if other != prompt)][:KEPT]
    try:
        path = _file()
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(prompts, ensure_ascii=False, indent=0), encoding="utf-8")
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        print(f"Galatea: the prompt could not be remembered: {error}")


def _file() -> Path:
    """Raises ValueError if the package is not an installed extension."""
    return Path(bpy.utils.extension_path_user(__package__, create=True)) / "prompts.json"
