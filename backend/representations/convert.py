"""From a density grid to a triangle mesh: a quick surface for previews, and a clean one to go on with.

The level at which the surface is cut is not a constant: a ray meets the surface of level l exactly if the largest
interpolated logit along it is at least l, so one pass over a few views tells for *every* level how well its silhouettes
agree with the opacity that the grid renders. Parts that the opacity shows and the chosen level would still miss (a thin
handle, faint as yet) are lifted above it where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from skimage.measure import euler_number

from backend.rendering.volume import Chords, peak_along, unit_sphere_chords
from backend.representations.soundness import drop_dust
from backend.representations.isosurface import extract_isosurface
from backend.representations.mesh_data import MeshData
from backend.representations.remesh import remesh_isotropic

if TYPE_CHECKING:
    from backend.representations.density_grid import DensityGrid

RECALL = 1.1
"""beta of the F score between silhouettes and opacity: above 1 prefers keeping parts over staying slim."""

SIMPLER = 0.015
"""A level may score this much less than the best one if its surface has fewer pieces and holes."""

VISIBLE = 0.4
"""Rendered opacity from which a pixel is clearly part of the object."""

LOGIT_RANGE = 6.0
"""Logits are clipped to this distance from the level before the cubic upsampling, which would ring at larger jumps."""

SKIN_VOXELS = 1.5
"""Colors are composited from this many voxels outside the surface to as many inside."""

Axes = list[tuple[int, int, int]]
CUBE_AXES: Axes = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
"""Through the faces, edges and corners of a cube: 13 of them."""

FACE_AXES: Axes = [axis for axis in CUBE_AXES if sum(map(abs, axis)) == 1]


@dataclass(frozen=True)
class Silhouettes:
    """What V orthographic views of S x S rays see: opacity [V, S, S], peak logit [V, S, S], where it is [V, S, S, 3]."""

    opacity: np.ndarray
    peak: np.ndarray
    where: np.ndarray


def adaptive_surface(grid: DensityGrid) -> MeshData:
    """The surface of `grid` as it is, quickly (some 25 ms at 32 voxels), for previews.

    Never empty: the level follows the opacity, however faint. Uses no random number and changes nothing. Three views
    must do, and the first level that agrees with them: who watches live pays for each of these from the loop's time.
    """
    logits = _logits(grid)
    levels, score = scored_levels(observe(grid, logits, size=24, axes=FACE_AXES))
    level = float(levels[int(np.argmax(score))])
    positions, faces = _isosurface(_closed_field(logits, level))
    return MeshData(positions, faces, surface_colors(grid, positions, faces))


def grid_to_mesh(grid: DensityGrid, target_vertices: int) -> MeshData:
    """A clean mesh of `grid` with about `target_vertices` [V, 3], colored, fitting the unit sphere.

    Watertight, manifold and oriented outward; dust and inner cavities are gone, clearly visible parts are kept.
    Deterministic; the grid is not changed.
    """
    logits = _logits(grid)
    seen = observe(grid, logits, size=48)
    level = surface_level(logits, seen)
    logits = lift_missed_parts(grid, logits, level, seen)
    field = _closed_field(_upsample(np.clip(logits - level, -LOGIT_RANGE, LOGIT_RANGE)), 0.0)
    field = np.where(ndimage.binary_fill_holes(field > 0.0), np.maximum(field, 1e-3), field)
    positions, faces = _isosurface(field)
    kept, faces = drop_dust(positions, faces)
    positions, faces = remesh_isotropic(positions[kept], faces, target_vertices)
    return MeshData(positions, faces, surface_colors(grid, positions, faces))


def observe(grid: DensityGrid, logits: np.ndarray, size: int, axes: Axes = CUBE_AXES) -> Silhouettes:
    """Look at the grid along `axes`; opposite views have equal silhouettes."""
    chords = _orthographic_chords(size, grid.settings.samples_per_ray, grid.density_logits.device, axes)
    peak, where = peak_along(torch.as_tensor(logits, device=grid.density_logits.device), chords)
    with torch.no_grad():
        opacity = grid.composite(chords).opacity
    shape = (-1, size, size)
    return Silhouettes(
        opacity.view(shape).cpu().numpy(), peak.view(shape).cpu().numpy(), where.view(*shape, 3).cpu().numpy()
    )


def surface_level(logits: np.ndarray, seen: Silhouettes) -> float:
    """The level whose silhouettes agree best with the opacity, by F score; nearly as good and simpler wins."""
    levels, score = scored_levels(seen)
    best = int(np.argmax(score))
    good = np.flatnonzero(score >= score[best] - SIMPLER)
    # The best level first, then by score: it stays unless another one is strictly simpler.
    candidates = [best, *sorted(good[np.linspace(0, len(good) - 1, min(len(good), 7)).astype(int)], key=lambda k: -score[k])]
    candidate_levels = [float(levels[k]) for k in candidates]
    return candidate_levels[int(np.argmin([_complexity(logits, level) for level in candidate_levels]))]


def scored_levels(seen: Silhouettes) -> tuple[np.ndarray, np.ndarray]:
    """Every level that tells rays apart, from the highest, and the F score of its silhouettes against the opacity.

    All scores come from one sort of the peaks: the rays with the k largest peaks are those that meet the surface of the
    k-th peak's level.
    """
    strongest = float(seen.opacity.max())
    if strongest < 1e-6:  # nothing shows at float32's precision: whatever density there is, is near its maximum
        return np.array([float(seen.peak.max()) - 1.0]), np.ones(1)
    order = np.argsort(-seen.peak.reshape(-1), kind="stable")
    peak = seen.peak.reshape(-1)[order].astype(np.float64)
    opacity = seen.opacity.reshape(-1)[order].astype(np.float64) / strongest
    covered = np.cumsum(opacity)
    excess = np.cumsum(1.0 - opacity)
    missed = covered[-1] - covered
    weight = RECALL**2
    score = (1.0 + weight) * covered / ((1.0 + weight) * covered + weight * missed + excess)
    return peak - 1e-3, score


def lift_missed_parts(grid: DensityGrid, logits: np.ndarray, level: float, seen: Silhouettes) -> np.ndarray:
    """Raise `logits`, of which `seen` is the view, where the opacity clearly shows what the surface of `level` does not.

    A ray counts as missed if it and its surroundings of two pixels stay below the level: the soft rim of a kept part is
    not a missed part. At most four rounds; what cannot be reached stays as it is.
    """
    resolution, size = logits.shape[0], seen.opacity.shape[1]
    reached = np.ones((1, 5, 5), dtype=bool)
    for _ in range(4):
        covered = ndimage.binary_dilation(seen.peak >= level, structure=reached)
        missed = (seen.opacity > VISIBLE) & ~covered
        if not missed.any():
            break
        # The margin leaves it above the level after blurring.
        needed = level - seen.peak[missed] + 1.0
        index = np.rint((seen.where[missed][:, ::-1] + 1.0) * 0.5 * (resolution - 1)).astype(int)
        lift = np.zeros_like(logits)
        np.maximum.at(lift, tuple(index.clip(0, resolution - 1).T), needed)
        logits = logits + ndimage.gaussian_filter(ndimage.maximum_filter(lift, size=3), 0.6)
        seen = observe(grid, logits, size)
    return logits


def surface_colors(grid: DensityGrid, positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Colors [V, 3] that somebody looking straight at each vertex would see: composited through a thin skin."""
    device = grid.density_logits.device
    normals = _vertex_normals(positions, faces)
    skin = SKIN_VOXELS * 2.0 / (grid.density_logits.shape[0] - 1)
    samples = 16
    count = positions.shape[0]
    chords = Chords(
        torch.as_tensor(positions + skin * normals, device=device).contiguous(),
        torch.as_tensor(-normals, device=device).contiguous(),
        torch.zeros(count, device=device),
        torch.full((count,), 2.0 * skin / samples, device=device),
        samples,
    )
    with torch.no_grad():
        image = grid.composite(chords)
        colors = image.color / image.opacity.clamp_min(1e-6)[:, None]
        inside = grid.color_at(torch.as_tensor(positions, device=device))
        faint = (image.opacity < 0.02)[:, None]
        return torch.where(faint, inside, colors).clamp(0.0, 1.0).cpu().numpy()


