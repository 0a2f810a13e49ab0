"""Reference pictures before they are compared with anything: cut out, brought to where a finished object is seen, and small.

What is prepared is a `Picture` again, square, no larger than `LARGEST_SIDE`, its alpha the object's outline. Colors are
averaged premultiplied by alpha, so that no background bleeds into the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from backend.errors import InputError
from backend.optimize.cut_out import cut_out
from backend.optimize.inputs import Picture
from backend.priors.prior import PictureConditioned, Prior, ReferenceView
from protocol.settings import JobSettings, ReferenceSettings

FILL = 0.83
"""The share of the standard camera's frame that the larger side of an outline takes: the median of toybox objects."""

LARGEST_SIDE, SMALLEST_SIDE = 512, 64
"""Of what is prepared, in pixels."""

SMALLEST_GIVEN = 8
"""Fewer pixels a side than this show no object."""

TRANSPARENT_SHARE = 0.005
"""A picture has transparency if more than this share of its pixels is less than half opaque."""


@dataclass(frozen=True)
class Window:
    """A square part of a picture, in its pixels, reaching over its edges where it must: from (left, top), `side` long."""

    left: float
    top: float
    side: float

    @staticmethod
    def around(height: int, width: int) -> Window:
        """All of a picture, with bands on both sides of its shorter dimension."""
        side = float(max(height, width))
        return Window((width - side) / 2, (height - side) / 2, side)


def prepare_pictures(pictures: Sequence[Picture], references: Sequence[ReferenceSettings]) -> tuple[Picture, ...]:
    """Each picture prepared as its settings say.

    Raises:
        InputError: there are more or fewer of them than `references`, or one cannot be used (see `prepare_picture`).
    """
    if len(pictures) != len(references):
        raise InputError(
            f"The job's settings speak of {len(references)} reference pictures and {len(pictures)} came with it; send one picture "
            "for each of settings.references, in their order."
        )
    return tuple(prepare_picture(*each, number) for number, each in enumerate(zip(pictures, references), start=1))


def prepare_picture(picture: Picture, settings: ReferenceSettings, number: int = 1) -> Picture:
    """`picture`, the job's `number`-th, cut out and framed; depth and normal map go through the same crop.

    Raises:
        InputError: it is too small, its maps have another size, it shows nothing, or its background cannot be removed.
    """
    name = f"Reference picture {number}"
    _check(picture, name)
    pixels = _without_background(picture.pixels, settings, name)
    inside = pixels[..., 3] >= 128
    if not inside.any():
        raise InputError(
            f"{name} shows nothing: its alpha is below one half everywhere. Give a picture in which the object is opaque."
        )
    window = _fitting(inside) if settings.framing == "fit" else Window.around(*inside.shape)
    return _seen_through(window, pixels, picture)


def bind_prior(prior: Prior, settings: JobSettings, pictures: Sequence[Picture]) -> Prior:
    """`prior`, shown the prepared `pictures` if it is one that can be; otherwise as it is.

    Raises:
        InputError: the prompt is empty and this prior is told what to make by words alone.
    """
    if isinstance(prior, PictureConditioned) and pictures:
        views = zip(pictures, settings.references, strict=True)
        return prior.with_references([ReferenceView(straight_rgba(one), where.azimuth, where.elevation) for one, where in views])
    if not settings.prompt.strip():
        raise InputError(
            f"The prompt is empty, and the prior {prior.name!r} cannot be shown pictures: it has to be told what to make. Say in "
            "words what the picture shows, or choose a prior that takes pictures."
        )
    return prior


def straight_rgba(picture: Picture) -> torch.Tensor:
    """Its pixels [H, W, 4] in [0, 1]."""
    return torch.from_numpy(picture.pixels.astype(np.float32) / 255.0)


def at_size(picture: Picture, side: int) -> UInt8[np.ndarray, "S S 4"]:
    """The pixels of a prepared picture at another size, straight RGBA."""
    return _framed(Window.around(*picture.pixels.shape[:2]), picture.pixels, side)


