"""Closed triangle meshes of simple solids: what procedural objects are put together from.

Every solid is a loft: rings of equally many points, joined by triangles and closed by fans. Faces wind counterclockwise
seen from outside. Edges are beveled a little, so that smooth vertex normals still show flat sides as flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BEVEL = 0.02
CREASE_DEGREES = 35.0


@dataclass(frozen=True)
class Solid:
    """A closed surface: positions [V, 3] float64, faces [F, 3] int32."""

    positions: np.ndarray
    faces: np.ndarray

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        """The solid shifted by (x, y, z)."""
        return Solid(self.positions + np.array([x, y, z]), self.faces)

    def scaled(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Solid:
        """The solid stretched by positive factors about the origin."""
        return Solid(self.positions * np.array([x, y, z]), self.faces)

    def turned(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        """The solid rotated about the x, then the y, then the z axis, by degrees, counterclockwise."""
        return Solid(self.positions @ (_rotation(2, z) @ _rotation(1, y) @ _rotation(0, x)).T, self.faces)


def signed_volume(solid: Solid) -> float:
    """The enclosed volume; positive if the faces wind outward."""
    a, b, c = (solid.positions[solid.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def loft(
    rings: np.ndarray, start: np.ndarray | None = None, end: np.ndarray | None = None, loop: bool = False
) -> Solid:
    """Joins `rings` [R, K, 3] in order; closes both ends with fans around `start` and `end` (default: ring centers).

    With `loop` the last ring is joined to the first and there are no ends. The winding is turned outward at the end.
    """
    count, around = rings.shape[:2]
    ring = np.arange(count if loop else count - 1)[:, None] * around
    step = np.arange(around)[None, :]
    nxt = (step + 1) % around
    above = (ring + around) % (count * around)
    a, b, c, d = ring + step, ring + nxt, above + nxt, above + step
    faces = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    points = [rings.reshape(-1, 3)]
    if not loop:
        first, last = count * around, count * around + 1
        points += [rings[0].mean(0, keepdims=True) if start is None else np.reshape(start, (1, 3))]
        points += [rings[-1].mean(0, keepdims=True) if end is None else np.reshape(end, (1, 3))]
        step, nxt, top = step[0], nxt[0], (count - 1) * around
        faces.append(np.stack([np.full(around, first), nxt, step], -1))
        faces.append(np.stack([np.full(around, last), top + step, top + nxt], -1))
    solid = Solid(np.concatenate(points).astype(np.float64), np.concatenate(faces).astype(np.int32))
    return solid if signed_volume(solid) > 0 else Solid(solid.positions, solid.faces[:, ::-1].copy())


def lathe(profile: Sequence[tuple[float, float]], segments: int = 18) -> Solid:
    """The solid of revolution about y of `profile`, points (radius, y) that begin and end on the axis (radius 0)."""
    points = _beveled(np.asarray(profile, dtype=np.float64), loop=False)
    angles = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    circle = np.stack([np.sin(angles), np.zeros(segments), np.cos(angles)], -1)
    rings = points[1:-1, :1, None] * circle + points[1:-1, 1:, None] * np.array([0.0, 1.0, 0.0])
    return loft(rings, np.array([0.0, points[0, 1], 0.0]), np.array([0.0, points[-1, 1], 0.0]))


def frustum(bottom: float, top: float, height: float, segments: int = 18) -> Solid:
    """A truncated cone standing on y = 0 with the two radii; a cylinder if they are equal, a cone if `top` is 0."""
    if top <= 0.0:
        return lathe([(0.0, 0.0), (bottom, 0.0), (0.25 * bottom, 0.75 * height), (0.0, height)], segments)
    return lathe([(0.0, 0.0), (bottom, 0.0), (top, height), (0.0, height)], segments)


def cylinder(radius: float, height: float, segments: int = 18) -> Solid:
    """A cylinder standing on y = 0."""
    return frustum(radius, radius, height, segments)


def ellipsoid(x: float, y: float | None = None, z: float | None = None, segments: int = 16, rings: int = 10) -> Solid:
    """An ellipsoid around the origin with semi-axes x, y, z (default: a sphere of radius x)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    ball = lathe(list(zip(np.cos(angles), np.sin(angles))), segments)
    return ball.scaled(x, x if y is None else y, x if z is None else z)


