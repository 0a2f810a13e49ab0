"""Reference pictures on the command line: which options there are, what was given by them, and what a job keeps of it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from backend.errors import InputError
from protocol.settings import ReferenceSettings

MOST = 4

_VIEW = re.compile(r"^(?P<path>.+)@(?P<azimuth>[+-]?[\d.]+)(?:,(?P<elevation>[+-]?[\d.]+))?$")


@dataclass(frozen=True)
class GivenPicture:
    """One `--image` and the maps that were given after it; angles in degrees."""

    path: Path
    azimuth: float = 0.0
    elevation: float = 0.0
    depth: Path | None = None
    normals: Path | None = None


class PictureSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reference picture's files as absolute paths, and a fingerprint of what was read from them."""

    path: str
    fingerprint: str
    depth: str | None = None
    normals: str | None = None


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """`arguments.pictures` is a list of `GivenPicture`, or None."""
    group = parser.add_argument_group("reference pictures")
    group.add_argument(
        "--image",
        dest="pictures",
        action=_AddPicture,
        metavar="FILE[@AZIMUTH[,ELEVATION]]",
        help=f"a picture of what to make, up to {MOST} of them: from the front, or from so many degrees toward its left and above",
    )
    group.add_argument(
        "--depth", dest="pictures", action=_AddMap, metavar="FILE", help="the depth map of the image before it, brighter is nearer"
    )
    group.add_argument(
        "--normals",
        dest="pictures",
        action=_AddMap,
        metavar="FILE",
        help="the normal map of the image before it, in the camera's axes: red to the right, green up, blue toward it",
    )
    group.add_argument(
        "--keep-background", action="store_true", default=None, help="an image without transparency is the object itself"
    )
    group.add_argument(
        "--framing",
        choices=("fit", "keep"),
        help="fit (default): center and scale the object in each image; keep: it lies as the standard camera sees it",
    )


def references_of(arguments: argparse.Namespace) -> tuple[ReferenceSettings, ...]:
    """The part of the settings tree for the pictures that were given.

    Raises:
        InputError: there are too many, or options for pictures without one.
    """
    given = arguments.pictures or []
    if len(given) > MOST:
        raise InputError(f"{len(given)} images were given; a job looks at up to {MOST}. Choose those that show most of the object.")
    if not given and (arguments.keep_background or arguments.framing):
        raise InputError("--keep-background and --framing say how an image is taken, and none was given; name one with --image.")
    background = "keep" if arguments.keep_background else "auto"
    return tuple(ReferenceSettings(one.azimuth, one.elevation, arguments.framing or "fit", background) for one in given)


def check_same_pictures(
    arguments: argparse.Namespace, references: tuple[ReferenceSettings, ...], sources: tuple[PictureSource, ...], folder: Path
) -> None:
    """Checks pictures given beside --resume against those that the job was begun with; none given is fine.

    Raises:
        InputError: they differ.
    """
    known = tuple(
        GivenPicture(Path(source.path), where.azimuth, where.elevation, _path(source.depth), _path(source.normals))
        for source, where in zip(sources, references, strict=True)
    )
    given = None if arguments.pictures is None else tuple(_absolute(one) for one in arguments.pictures)
    same = given is None or given == known
    same &= arguments.keep_background is None or all(where.background == "keep" for where in references) and bool(references)
    same &= arguments.framing is None or all(where.framing == arguments.framing for where in references) and bool(references)
    if not same:
        began = ", ".join(f"{one.path.name} at {one.azimuth:g},{one.elevation:g}" for one in known) or "no image"
        raise InputError(
            f"The job in {folder} was begun with {began}, taken in another way or with other maps than given now: leave the "
            "options for images out to go on with it, or name another folder with --output for a new job."
        )


def parse_picture(text: str) -> GivenPicture:
    """"mug.png", "mug.png@90" or "mug.png@90,15"; a file whose own name ends like that is taken as it is.

    Raises:
        InputError: an angle is none.
    """
    found = _VIEW.match(text)
    if found is None or Path(text).exists():
        return GivenPicture(Path(text))
    try:
        azimuth, elevation = float(found["azimuth"]), float(found["elevation"] or 0.0)
    except ValueError:
        raise InputError(f"{text}: the angles after @ are no numbers; write FILE@AZIMUTH or FILE@AZIMUTH,ELEVATION.") from None
    if abs(azimuth) > 360 or abs(elevation) > 90:
        raise InputError(f"{text}: the azimuth may be from -360 to 360 degrees and the elevation from -90 to 90.")
    return GivenPicture(Path(found["path"]), azimuth, elevation)


class _AddPicture(argparse.Action):
    def __call__(self, parser, arguments, value, option=None) -> None:  # noqa: ANN001
        try:
            picture = parse_picture(value)
        except InputError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        arguments.pictures = [*(arguments.pictures or []), picture]


class _AddMap(argparse.Action):
    def __call__(self, parser, arguments, value, option=None) -> None:  # noqa: ANN001
        if not arguments.pictures:
            raise argparse.ArgumentError(self, "it belongs to the --image before it, and there is none")
        *others, last = arguments.pictures
        arguments.pictures = [*others, replace(last, **{option.lstrip("-"): Path(value)})]


def _absolute(given: GivenPicture) -> GivenPicture:
    depth, normals = (None if path is None else path.resolve() for path in (given.depth, given.normals))
    return replace(given, path=given.path.resolve(), depth=depth, normals=normals)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
