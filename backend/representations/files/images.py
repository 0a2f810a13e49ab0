"""Texture images: files and PNG on one side, float arrays as `MaterialData` has them on the other.

Image files come from strangers: only common formats are opened, a size is known before a pixel is decoded, and what is
larger than a texture can sensibly be is reduced or left out, with a sentence that says so.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TGA", "BMP", "TIFF")
MAX_BYTES = 1 << 28
"""Of one image file."""

MAX_SIDE = 4096
"""Texels; larger images are reduced to it."""

MAX_PIXELS = 1 << 27
"""Of an image before it is reduced (11,585 x 11,585); beyond this, nothing is decoded."""

MAX_TOTAL_TEXELS = 8 * MAX_SIDE**2
"""Of all images of one file together."""

_KEPT_MODES = {"L", "LA", "RGB", "RGBA"}


@dataclass
class ImageShelf:
    """Decodes the images of one mesh file, each once, within limits; collects what a person should know.

    `decode` answers None for what cannot be used: a broken texture is no reason to refuse a shape.
    """

    notes: list[str] = field(default_factory=list)
    _decoded: dict[int | str, np.ndarray | None] = field(default_factory=dict)
    _texels: int = 0

    def decode(self, key: int | str, name: str, read: Callable[[], bytes | None]) -> np.ndarray | None:
        """An image as uint8 `[H, W, 4]`, row 0 on top; None where it is missing, broken or too large.

        Args:
            key: what the image is remembered by.
            name: what it is called in notes.
            read: gives the image file's content, None if it is not there.
        """
        if key not in self._decoded:
            content = read()
            if content is None:
                self.notes.append(f"The texture {name} is not in the mesh's folder, or too large, and is left out.")
            self._decoded[key] = None if content is None else self._decode(content, name)
        return self._decoded[key]

    def _decode(self, content: bytes, name: str) -> np.ndarray | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(content), formats=FORMATS)
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError  # as Pillow does for still larger ones
                factor = -(-max(width, height) // MAX_SIDE)
                self._texels += (width // factor + 1) * (height // factor + 1)
                if self._texels > MAX_TOTAL_TEXELS:
                    self.notes.append(f"The texture {name} is left out: the file's textures are too large together.")
                    return None
                if factor > 1:
                    image.draft(image.mode, (width // factor, height // factor))
                    image = image.reduce(-(-max(image.size) // MAX_SIDE)) if max(image.size) > MAX_SIDE else image
                    self.notes.append(
                        f"The texture {name} was reduced from {width} x {height} to {image.width} x {image.height}."
                    )
                return np.asarray(eight_bit(image).convert("RGBA"))
        except Image.DecompressionBombError:
            self.notes.append(f"The texture {name} has more than {MAX_PIXELS:,} pixels and is left out; scale it down.")
            return None
        except Exception:  # decoders of damaged images raise anything
            self.notes.append(f"The texture {name} cannot be read as an image and is left out.")
            return None


def eight_bit(image: Image.Image) -> Image.Image:
    """`image` in a mode that turns into RGBA as it should: 16-bit grays would be clipped, not scaled, on their way to 8 bits."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(values.clip(0, 65535) / 257.0).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(np.rint(np.asarray(image).clip(0.0, 1.0) * 255.0).astype(np.uint8))
    return image if image.mode in _KEPT_MODES else image.convert("RGBA")


def png(values: np.ndarray) -> bytes:
    """`values` in [0, 1], `[H, W]` or `[H, W, 3]`, row 0 on top, as an 8-bit PNG file."""
    return png_of_bytes(to_bytes(values))


def png_of_bytes(values: np.ndarray) -> bytes:
    """uint8 `[H, W]` or `[H, W, 3]` as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(out, "PNG")
    return out.getvalue()


def to_bytes(values: np.ndarray) -> np.ndarray:
    """[0, 1] as uint8, NaN as 0."""
    return np.rint(np.nan_to_num(np.asarray(values, dtype=np.float32)).clip(0.0, 1.0) * 255.0).astype(np.uint8)


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of numbers `[H, W]` as `[height, width]`, bilinear."""
    if values.shape == (height, width):
        return values
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def normal_to_bytes(normal: np.ndarray) -> np.ndarray:
    """A tangent-space normal map of unit vectors as glTF and Blender store it: [-1, 1] becomes 0 to 255."""
    return to_bytes(np.asarray(normal) * 0.5 + 0.5)


def normal_from_bytes(texels: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Unit vectors float32 `[H, W, 3]` from a normal map's texels; x and y grow by `scale` first.

    Lengths that only rounding to 8 bits explains are left alone, so that the same texels come out again.
    """
    vectors = texels[..., :3].astype(np.float32) / 255.0 * 2.0 - 1.0
    vectors[..., :2] *= scale
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.where(length > 0.05, vectors / np.maximum(length, 1e-6), np.float32([0.0, 0.0, 1.0]))
    return np.where(np.abs(length - 1.0) < 0.01, vectors, unit).astype(np.float32)


def tinted(image: np.ndarray | None, factor: np.ndarray) -> np.ndarray:
    """The colors, as displayed, of an 8-bit image times a linear color; the color alone without an image."""
    if image is None:
        return linear_to_srgb(factor.clip(0.0, 1.0)).astype(np.float32)
    displayed = image[..., :3].astype(np.float32) / np.float32(255.0)
    if np.array_equal(factor, np.ones(3)):
        return displayed
    return linear_to_srgb((srgb_to_linear(displayed) * factor).clip(0.0, 1.0)).astype(np.float32)


def channel(image: np.ndarray | None, index: int, factor: float) -> np.ndarray | float:
    """One channel of an 8-bit image times a number, `[H, W]`; one number where it is the same everywhere."""
    if image is None:
        return min(max(factor, 0.0), 1.0)
    texels = image[..., index]
    if (texels == texels[0, 0]).all():
        return min(max(factor * float(texels[0, 0]) / 255.0, 0.0), 1.0)
    return (texels.astype(np.float32) / np.float32(255.0) * np.float32(factor)).clip(0.0, 1.0)


def sample(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear values `[N, C]` of `image` `[H, W, C]` (row 0 at v = 1) at `uv` `[N, 2]`, repeating beyond [0, 1]."""
    height, width = image.shape[:2]
    u, v = (np.nan_to_num(uv.astype(np.float64)) % 1.0).T
    x, y = u * width - 0.5, (1.0 - v) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
    upper = image[rows[0], columns[0]] * (1.0 - across) + image[rows[0], columns[1]] * across
    lower = image[rows[1], columns[0]] * (1.0 - across) + image[rows[1], columns[1]] * across
    return upper * (1.0 - down) + lower * down


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """The sRGB transfer function (IEC 61966-2-1), displayed to linear."""
    return np.where(colors <= 0.04045, colors / 12.92, ((np.maximum(colors, 0.0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(colors: np.ndarray) -> np.ndarray:
    """The sRGB transfer function (IEC 61966-2-1), linear to displayed."""
    return np.where(colors <= 0.0031308, colors * 12.92, 1.055 * np.maximum(colors, 0.0) ** (1.0 / 2.4) - 0.055)
