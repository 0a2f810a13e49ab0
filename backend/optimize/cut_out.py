"""An object cut out of an opaque picture: GrabCut (Rother et al. 2004) by OpenCV, without weights and without a network.

The rim of the picture is taken for background and everything else is asked about. So the object must not touch the picture's
edge over its whole width, and must differ in color from what surrounds it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from backend.errors import InputError

LARGEST_SIDE = 256
"""Pictures are cut at no more pixels a side; the outline is then enlarged."""

RIM = 0.03
"""The share of the picture's sides, at each edge, that is background for certain."""

ROUNDS = 5
SEED = 0

SMALLEST_SHARE, LARGEST_SHARE = 0.005, 0.98
"""Of what is asked about: less is nothing, more is everything."""

BY_HAND = (
    "Cut the object out by hand (in Krita, GIMP or Photoshop) and save it as a PNG with transparency, or keep the background as "
    "a part of the picture."
)


def cut_out(pixels: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """How much of each pixel belongs to the object, in [0, 1]. The same picture gives the same bits.

    Raises:
        InputError: nothing or everything was taken for the object; says to cut it out by hand.
    """
    import cv2  # heavy, and only pictures with a background need it

    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / LARGEST_SIDE)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = cv2.resize(np.ascontiguousarray(pixels[..., ::-1]), small, interpolation=cv2.INTER_AREA)

    labels = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    across, down = (max(1, round(RIM * side)) for side in small)
    labels[down:-down, across:-across] = cv2.GC_PR_FGD
    asked = labels == cv2.GC_PR_FGD
    cv2.setRNGSeed(SEED)
    cv2.grabCut(image, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    inside = _without_specks(labels == cv2.GC_PR_FGD)

    share = inside.sum() / max(1, asked.sum())
    if not SMALLEST_SHARE <= share <= LARGEST_SHARE:
        what = "nothing of the picture stands out from its background" if share < 0.5 else "no background was found in the picture"
        raise InputError(f"{what}. {BY_HAND}")
    alpha = inside.astype(np.float32)
    if factor > 1.0:
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC).clip(0.0, 1.0)
    return alpha


def _without_specks(inside: np.ndarray) -> np.ndarray:
    """Without islands of less than a twentieth of the largest one."""
    import cv2

    count, islands, about, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    areas = about[1:, cv2.CC_STAT_AREA]
    if count <= 2:
        return inside
    kept = 1 + np.flatnonzero(areas >= 0.05 * areas.max())
    return np.isin(islands, kept)
