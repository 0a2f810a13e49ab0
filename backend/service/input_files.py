"""The file of what a job is shown beside its mesh: `jobs/ID/start.inputs`, pictures and masks.

As a mesh file: a line that says what it is, the length of a msgpack header, that header, and the arrays as they travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from backend.service.job_files import DamagedFile, cut_header, write_with_header
from protocol.codec import WireError
from protocol.messages import MAX_PICTURES, MAX_REGIONS, MAX_VERTICES, PictureHeader, Submit
from protocol.picture_codec import Picture, picture_sizes, read_mask, read_picture

MAGIC = b"Galatea inputs 1\n"


class InputsHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which arrays follow: those of each picture, then `masks` masks of `vertices` each."""

    pictures: Annotated[tuple[PictureHeader, ...], Meta(max_length=MAX_PICTURES)]
    masks: Annotated[int, Meta(ge=0, le=MAX_REGIONS)]
    vertices: Annotated[int, Meta(ge=0, le=MAX_VERTICES)]


def write_inputs(path: Path, message: Submit, buffers: Sequence[memoryview]) -> None:
    """`buffers`: those of a checked submission that come after its mesh. Raises OSError; what was there before then stays."""
    vertices = 0 if message.mesh is None else message.mesh.vertices
    header = InputsHeader(message.pictures, len(message.job_request.regions), vertices)
    write_with_header(path, MAGIC, header, buffers)


def read_inputs(path: Path) -> tuple[tuple[Picture, ...], tuple[np.ndarray, ...]]:
    """Pictures and masks, checked as if they came over the wire.

    Raises DamagedFile, and OSError if the file cannot be read.
    """
    content = memoryview(path.read_bytes())
    try:
        header, rest = cut_header(content, MAGIC, InputsHeader)
        sizes = [picture_sizes(picture) for picture in header.pictures]
        arrays = _cut(rest, [size for each in sizes for size in each] + [4 * header.vertices] * header.masks)
        pictures = tuple(read_picture(one, [next(arrays) for _ in each]) for one, each in zip(header.pictures, sizes, strict=True))
        return pictures, tuple(read_mask(array, header.vertices) for array in arrays)
    except (ValueError, WireError) as error:  # msgspec's errors are ValueErrors
        raise DamagedFile(f"{path} is not a whole file of pictures and masks: {error}.") from error


def _cut(content: memoryview, sizes: list[int]) -> Iterator[memoryview]:
    if len(content) != sum(sizes):
        raise ValueError(f"it has {len(content):,} bytes of arrays and its header says {sum(sizes):,}")
    ends = np.cumsum([0, *sizes]).tolist()
    return iter([content[begin:end] for begin, end in zip(ends, ends[1:])])
