"""Pictures and masks as raw buffers: sizes exactly as announced, and nothing in them that could harm who uses them.

Arrays that are read share the memory of the frames they came in, and are read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .codec import WireError
from .messages import MAX_SIDE, MIN_SIDE, PictureHeader

MAX_DEPTH = 1e6
"""Depth maps have any scale; what lies beyond this is broken, though finite."""
_LARGEST_COMPONENT = 1.001
"""Of a unit normal, with room for its rounding."""


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels` [H, W, 4] u8, straight RGBA, row 0 on top; `depth` [H, W] float32, larger is farther; `normals` [H, W, 3]
    float32 in camera axes (right, up, toward the camera). NaN says that a depth or a normal is not known."""

    pixels: np.ndarray
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None


def picture_frames(picture: Picture) -> tuple[PictureHeader, list[memoryview]]:
    """The header and the buffers to send after it, sharing memory with arrays that are contiguous and of those types.

    Raises WireError for arrays of other shapes and types, and for what `read_picture` would refuse.
    """
    pixels = _as_sent(picture.pixels, "u1", "pixels")
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise WireError("invalid", f"The picture's pixels have the shape {list(pixels.shape)}; expected [H, W, 4].")
    height, width = pixels.shape[:2]
    depth = None if picture.depth is None else _as_sent(picture.depth, "<f4", "depth")
    normals = None if picture.normals is None else _as_sent(picture.normals, "<f4", "normals")
    for name, array, shape in (("depth", depth, (height, width)), ("normals", normals, (height, width, 3))):
        if array is not None and array.shape != shape:
            raise WireError("invalid", f"The picture's {name} have the shape {list(array.shape)}; expected {list(shape)}.")
    header = PictureHeader(width=width, height=height, depth=depth is not None, normals=normals is not None)
    if not (MIN_SIDE <= min(width, height) and max(width, height) <= MAX_SIDE):
        sentence = f"The picture has {width} x {height} pixels; expected {MIN_SIDE} to {MAX_SIDE} in each direction."
        raise WireError("too_large" if max(width, height) > MAX_SIDE else "invalid", sentence)
    _check(depth, normals)
    return header, [memoryview(array) for array in (pixels, depth, normals) if array is not None]


def picture_sizes(header: PictureHeader) -> list[int]:
    """Of the buffers that it says, in bytes."""
    pixels = header.width * header.height
    return [4 * pixels, *([4 * pixels] if header.depth else []), *([12 * pixels] if header.normals else [])]


def read_picture(header: PictureHeader, buffers: Sequence[memoryview]) -> Picture:
    """The checked picture in `buffers`.

    Raises WireError for buffers of another number or size than `header` says, for depths that are infinite or beyond
    `MAX_DEPTH`, and for normals with components beyond [-1, 1].
    """
    if len(buffers) != len(picture_sizes(header)):
        expected = len(picture_sizes(header))
        raise WireError("invalid", f"The picture came in {len(buffers)} buffers; its header says {expected}.")
    waiting = iter(buffers)
    size = (header.height, header.width)
    pixels = _as_read(next(waiting), "u1", (*size, 4), "The picture's pixels")
    depth = _as_read(next(waiting), "<f4", size, "The picture's depth") if header.depth else None
    normals = _as_read(next(waiting), "<f4", (*size, 3), "The picture's normals") if header.normals else None
    _check(depth, normals)
    return Picture(pixels, depth, normals)


def mask_frame(mask: np.ndarray, vertices: int) -> memoryview:
    """The buffer of a region's mask [vertices]. Raises WireError for another length, and for what `read_mask` would refuse."""
    mask = _as_sent(mask, "<f4", "mask")
    if mask.shape != (vertices,):
        raise WireError("invalid", f"A region's mask has the shape {list(mask.shape)}; the mesh has {vertices:,} vertices.")
    _check_mask(mask)
    return memoryview(mask)


def read_mask(buffer: memoryview, vertices: int) -> np.ndarray:
    """The checked mask [vertices]. Raises WireError for another size, and for values that are not within [0, 1]."""
    mask = _as_read(buffer, "<f4", (vertices,), "A region's mask")
    _check_mask(mask)
    return mask


def _as_sent(array: np.ndarray, kind: str, name: str) -> np.ndarray:
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise WireError("invalid", f"The {name} are no array: {error}.") from None
    exact = kind == "u1"
    if (array.dtype != np.uint8) if exact else (array.dtype.kind not in "fiu"):
        raise WireError("invalid", f"The {name} are of the type {array.dtype}; expected {'uint8' if exact else 'float32'}.")
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
        return np.ascontiguousarray(array, dtype=kind)


def _as_read(buffer: memoryview, kind: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(kind).itemsize
    if buffer.nbytes != expected:
        sizes = " x ".join(f"{size:,}" for size in shape)
        sentence = f"{name} came as {buffer.nbytes:,} bytes; {sizes} of {np.dtype(kind).name} make {expected:,}."
        raise WireError("invalid", sentence)
    array = np.frombuffer(buffer, dtype=kind).reshape(shape)
    if not array.flags.aligned:  # small frames lie anywhere in ZeroMQ's receive buffer
        array = array.copy()
    array.flags.writeable = False
    return array


def _check(depth: np.ndarray | None, normals: np.ndarray | None) -> None:
    for name, array, largest in (("depth", depth, MAX_DEPTH), ("normal component", normals, _LARGEST_COMPONENT)):
        if array is None:
            continue
        with np.errstate(invalid="ignore"):  # comparisons with NaN, which is allowed, are false
            beyond = np.abs(array) > largest
        if beyond.any():
            wrong = array.flat[int(beyond.argmax())]
            sentence = f"The picture has the {name} {wrong:g}; expected at most {largest:g}, or NaN where it is unknown."
            raise WireError("invalid", sentence)


def _check_mask(mask: np.ndarray) -> None:
    if not (mask.min() >= 0.0 and mask.max() <= 1.0):
        vertex = int((~((mask >= 0) & (mask <= 1))).argmax())
        raise WireError("invalid", f"A region's mask has the value {mask[vertex]:g} at vertex {vertex:,}; expected 0 to 1.")
