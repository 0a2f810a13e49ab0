"""Regions on the command line: parts of a mesh that alone may change, named by a picture or by the file's own names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from backend.errors import InputError
from protocol.settings import RegionSettings

if TYPE_CHECKING:  # with torch, which must not be there before arguments are read
    from backend.cli.start_mesh import StartMesh
    from backend.optimize.inputs import RegionMask

MOST = 8
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tga", ".bmp", ".tif", ".tiff")


class GivenRegion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`mask` is the absolute path of a picture or the name of an object or material in the mesh's file; `soften` is a distance
    in the file's units."""

    mask: str
    soften: float = 0.0


def add_region_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("regions")
    group.add_argument(
        "--region",
        dest="regions",
        action="append",
        metavar="MASK[=PROMPT]",
        help=f"change only this part, up to {MOST} of them: a picture in the mesh's UVs (white may change), or the name of an object "
        "or material in the file; with words of its own, or PROMPT",
    )
    group.add_argument(
        "--soften", type=float, metavar="DISTANCE", help="how far the regions' borders fade inward, in the mesh file's units"
    )


def regions_of(arguments: argparse.Namespace) -> tuple[tuple[RegionSettings, ...], tuple[GivenRegion, ...]]:
    """The part of the settings tree for the regions that were given, and where their masks come from.

    Raises:
        InputError: there are too many, one has no mask, or --soften was given without one or is no distance.
    """
    given = arguments.regions or []
    if len(given) > MOST:
        raise InputError(f"{len(given)} regions were given; a job takes up to {MOST}. Join those of one prompt.")
    soften = arguments.soften or 0.0
    if arguments.soften is not None and (not given or not 0.0 <= soften < float("inf")):
        raise InputError("--soften fades the borders of regions; give a distance from 0, and a region with --region.")
    split = [_split(each) for each in given]
    return tuple(RegionSettings(prompt) for _, prompt in split), tuple(GivenRegion(mask, soften) for mask, _ in split)


def _split(text: str) -> tuple[str, str]:
    mask, _, prompt = (text, "", "") if Path(text).is_file() else text.partition("=")
    if not mask.strip():
        raise InputError(f"--region {text!r} says no part; write a picture or the name of an object or material before the “=”.")
    return str(Path(mask).resolve()) if _is_picture(mask) else mask.strip(), prompt.strip()


def _is_picture(mask: str) -> bool:
    return Path(mask).suffix.lower() in _PICTURES or Path(mask).is_file()


def masks_of(given: Sequence[GivenRegion], start: StartMesh) -> tuple[RegionMask, ...]:
    """One mask for each region, of texels where it came as a picture, else of vertices.

    Raises:
        InputError: a picture is missing or cannot be read, the mesh has no texture coordinates for it, or the file has no object
            or material of a name.
    """
    return tuple(_mask(each, start) for each in given)


def _mask(given: GivenRegion, start: StartMesh) -> RegionMask:
    from backend.cli.picture_files import read_mask
    from backend.optimize.inputs import RegionMask
    from backend.representations.soft_border import soft_border, soft_texel_border

    distance = given.soften * start.placement.scale
    if not _is_picture(given.mask):
        return RegionMask(soft_border(_named(given.mask, start), start.mesh, distance))
    return RegionMask(texels=soft_texel_border(read_mask(Path(given.mask)), start.mesh, distance))


def _named(name: str, start: StartMesh) -> np.ndarray:
    """1 for the vertices all of whose faces belong to the part."""
    if name not in start.parts:
        known = ", ".join(f"“{each}”" for each in start.parts)
        have = f"it has {known}" if known else "it names no parts"
        raise InputError(f"There is no object or material “{name}” in {Path(start.source.path).name} ({have}), and no picture {name}.")
    inside, mask = start.parts[name], np.zeros(len(start.mesh.positions), np.float32)
    mask[start.mesh.faces[inside]] = 1.0
    mask[start.mesh.faces[~inside]] = 0.0
    if not mask.any():
        raise InputError(f"All vertices of “{name}” belong to other parts as well, so none of them may move; paint a picture instead.")
    return mask


def check_same_regions(arguments: argparse.Namespace, regions: Sequence[RegionSettings], sources: Sequence[GivenRegion], folder: Path) -> None:
    """Checks regions given beside --resume against those that the job was begun with; none given is fine.

    Raises:
        InputError: they differ.
    """
    if arguments.regions is None and arguments.soften is None:
        return
    known = tuple(regions), tuple(sources)
    given = known if arguments.regions is None else regions_of(arguments)
    soften = {source.soften for source in sources} | ({arguments.soften} if arguments.soften is not None else set())
    if given != known or len(soften) > 1:
        began = ", ".join(f"{Path(one.mask).name}" for one in sources) or "no region"
        raise InputError(
            f"The job in {folder} was begun with other regions or borders than given now ({began}): leave --region and --soften out "
            "to go on with it, or name another folder with --output for a new job."
        )
