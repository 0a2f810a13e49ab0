"""Where a job's space lies in the scene: local coordinates of an object <-> wire space.

On the wire an object is y up and fills the unit sphere around the origin; in Blender it is z up, has any size, and hangs
from parents, turned and scaled. A placement holds the whole chain as one matrix in float64. It does not know bpy, and is
stored on objects as JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .errors import SceneError

if TYPE_CHECKING:
    from bpy.types import Object

FILL = 0.95
"""The share of the unit sphere's radius that a fitted object takes, as for mesh files."""

_UPRIGHT = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Blender's axes to the wire's: (x, y, z) -> (x, z, -y)."""

_THINNEST = 1e-6
"""Ratio of an object's smallest scale to its largest below which it counts as flattened: float32 cannot undo that."""


@dataclass(frozen=True, eq=False)
class Placement:
    """`to_wire_matrix` [4, 4] float64: local -> wire; `location`: where a new object is put, in world coordinates.

    `original` [V, 3] float32, if there is one, are the local positions that were submitted: what comes back from the wire
    just as it was sent gets these bits again.
    """

    to_wire_matrix: np.ndarray
    location: tuple[float, float, float] = (0.0, 0.0, 0.0)
    original: np.ndarray | None = None
    _submitted: np.ndarray | None = field(init=False, repr=False)
    _to_local_matrix: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_to_local_matrix", np.linalg.inv(self.to_wire_matrix))
        object.__setattr__(self, "_submitted", None if self.original is None else self.to_wire(self.original))

    @property
    def mirrors(self) -> bool:
        """Whether the way to the wire turns a surface inside out, as an object's negative scale does."""
        return bool(np.linalg.det(self.to_wire_matrix[:3, :3]) < 0)

    def to_wire(self, local: np.ndarray) -> np.ndarray:
        """Local positions [V, 3] -> wire [V, 3] float32. The same input gives the same bits everywhere."""
        return _transformed(self.to_wire_matrix, local)

    def to_local(self, wire: np.ndarray) -> np.ndarray:
        """Wire positions [V, 3] float32 -> local [V, 3] float32; vertices that did not move get their original bits."""
        local = _transformed(self._to_local_matrix, wire)
        if self._submitted is None or self._submitted.shape != wire.shape:
            return local
        still = (wire == self._submitted).all(axis=1)
        local[still] = self.original[still]
        return local

    def with_original(self, original: np.ndarray | None) -> Placement:
        return Placement(self.to_wire_matrix, self.location, original)

    def to_dict(self) -> dict:
        """For JSON, which keeps every bit of a float64. Without `original`: that is in the original object's mesh."""
        return {"to_wire": self.to_wire_matrix.ravel().tolist(), "location": list(self.location)}

    @staticmethod
    def from_dict(stored: object) -> Placement:
        """Raises SceneError if that is not what `to_dict` made."""
        try:
            matrix = np.array(stored["to_wire"], dtype=np.float64).reshape(4, 4)
            x, y, z = (float(number) for number in stored["location"])
            if not (np.isfinite(matrix).all() and all(map(math.isfinite, (x, y, z)))):
                raise ValueError
            return Placement(matrix, (x, y, z))
        except (TypeError, KeyError, ValueError, np.linalg.LinAlgError):
            raise SceneError("What Galatea stored on the preview object is damaged: discard it and begin anew.") from None


def default_placement(location: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Placement:
    """For a new object: upright at `location`, two units large, its front toward -y as Blender's front view sees it."""
    x, y, z = location
    return Placement(_UPRIGHT.copy(), (float(x), float(y), float(z)))


def placement_of(object: Object, positions: np.ndarray) -> Placement:
    """Fits an object with local `positions` [V, 3] float32 into the unit sphere, as it stands in the world.

    Raises:
        SceneError: its positions or its scale allow no way there and back.
    """
    if not np.isfinite(positions).all():
        bad = ~np.isfinite(positions).all(axis=1)
        raise SceneError(
            f"{object.name} has {bad.sum():,} vertices whose coordinates are not numbers (the first is vertex "
            f"{bad.argmax()}): delete them in Edit Mode first."
        )
    to_world = np.array(object.matrix_world, dtype=np.float64)
    check_scale(object.name, to_world)
    upright = _UPRIGHT @ to_world
    upright[:3, 3] = 0.0  # where it stands falls out below; kept until then, it would cost digits far from the origin
    standing = _transformed(upright, positions, np.float64)
    low, high = standing.min(axis=0), standing.max(axis=0)
    center = (low + high) / 2
    radius = float(np.sqrt(np.square(standing - center).sum(axis=1).max()))
    if not (math.isfinite(radius) and radius > 1e-18):
        raise SceneError(f"All vertices of {object.name} lie at one place: give it a size first.")
    fit = np.diag([FILL / radius] * 3 + [1.0])
    fit[:3, 3] = -center * (FILL / radius)
    return Placement(fit @ upright, tuple(to_world[:3, 3].tolist()), positions.copy())


def check_scale(name: str, to_world: np.ndarray) -> None:
    """Raises SceneError if the matrix [4, 4] flattens what it transforms."""
    if not np.isfinite(to_world).all():
        raise SceneError(f"The transform of {name} has values that are not numbers: clear it with Object > Clear.")
    sizes = np.linalg.svd(to_world[:3, :3], compute_uv=False)
    if not sizes[2] > max(_THINNEST * sizes[0], 1e-30):
        raise SceneError(f"{name} is scaled to nothing along an axis: set its scale (or its parent's) to something else than 0.")


def _transformed(matrix: np.ndarray, points: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """Points [V, 3] through an affine matrix [4, 4], computed in float64.

    Written out, because a matrix product's last bits depend on the library and the machine.
    """
    x, y, z = (np.ascontiguousarray(points[:, axis], dtype=np.float64) for axis in range(3))
    result = np.empty((len(points), 3), dtype=dtype)
    for axis in range(3):
        a, b, c, d = matrix[axis]
        result[:, axis] = x * a + y * b + z * c + d
    return result
