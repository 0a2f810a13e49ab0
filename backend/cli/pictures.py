"""The pictures a job leaves behind, put together from rendered views: preview strip, turntable sheet, animation.

Views come in as [S, S, 4] u8 RGBA (straight alpha) and are shown on a plain light gray, on which white and dark objects
both stand out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (226, 228, 232)
INK = (70, 74, 82)

STRIP_AZIMUTHS = (30.0, 120.0, 210.0, 300.0)
ELEVATION = 20.0
VIEW_SIZE = 192
THUMB_COUNT = 8


def over_background(rgba: np.ndarray) -> np.ndarray:
    """[..., 4] u8 with straight alpha -> [..., 3] u8 over `BACKGROUND`."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    color = rgba[..., :3] * alpha + np.asarray(BACKGROUND, np.float32) * (1 - alpha)
    return (color + 0.5).astype(np.uint8)


def smaller(rgba: np.ndarray, size: int) -> np.ndarray:
    """[S, S, 4] u8 -> [size, size, 4] u8, filtered with alpha taken into account, so that edges get no dark rim."""
    image = Image.fromarray(rgba).convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image.convert("RGBA"))


def preview_strip(views: np.ndarray, earlier: Sequence[np.ndarray], caption: str) -> Image.Image:
    """The object now from `views` [4, S, S, 4] in a row, below it how it looked `earlier`, below that a line of text.

    There is room for `THUMB_COUNT` earlier pictures [S, S, 4].
    """
    count, size = views.shape[:2]
    thumb = count * size // THUMB_COUNT
    height = size + (thumb if earlier else 0) + 28
    picture = Image.new("RGB", (count * size, height), BACKGROUND)
    for column, view in enumerate(over_background(views)):
        picture.paste(Image.fromarray(view), (column * size, 0))
    for column, frame in enumerate(earlier):
        picture.paste(Image.fromarray(over_background(smaller(frame, thumb))), (column * thumb, size))
    font = ImageFont.load_default(14)
    ImageDraw.Draw(picture).text((10, height - 23), caption, fill=INK, font=font)
    return picture


def turntable_sheet(views: np.ndarray) -> Image.Image:
    """8 views [8, S, S, C], two rows of four, with as many channels as they have."""
    _, size, _, channels = views.shape
    rows = views.reshape(2, 4, size, size, channels).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(rows.reshape(2 * size, 4 * size, channels))


def filmstrip(views: Sequence[np.ndarray]) -> Image.Image:
    """Frames [S, S, 4] side by side, transparent: what a page can step through by moving one picture."""
    return Image.fromarray(np.concatenate(views, axis=1))


def animation(frames: Sequence[np.ndarray], milliseconds: Sequence[int]) -> bytes:
    """An endless WebP of frames [S, S, 4] over the background, each shown for its own time."""
    first, *others = (Image.fromarray(over_background(frame)) for frame in frames)
    options = {"save_all": True, "append_images": others, "duration": list(milliseconds), "loop": 0}
    return encoded(first, "WEBP", quality=80, method=3, **options)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file of `kind` ("PNG", "WEBP")."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