def _logits(grid: DensityGrid) -> np.ndarray:
    return grid.density_logits.detach().cpu().numpy()


def _orthographic_chords(size: int, samples: int, device: torch.device, axes: Axes) -> Chords:
    forward = torch.nn.functional.normalize(torch.tensor(axes, dtype=torch.float32, device=device), dim=1)
    helper = torch.eye(3, device=device)[forward.abs().argmin(dim=1)]
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, forward), dim=1)
    up = torch.linalg.cross(forward, right)
    offset = (torch.arange(size, device=device) + 0.5) * (2.0 / size) - 1.0
    plane = offset[None, None, :, None] * right[:, None, None] + offset[None, :, None, None] * up[:, None, None]
    origins = (plane - 2.0 * forward[:, None, None]).reshape(-1, 3)
    directions = forward[:, None, None].expand(-1, size, size, 3).reshape(-1, 3)
    return unit_sphere_chords(origins, directions, samples)


def _complexity(logits: np.ndarray, level: float) -> int:
    """Pieces plus tunnels of {logit > level} inside the unit sphere; diagonal contact connects, cavities do not count."""
    inside = ndimage.binary_fill_holes(_closed_field(logits, level) > 0.0)
    pieces = ndimage.label(inside, structure=np.ones((3, 3, 3)))[1]
    return 2 * pieces - int(euler_number(inside, connectivity=3))


def _closed_field(logits: np.ndarray, level: float) -> np.ndarray:
    """logits - level, cut by the unit sphere so that every surface is closed; padded by one layer outside."""
    axis = np.linspace(-1.0, 1.0, logits.shape[0], dtype=np.float32)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    cut = (1.0 - radius) * (LOGIT_RANGE * logits.shape[0] / 8.0)
    return np.minimum(logits - np.float32(level), cut.astype(np.float32))


def _upsample(logits: np.ndarray) -> np.ndarray:
    """Cubic interpolation at twice the resolution; the outer vertices stay the outer vertices."""
    return ndimage.zoom(logits, (2 * np.array(logits.shape) - 1) / np.array(logits.shape), order=3, mode="nearest")


def _isosurface(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surface of a field over [-1, 1]^3 indexed [z, y, x]."""
    return extract_isosurface(field.transpose(2, 1, 0), np.full(3, -1.0), 2.0 / (field.shape[0] - 1))


def _vertex_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = positions[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(positions)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
