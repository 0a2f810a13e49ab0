"""Where compiled kernels are kept between runs: the user's cache folder, as each platform means it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache_folder() -> Path:
    """Galatea's folder for what can be computed again. Nothing is created here.

    `XDG_CACHE_HOME` is respected on every platform if it is set to an absolute path, as the XDG specification asks.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if chosen and Path(chosen).is_absolute():
        return Path(chosen) / "galatea"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "galatea" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "galatea"
    return Path.home() / ".cache" / "galatea"
