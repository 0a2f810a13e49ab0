"""The twelve colors toybox has names for, chosen to stay apart from each other under Lambert shading.

A shaded color is darker than its name by a factor of about 0.5 to 1, so hues and saturations must differ, not only
brightness: brown is a dark orange of its own hue, gray lies below white in shadow, teal lies between green and blue.
"""

from __future__ import annotations

import numpy as np

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.09, 0.09),
    "green": (0.16, 0.60, 0.14),
    "blue": (0.12, 0.22, 0.85),
    "yellow": (0.97, 0.86, 0.10),
    "orange": (0.98, 0.50, 0.04),
    "purple": (0.50, 0.14, 0.72),
    "pink": (0.98, 0.55, 0.74),
    "brown": (0.40, 0.23, 0.12),
    "black": (0.07, 0.07, 0.08),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.38, 0.38, 0.40),
    "teal": (0.05, 0.66, 0.68),
}

COLORS: tuple[str, ...] = tuple(PALETTE)

JITTER = 0.03
"""Standard deviation by which an object's color is drawn around its name."""


def draw_color(name: str, rng: np.random.Generator) -> np.ndarray:
    """A color [3] that a person would call `name`: the palette's, changed a little in brightness and in hue."""
    base = np.asarray(PALETTE[name])
    return np.clip(base * (1.0 + rng.normal(0.0, JITTER)) + rng.normal(0.0, JITTER, 3) * 0.7, 0.0, 1.0)