def dome(radius: float, height: float, lip: float = 0.0, segments: int = 18) -> Solid:
    """Half an ellipsoid, flat side down at y = 0; `lip` bends its rim down by that much."""
    angles = np.linspace(0.0, np.pi / 2, 7)
    arc = [(radius * np.cos(a), height * np.sin(a)) for a in angles[:-1]]
    return lathe([(0.0, 0.0), (0.9 * radius, -lip), *arc, (0.0, height)], segments)


def extrude(polygon: Sequence[tuple[float, float]], depth: float) -> Solid:
    """A prism around z = 0 over `polygon` (x, y), which must be star-shaped about the mean of its corners."""
    outline = _beveled(np.asarray(polygon, dtype=np.float64), loop=True)
    bevel = min(BEVEL, 0.2 * depth)
    center = outline.mean(0)
    inset = center + (outline - center) * max(0.5, 1.0 - bevel / np.abs(outline - center).max())
    levels = [(-depth / 2, inset), (bevel - depth / 2, outline), (depth / 2 - bevel, outline), (depth / 2, inset)]
    return loft(np.stack([np.column_stack([ring, np.full(len(ring), z)]) for z, ring in levels]))


def box(width: float, height: float, depth: float) -> Solid:
    """A box around the origin with beveled edges."""
    x, y = width / 2, height / 2
    return extrude([(-x, -y), (x, -y), (x, y), (-x, y)], depth)


def torus(radius: float, thickness: float, segments: int = 24, around: int = 12) -> Solid:
    """A ring around y with the distance `radius` to the tube's middle and the tube's radius `thickness`."""
    turn = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    out = np.stack([np.sin(turn), np.zeros(segments), np.cos(turn)], -1)[:, None, :]
    angle = np.linspace(0.0, 2.0 * np.pi, around, endpoint=False)[None, :, None]
    return loft((radius + thickness * np.cos(angle)) * out + thickness * np.sin(angle) * [0.0, 1.0, 0.0], loop=True)


def tube(path: np.ndarray, radius: float | Sequence[float], around: int = 8) -> Solid:
    """A tube along `path` [P, 3] with one radius or one per point; its ring turns as little as possible along it."""
    path = np.asarray(path, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(path))
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent[0], np.eye(3)[np.abs(tangent[0]).argmin()])
    angle = np.linspace(0.0, 2.0 * np.pi, around, endpoint=False)[:, None]
    rings = []
    for point, along, thick in zip(path, tangent, radii):
        side = side - along * (side @ along)
        side /= np.linalg.norm(side)
        rings.append(point + thick * (np.cos(angle) * side + np.sin(angle) * np.cross(along, side)))
    return loft(np.stack(rings))


def arc(radius: float, start: float, stop: float, points: int = 12, squash: float = 1.0) -> np.ndarray:
    """Points [P, 3] on an arc in the xy plane from `start` to `stop` degrees; x is scaled by `squash`."""
    angle = np.radians(np.linspace(start, stop, points))
    return np.stack([squash * radius * np.cos(angle), radius * np.sin(angle), np.zeros(points)], -1)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, -sin, sin, cos
    return matrix


def _beveled(points: np.ndarray, loop: bool) -> np.ndarray:
    """`points` [P, 2] with every sharp corner replaced by two points close to it; ends of an open line stay."""
    result: list[np.ndarray] = [] if loop else [points[0]]
    corners = range(len(points)) if loop else range(1, len(points) - 1)
    for k in corners:
        before, here, after = points[k - 1], points[k], points[(k + 1) % len(points)]
        back, ahead = before - here, after - here
        lengths = np.linalg.norm(back), np.linalg.norm(ahead)
        turn = np.degrees(np.arccos(np.clip(-(back @ ahead) / (lengths[0] * lengths[1]), -1.0, 1.0)))
        if turn < CREASE_DEGREES:
            result.append(here)
            continue
        result += [here + back * min(BEVEL / lengths[0], 0.3), here + ahead * min(BEVEL / lengths[1], 0.3)]
    return np.array(result if loop else [*result, points[-1]])
