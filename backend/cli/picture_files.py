"""Reference pictures and their maps from files: any common format, depth and mode, turned upright, within bounds."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from backend.cli.picture_arguments import GivenPicture, PictureSource
from backend.errors import InputError
from backend.optimize.inputs import Picture
from backend.representations.files.images import FORMATS, MAX_PIXELS, eight_bit

LARGEST_SIDE = 2048
"""Larger pictures are reduced to it."""

MOST_STRETCHED = 0.02
"""How far a map's proportions may be from its picture's."""

SHORTEST_NORMAL = 0.5
"""What is shorter in a normal map is background."""


@dataclass(frozen=True)
class ReadPictures:
    """The pictures of a job, and what is kept of where they came from."""

    pictures: tuple[Picture, ...] = ()
    sources: tuple[PictureSource, ...] = ()

    @staticmethod
    def read(given: Sequence[GivenPicture]) -> ReadPictures:
        """Raises InputError if a file is missing or cannot be read."""
        pictures = tuple(read_picture(one) for one in given)
        sources = tuple(_source(*each) for each in zip(given, pictures, strict=True))
        return ReadPictures(pictures, sources)

    @staticmethod
    def read_again(sources: Sequence[PictureSource]) -> ReadPictures:
        """Those of a job that is resumed. Raises InputError if a file is gone or shows something else now."""
        given = [GivenPicture(Path(one.path), depth=_path(one.depth), normals=_path(one.normals)) for one in sources]
        for one in given:
            for path in (one.path, one.depth, one.normals):
                if path is not None and not path.is_file():
                    raise InputError(f"The job began with {path}, which is not there any more; put it back to go on.")
        read = ReadPictures.read(given)
        for old, new in zip(sources, read.sources, strict=True):
            if old.fingerprint != new.fingerprint:
                raise InputError(
                    f"{old.path} or one of its maps has changed since the job began with it; put the old file back or start anew."
                )
        return read


def read_picture(given: GivenPicture) -> Picture:
    """Pixels, and the maps in the pixels' size.

    Raises:
        InputError: a file is missing, no image or too large, or a map has other proportions than its picture.
    """
    image = _open(given.path)
    pixels = np.asarray(eight_bit(image).convert("RGBA"))
    depth = None if given.depth is None else read_depth(given.depth, image.size)
    normals = None if given.normals is None else read_normals(given.normals, image.size)
    return Picture(pixels, depth, normals)


def read_depth(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A picture of depth, brighter is nearer, as `Picture.depth`, [H, W] float32: larger is farther, NaN where transparent.

    `size` is width and height. Whatever a depth estimate's unit, only differences matter: it is compared up to scale and shift.
    """
    image = _open(path)
    _check_proportions(image, size, path)
    seen = _resized(_gray(image), size)
    return np.where(_opaque(image, size), -seen, np.nan).astype(np.float32)


def read_mask(path: Path) -> np.ndarray:
    """Brightness in [0, 1], 0 where it is transparent.

    Raises:
        InputError: the file is missing, no image or too large.
    """
    pixels = np.asarray(eight_bit(_open(path)).convert("LA"), dtype=np.float32) / 255.0
    return pixels[..., 0] * pixels[..., 1]


def read_normals(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A picture of normals, `n / 2 + 1/2`, as `Picture.normals`, [H, W, 3] float32: NaN where it is transparent or no direction."""
    image = _open(path)
    if len(image.getbands()) < 3:
        raise InputError(f"{path} is gray, and a normal map has three colors; if it shows depth, give it with --depth.")
    _check_proportions(image, size, path)
    colors = np.asarray(eight_bit(image).convert("RGB"), dtype=np.float32) / 255.0
    normals = np.stack([_resized(colors[..., axis], size) for axis in range(3)], axis=2) * 2.0 - 1.0
    known = _opaque(image, size) & (np.linalg.norm(normals, axis=2) >= SHORTEST_NORMAL)
    return np.where(known[..., None], normals, np.nan).astype(np.float32)


def _open(path: Path) -> Image.Image:
    """The first picture in the file, turned as its camera was held, no larger than `LARGEST_SIDE`."""
    if not path.is_file():
        raise InputError(f"There is no image {path}; check its name.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                file.draft(file.mode, (LARGEST_SIDE, LARGEST_SIDE))
                image = ImageOps.exif_transpose(file)
                image.load()
    except Image.DecompressionBombError:
        raise InputError(f"{path} has more than {MAX_PIXELS:,} pixels; scale it down to {LARGEST_SIDE} a side.") from None
    except Exception as error:  # decoders of damaged images raise anything
        raise InputError(
            f"{path} cannot be read as an image ({type(error).__name__}): it is damaged or of another kind. Save it as a PNG."
        ) from error
    factor = -(-max(image.size) // LARGEST_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _gray(image: Image.Image) -> np.ndarray:
    """Brightness with all digits that the file has; of 16 bits and of floating point it may be of any range."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image).astype(np.float32)
    return np.asarray(image.convert("L"), dtype=np.float32)


def _opaque(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.ones(size[::-1], bool)
    alpha = np.asarray(image.convert("RGBA"), dtype=np.float32)[..., 3]
    return _resized(alpha, size) >= 127.5


def _check_proportions(image: Image.Image, size: tuple[int, int], path: Path) -> None:
    if abs(image.width * size[1] / (image.height * size[0]) - 1.0) > MOST_STRETCHED:
        raise InputError(
            f"The map {path} has {image.width} x {image.height} pixels and its image {size[0]} x {size[1]}: give one of the same "
            "proportions, of the whole image."
        )


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))


def _source(given: GivenPicture, picture: Picture) -> PictureSource:
    digest = hashlib.sha256()
    for values in (picture.pixels, picture.depth, picture.normals):
        digest.update(b"none" if values is None else repr(values.shape).encode() + values.tobytes())
    depth, normals = (None if path is None else str(path.resolve()) for path in (given.depth, given.normals))
    return PictureSource(str(given.path.resolve()), digest.hexdigest()[:32], depth, normals)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
