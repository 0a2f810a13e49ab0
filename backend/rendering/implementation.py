"""Which implementation of the operators runs on this platform: the one place that chooses."""

from __future__ import annotations

try:
    from backend.rendering import kernels as implementation
except ImportError:  # Warp has no build for it (macOS on Intel)
    from backend.rendering import reference as implementation

__all__ = ["implementation"]
