"""What a job brings along beside its settings: a start mesh, reference pictures, and masks of the regions that may change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from backend.representations.mesh_data import MeshData


@dataclass(frozen=True, eq=False)
class Picture:
    """A reference picture as it was given; `ReferenceSettings` says from where it was taken.

    `pixels` are straight RGBA, row 0 on top; `depth` is larger where it is farther, NaN where it is not known; `normals` are
    in camera axes (right, up, toward the camera).
    """

    pixels: UInt8[np.ndarray, "H W 4"]
    depth: Float32[np.ndarray, "H W"] | None = None
    normals: Float32[np.ndarray, "H W 3"] | None = None


@dataclass(frozen=True, eq=False)
class RegionMask:
    """How far each vertex [V] or texel [H, W] of a region may change: 0 keeps its bits, 1 frees it, between is a soft border.

    One of them is enough: the other follows from it through the texture coordinates.
    """

    vertices: Float32[np.ndarray, "V"] | None = None
    texels: Float32[np.ndarray, "H W"] | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """One picture for each of `JobSettings.references`, one mask for each of `JobSettings.regions`, in their order."""

    mesh: MeshData | None = None
    pictures: tuple[Picture, ...] = ()
    regions: tuple[RegionMask, ...] = ()