def resample(image: Float[np.ndarray, "H W C"], window: Window, side: int) -> Float[np.ndarray, "S S C"]:
    """The mean of `image` over each of `side` x `side` equal squares of `window`; 0 beyond its edges.

    Every pixel is a square of one color, and counts by the area that is covered of it.
    """
    rows = _overlaps(image.shape[0], window.top, window.side, side)
    columns = _overlaps(image.shape[1], window.left, window.side, side)
    return np.einsum("ah,hwc,bw->abc", rows, image, columns, optimize=True)


def resample_known(values: Float[np.ndarray, "H W C"], window: Window, side: int) -> Float[np.ndarray, "S S C"]:
    """`resample` of a map with gaps: the mean of what is known (finite) in each square, NaN where nothing is; float32."""
    known = np.isfinite(values).all(axis=2, keepdims=True)
    seen = resample(np.concatenate([np.where(known, values, 0.0), known], axis=2), window, side)
    total, count = seen[..., :-1], seen[..., -1:]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 1e-6).astype(np.float32)


def _overlaps(pixels: int, first: float, length: float, count: int) -> Float[np.ndarray, "N P"]:
    """What share of each of `count` equal pieces of [first, first + length] each of `pixels` unit intervals covers."""
    edges = first + length * np.arange(count + 1) / count
    start = np.arange(pixels)
    covered = np.minimum(edges[1:, None], start + 1.0) - np.maximum(edges[:-1, None], start)
    return covered.clip(0.0) * (count / length)


def _check(picture: Picture, name: str) -> None:
    height, width = picture.pixels.shape[:2]
    if picture.pixels.shape != (height, width, 4) or picture.pixels.dtype != np.uint8:
        raise InputError(
            f"{name} is {picture.pixels.dtype} of shape {list(picture.pixels.shape)}; expected uint8 [height, width, 4] with red, "
            "green, blue and alpha."
        )
    if min(height, width) < SMALLEST_GIVEN:
        raise InputError(f"{name} has {width} x {height} pixels; give one of at least {SMALLEST_GIVEN} x {SMALLEST_GIVEN}.")
    maps = (("depth map", picture.depth, (height, width)), ("normal map", picture.normals, (height, width, 3)))
    for what, values, shape in maps:
        if values is not None and values.shape != shape:
            raise InputError(
                f"The {what} of {name.lower()} has the shape {list(values.shape)}, its picture needs {list(shape)}: give both the "
                "same width and height."
            )


def _without_background(pixels: UInt8[np.ndarray, "H W 4"], settings: ReferenceSettings, name: str) -> UInt8[np.ndarray, "H W 4"]:
    transparent = (pixels[..., 3] < 128).mean() > TRANSPARENT_SHARE
    if settings.background == "keep" or (settings.background == "auto" and transparent):
        return pixels
    try:
        alpha = cut_out(pixels[..., :3])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    alpha = np.rint(alpha * pixels[..., 3]).astype(np.uint8)
    return np.concatenate([pixels[..., :3], alpha[..., None]], axis=2)


def _fitting(inside: Bool[np.ndarray, "H W"]) -> Window:
    """Where the standard camera's frame lies if the object in it is centered and fills `FILL` of it."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) / FILL
    return Window((left + right - side) / 2, (top + bottom - side) / 2, side)


def _seen_through(window: Window, pixels: UInt8[np.ndarray, "H W 4"], picture: Picture) -> Picture:
    side = min(round(window.side), LARGEST_SIDE)
    side *= -(-SMALLEST_SIDE // side)  # small ones by a whole factor, which area by area takes nothing from them
    framed = _framed(window, pixels, side)
    depth = None if picture.depth is None else resample_known(picture.depth[..., None], window, side)[..., 0]
    normals = None if picture.normals is None else resample_known(picture.normals, window, side)
    return Picture(framed, depth, normals)


def _framed(window: Window, pixels: UInt8[np.ndarray, "H W 4"], side: int) -> UInt8[np.ndarray, "S S 4"]:
    alpha = pixels[..., 3:].astype(np.float64) / 255.0
    seen = resample(np.concatenate([pixels[..., :3] * alpha, alpha], axis=2), window, side)
    covered = seen[..., 3:]
    straight = np.divide(seen[..., :3], covered, out=np.zeros_like(seen[..., :3]), where=covered > 0.0)
    return np.rint(np.concatenate([straight, 255.0 * covered], axis=2)).clip(0, 255).astype(np.uint8)
