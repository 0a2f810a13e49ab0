"""Reference pictures out of Blender's images, as they go over the wire.

What is read is what the image shows at this moment: of a file on disk, packed, generated, or painted and not saved yet.
"""

from __future__ import annotations

import numpy as np
from bpy.types import Image

from ..protocol.messages import MIN_SIDE
from ..protocol.picture_codec import Picture
from .colors import to_displayed
from .errors import SceneError

LARGEST_SIDE = 1024
"""In pixels; no prior looks at more."""
MOST_PIXELS = 2**25
"""Reading takes Blender's main thread about 40 ns and 16 bytes a pixel."""


def read_picture(image: Image) -> Picture:
    """The image as straight RGBA of 8 bits as displayed, row 0 on top, at most `LARGEST_SIDE` large.

    Raises:
        SceneError: it cannot be used; the sentence says what to do.
    """
    raw = _read(image)
    opaque = raw.shape[2] < 4 or image.alpha_mode in ("NONE", "CHANNEL_PACKED")
    linear = image.is_float or image.colorspace_settings.name.startswith("Linear")
    linear = linear and not image.colorspace_settings.is_data
    premultiplied = image.is_float and not image.colorspace_settings.is_data
    factor = -(-max(raw.shape[:2]) // LARGEST_SIDE)
    color = np.repeat(raw[..., :1], 3, axis=2) if raw.shape[2] < 3 else raw[..., :3]
    alpha = np.ones_like(raw[..., :1]) if opaque else raw[..., 3:]
    if not opaque and factor > 1 and not premultiplied:
        color, premultiplied = color * alpha, True  # what is transparent must not bleed into its neighbors
    color, alpha = _reduced(color, factor), _reduced(alpha, factor)
    if not opaque and premultiplied:
        color = color / np.maximum(alpha, 1e-6)
    color = to_displayed(color) if linear else color
    pixels = np.concatenate([color, alpha], axis=2)[::-1]
    pixels = np.rint(np.nan_to_num(pixels, posinf=1.0, neginf=0.0).clip(0.0, 1.0) * 255.0).astype(np.uint8)
    if min(pixels.shape[:2]) < MIN_SIDE:
        width, height = image.size
        what = f"{image.name} has {width} x {height} pixels"
        raise SceneError(f"{what}: a reference picture needs at least {MIN_SIDE} on its short side.")
    if not pixels[..., 3].any():
        raise SceneError(f"{image.name} is transparent everywhere: choose a picture that shows the object.")
    return Picture(np.ascontiguousarray(pixels))


def _read(image: Image) -> np.ndarray:
    """[H, W, C] float32 as Blender keeps it, row 0 at the bottom."""
    if image.source in ("MOVIE", "SEQUENCE", "TILED"):
        kind = {"MOVIE": "a movie", "SEQUENCE": "a sequence", "TILED": "made of tiles"}[image.source]
        raise SceneError(f"{image.name} is {kind}: save one picture of it and choose that.")
    width, height = image.size
    if image.source == "VIEWER":
        raise SceneError(f"{image.name} has no pixels of its own: save it (Image > Save As), then open the file.")
    if width * height > MOST_PIXELS:
        what = f"{image.name} has {width} x {height} pixels"
        raise SceneError(f"{what}: scale it down first (Image > Resize), {LARGEST_SIDE} are enough.")
    values = np.empty(len(image.pixels), dtype=np.float32)
    if not values.size:
        where = f" at {image.filepath}" if image.filepath else ""
        raise SceneError(f"{image.name} cannot be read{where}: open it anew, or choose another picture.")
    image.pixels.foreach_get(values)
    return values.reshape(height, width, -1)


def _reduced(values: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of `factor` pixels a side; what is left over at the borders is cut off evenly."""
    if factor == 1:
        return values
    height, width = (size // factor for size in values.shape[:2])
    top, left = ((size % factor) // 2 for size in values.shape[:2])
    reduced = np.zeros((height, width, values.shape[2]), dtype=np.float32)
    for row in range(factor):  # without temporary arrays of the picture's size
        for column in range(factor):
            reduced += values[top + row :: factor, left + column :: factor][:height, :width]
    return reduced / factor**2
