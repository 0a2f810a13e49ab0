"""Reference pictures beside the result, seen from where each was taken: a section of the report, and its figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from backend.cli.pictures import encoded, over_background
from backend.representations.mesh_data import MeshData
from protocol.settings import ReferenceSettings

if TYPE_CHECKING:  # with torch
    from backend.optimize.inputs import Picture

SIZE = 256


@dataclass(frozen=True)
class BesideReference:
    """A prepared picture and the result from there, [S, S, 4] u8 each; angles in degrees.

    `overlap` is the intersection over union of the two outlines, `difference` the mean absolute difference of the colors
    (0 to 1, lit evenly) where both are.
    """

    azimuth: float
    elevation: float
    picture: np.ndarray
    view: np.ndarray
    overlap: float
    difference: float

    def facts(self) -> dict[str, float]:
        """What the report keeps of it as numbers."""
        names = ("azimuth", "elevation", "overlap", "difference")
        return {name: getattr(self, name) for name in names}


def compare_with_references(
    mesh: MeshData, pictures: Sequence[Picture], references: Sequence[ReferenceSettings]
) -> tuple[BesideReference, ...]:
    """Each prepared picture beside the mesh from where it was taken."""
    from backend.optimize.pictures import render_views
    from backend.optimize.reference_pictures import at_size

    made = []
    for picture, where in zip(pictures, references, strict=True):
        view = render_views(mesh, [where.azimuth], where.elevation, SIZE)[0]
        wanted = at_size(picture, SIZE)
        outlines = view[..., 3] >= 128, wanted[..., 3] >= 128
        both, either = outlines[0] & outlines[1], outlines[0] | outlines[1]
        colors = [each[both][:, :3].astype(np.float64) / 255.0 for each in (view, wanted)]
        difference = float(np.abs(colors[0] - colors[1]).mean()) if both.any() else 1.0
        overlap = float(both.sum() / max(1, either.sum()))
        made.append(BesideReference(where.azimuth, where.elevation, wanted, view, overlap, difference))
    return tuple(made)


def references_section(compared: Sequence[BesideReference]) -> str:
    """HTML: pairs of pictures with a line of figures each; nothing where there were no pictures."""
    if not compared:
        return ""
    pairs = "".join(
        f'<figure><div class="stage"><img alt="reference picture and result" width="100%" src="{_pair(one)}"></div>'
        f"<figcaption>{escape(_where(one))}: the outlines overlap to {100 * one.overlap:.0f} %, colors differ by "
        f"{100 * one.difference:.0f} %</figcaption></figure>"
        for one in compared
    )
    return (
        "<h2>Beside the picture</h2><p>Left the reference as it was cut out and framed, right the result from the same side, evenly "
        f'lit.</p><div class="references">{pairs}</div>'
    )


def _where(one: BesideReference) -> str:
    return f"from {one.azimuth:g}°" + (f", {one.elevation:g}° above" if one.elevation else "")


def _pair(one: BesideReference) -> str:
    image = Image.fromarray(over_background(np.concatenate([one.picture, one.view], axis=1)))
    return f"data:image/webp;base64,{base64.b64encode(encoded(image, 'WEBP', quality=86, method=4)).decode()}"
