"""Multiresolution hash encoding (Mueller et al. 2022, Instant Neural Graphics Primitives): its levels and its operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import reference
from backend.rendering.implementation import implementation

if TYPE_CHECKING:  # the operators need no more than torch and Warp
    from jaxtyping import Float, Int32


@dataclass(frozen=True)
class HashGridLevels:
    """The levels of an encoding.

    Attributes:
        layout: int32 `[L, 3]`: cells along an edge of the cube, first row in the table, rows if hashed or else 0.
        rows: of the table, all levels together.
    """

    layout: Int32[Tensor, "L 3"]
    rows: int

    def to(self, device: torch.device | str) -> HashGridLevels:
        return HashGridLevels(self.layout.to(device), self.rows)


def hash_grid_levels(coarsest: int, finest: int, count: int, most_rows: int) -> HashGridLevels:
    """`count` levels of an encoding.

    Cells grow geometrically from `coarsest` to `finest` (equations 2 and 3 of the paper). A level whose vertices all
    fit into `most_rows` (a power of two) has a row for each of them; a finer one shares `most_rows` by hashing.

    Raises:
        InputError: sizes that make no such grid.
    """
    if not (1 <= coarsest <= finest <= 2**16) or not 1 <= count <= 32:
        raise InputError(
            f"A hash grid of {count} levels from {coarsest} to {finest} cells was asked for; "
            "use 1 to 32 levels and 1 <= coarsest <= finest <= 65536."
        )
    if most_rows < 8 or most_rows > 2**24 or most_rows & (most_rows - 1):
        raise InputError(f"A hash table of {most_rows} rows was asked for; use a power of two from 8 to 2^24.")
    levels, first = [], 0
    for index in range(count):
        cells = round(coarsest * (finest / coarsest) ** (index / max(count - 1, 1)))
        vertices = (cells + 1) ** 3
        hashed = vertices > most_rows
        levels.append([cells, first, most_rows if hashed else 0])
        first += most_rows if hashed else vertices
    return HashGridLevels(torch.tensor(levels, dtype=torch.int32), first)


def encode_hash_grid(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "E 4"], levels: HashGridLevels
) -> Float[Tensor, "P F"]:
    """Features [P, 4 L] of points in the cube [-1, 1]^3: rows of `table` interpolated trilinearly at each level.

    Vertices of a hashed level find their row by the paper's equation 4; rows that collide are shared. Points outside of
    the cube get the features of its border; points that are not finite get zeros and pass on no gradient. Gradients
    reach `table` and `points`, the latter once (float64, which runs in plain torch, any number of times).

    Args:
        points: float32 (or float64, in plain torch).
        table: of the same type and on the same device.
        levels: `hash_grid_levels(...)` on that device.

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    if points.dim() != 2 or points.shape[1] != 3 or points.dtype not in (torch.float32, torch.float64):
        raise InputError(f"points must be float32 of shape [P, 3], not {points.dtype} {list(points.shape)}.")
    if table.shape != (levels.rows, 4) or table.dtype != points.dtype:
        raise InputError(
            f"table must be {points.dtype} of shape [{levels.rows}, 4], not {table.dtype} {list(table.shape)}."
        )
    layout = levels.layout
    if not points.device == table.device == layout.device:
        raise InputError(
            f"points are on {points.device}, table on {table.device} and levels on {layout.device}; move them to one device."
        )
    if points.shape[0] * layout.shape[0] >= 2**30:
        raise InputError(f"{points.shape[0]} points at {layout.shape[0]} levels are too many at once; encode them in parts.")
    room = implementation if points.dtype == torch.float32 else reference
    return room.encode_hash_grid(points, table, layout)
