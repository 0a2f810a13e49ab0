"""From one representation to another, keeping shape and color: every way leads through a clean triangle mesh.

Clean means watertight, manifold and oriented outward, without dust and inner cavities, with about as many vertices as
asked for. All of it is deterministic and changes nothing of what it is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from backend.errors import InputError
from backend.rendering.volume import Chords, visibility_weights
from backend.representations.closest_point import transfer_attributes
from backend.representations.isosurface import extract_isosurface
from backend.representations.editable_mesh import face_normals, norm
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.remesh import remesh_isotropic
from backend.representations.repair import make_sound
from backend.representations.soundness import drop_dust
from backend.representations.surface_level import (
    FACE_AXES,
    LOGIT_RANGE,
    SampledField,
    closed_field,
    lift_missed_parts,
    observe,
    scored_levels,
    surface_level,
)

if TYPE_CHECKING:
    from backend.representations.density_grid import DensityGrid
    from backend.representations.tetrahedral_grid import TetrahedralGrid

with warnings.catch_warnings():  # its package imports scipy.ndimage.filters, a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox

SKIN_VOXELS = 1.5
"""Colors are composited from this many voxels outside the surface to as many inside."""

SKIN_SAMPLES = 16

CRACK = 0.2
"""The widest crack in a shell that is sealed to fill what the shell encloses."""

SIZABLE = 0.02
"""Share of the solid's own volume that a cavity behind cracks must have."""

FIELD_SCALE = 10.0
"""Density at which a logit of a sampled field is log(e - 1): as a density grid has it."""

FAINTEST = -8.0
"""Least logit of a sampled field: a ray that crosses the whole sphere at it loses less than a hundredth of its light."""

POINTS_AT_ONCE = 2**17

Look = Callable[[Chords], tuple[Tensor, Tensor]]
"""Opacity [P] and premultiplied color [P, 3] along chords."""


def adaptive_surface(grid: DensityGrid) -> MeshData:
    """The surface of `grid` as it is, quickly (some 25 ms at 32 voxels), for previews.

    Never empty: the level follows the opacity, however faint. Uses no random number and changes nothing. Three views
    must do, and the first level that agrees with them: who watches live pays for each of these from the loop's time.
    """
    field = grid.sampled()
    positions, faces = _quick_surface(field)
    return MeshData(positions, faces, _grid_colors(grid, field, positions, faces))


def grid_to_mesh(grid: DensityGrid, target_vertices: int) -> MeshData:
    """A clean mesh of `grid` with about `target_vertices` [V, 3], colored, fitting the unit sphere.

    Clearly visible parts are kept, faint as they may be.
    """
    field = grid.sampled()
    logits = _logits_from_level(field)
    positions, faces = _clean_surface(_upsample(np.clip(logits, -LOGIT_RANGE, LOGIT_RANGE)), target_vertices)
    return MeshData(positions, faces, _grid_colors(grid, field, positions, faces))


def tetrahedra_to_mesh(grid: TetrahedralGrid, target_vertices: int) -> MeshData:
    """A clean mesh of the grid's surface with about `target_vertices`: no thin triangles, colors carried over.

    A grid whose only surface is dust or a cavity keeps its largest piece.
    """
    rough = grid.to_mesh()
    kept, faces = drop_dust(rough.positions, rough.faces)
    positions, faces = remesh_isotropic(rough.positions[kept], faces, target_vertices)
    return make_sound(MeshData(positions, faces, transfer_attributes(positions, rough.positions, rough.faces, rough.colors)))


def mesh_to_distances(points: np.ndarray, mesh: MeshData, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances [N] (negative inside) and colors [N, 3] at `points` [N, 3], float32, for a tetrahedral grid.

    Inside is where the generalized winding number exceeds one half (Jacobson et al. 2013), so small holes and overlaps
    do no harm. Colors within `near` of the surface are those of the closest point on it, further off those of the
    nearest vertex; gray if the mesh has none. Parts thinner than the points' spacing may be lost.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`) or has no area.
    """
    check_mesh(mesh)
    # A face without area encloses nothing and has no barycentrics.
    proper = norm(face_normals(mesh.positions.astype(np.float64), mesh.faces)) > 0.0
    if not proper.any():
        raise InputError("The faces of the mesh have no area: there is no inside to start from; give one with a volume.")
    mesh = replace(mesh, faces=mesh.faces[proper], uvs=None, uv_faces=None)
    arrays = points.astype(np.float64), mesh.positions.astype(np.float64), mesh.faces.astype(np.int32)
    distance = np.sqrt(gpytoolbox.squared_distance(*arrays, use_cpp=True)[0])
    winding = gpytoolbox.fast_winding_number(*arrays)
    signed = np.where(winding > 0.5, -distance, distance).astype(np.float32)
    if mesh.colors is None:
        return signed, np.full((len(points), 3), 0.5, dtype=np.float32)
    colors = mesh.colors[cKDTree(mesh.positions).query(points)[1]]
    close = distance < near
    colors[close] = transfer_attributes(points[close], mesh.positions, mesh.faces, mesh.colors)
    return signed, colors.astype(np.float32)


def field_to_mesh(
    density_at: Callable[[Float[Tensor, "P 3"]], Float[Tensor, "P"]],
    color_at: Callable[[Float[Tensor, "P 3"]], Float[Tensor, "P 3"]],
    target_vertices: int,
    resolution: int = 64,
    device: torch.device | str = "cpu",
) -> MeshData:
    """A clean mesh of any radiance field inside the unit sphere, with about `target_vertices`, colored.

    Density (per unit length) and color in [0, 1] are asked for at points [P, 3] on `device`, without gradients; density at
    the `resolution`^3 vertices of a grid over [-1, 1]^3, color at the surface. The surface is cut where its silhouettes
    agree best with the opacity that the density renders, so it does not matter how dense "dense" is. A field without
    any density becomes the ball around it.

    Raises:
        InputError: the density is not finite somewhere.
    """
    field = _sample_field(density_at, resolution, device)
    logits = _logits_from_level(field)
    positions, faces = _clean_surface(np.clip(logits, -LOGIT_RANGE, LOGIT_RANGE), target_vertices)
    return MeshData(positions, faces, _field_colors(density_at, color_at, field, positions, faces))


def field_surface(
    density_at: Callable[[Float[Tensor, "P 3"]], Float[Tensor, "P"]],
    color_at: Callable[[Float[Tensor, "P 3"]], Float[Tensor, "P 3"]],
    resolution: int = 32,
    device: torch.device | str = "cpu",
) -> MeshData:
    """The surface of any radiance field as it is, quickly, for previews: `adaptive_surface` of `field_to_mesh`'s field."""
    field = _sample_field(density_at, resolution, device)
    positions, faces = _quick_surface(field)
    return MeshData(positions, faces, _field_colors(density_at, color_at, field, positions, faces))


def _quick_surface(field: SampledField) -> tuple[np.ndarray, np.ndarray]:
    levels, score = scored_levels(observe(field, size=24, axes=FACE_AXES))
    return _isosurface(closed_field(field.logits.cpu().numpy(), float(levels[int(np.argmax(score))])))


def _sample_field(density_at: Callable[[Tensor], Tensor], resolution: int, device: torch.device | str) -> SampledField:
    axis = torch.linspace(-1.0, 1.0, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1).reshape(-1, 3)
    with torch.no_grad():
        density = torch.cat([density_at(part).float() for part in points.split(POINTS_AT_ONCE)])
    if not torch.isfinite(density).all():
        raise InputError("The field's density is not a finite number everywhere; its optimization needs a lower learning rate.")
    logits = _logit_of(density).clamp_min(FAINTEST).view(resolution, resolution, resolution)
    colorless = torch.zeros(*logits.shape, 3, device=device)
    return SampledField(logits, colorless, FIELD_SCALE, sharpness=1.0, samples=2 * resolution)


def _logit_of(density: Tensor) -> Tensor:
    """The inverse of FIELD_SCALE * softplus, which is the identity for large values."""
    activated = (density / FIELD_SCALE).clamp_min(0.0)
    return torch.where(activated > 20.0, activated, torch.log(torch.expm1(activated.clamp_max(20.0))))


def _logits_from_level(field: SampledField) -> np.ndarray:
    """Logits [R, R, R], 0 at the surface, clearly visible parts included."""
    seen = observe(field, size=48)
    level = surface_level(field.logits.cpu().numpy(), seen)
    return lift_missed_parts(field, level, seen) - level


def _clean_surface(logits: np.ndarray, target_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and faces of {logits > 0} inside the unit sphere, filled and without dust."""
    field = closed_field(logits, 0.0)
    field = np.where(_solid(field > 0.0), np.maximum(field, 1e-3), field)
    positions, faces = _isosurface(field)
    kept, faces = drop_dust(positions, faces)
    return remesh_isotropic(positions[kept], faces, target_vertices)


def _solid(inside: np.ndarray) -> np.ndarray:
    """`inside` [R, R, R] with its cavities filled, also those that are closed but for cracks.

    A thin shell that is faint as yet is full of cracks, through which all that it encloses counts as outside. So cracks
    are sealed, ever wider ones, and where that encloses a sizable cavity it is filled, up to the seal's middle. Shapes
    that sealing does not close (a bowl, a ring, a handle) stay as they are.
    """
    solid = ndimage.binary_fill_holes(inside)
    for width in range(1, round(0.5 * CRACK / _voxel(inside)) + 1):
        outside = ndimage.distance_transform_edt(~np.pad(solid, width + 1))
        sealed = ndimage.binary_fill_holes(outside <= width)
        cavity = sealed & (outside > width)
        if cavity.sum() < SIZABLE * solid.sum():
            continue
        within = (ndimage.distance_transform_edt(sealed) > width) & (ndimage.distance_transform_edt(~cavity) <= width + 1.5)
        room = (slice(width + 1, -width - 1),) * 3
        solid = ndimage.binary_fill_holes(solid | within[room])
    return solid


def _colors_seen(
    positions: np.ndarray,
    faces: np.ndarray,
    voxel: float,
    look: Look,
    color_at: Callable[[Tensor], Tensor],
    device: torch.device | str,
) -> np.ndarray:
    """Colors [V, 3] that somebody looking straight at each vertex would see: composited through a thin skin."""
    normals = _vertex_normals(positions, faces)
    skin = SKIN_VOXELS * voxel
    count = positions.shape[0]
    chords = Chords(
        torch.as_tensor(positions + skin * normals, device=device).contiguous(),
        torch.as_tensor(-normals, device=device).contiguous(),
        torch.zeros(count, device=device),
        torch.full((count,), 2.0 * skin / SKIN_SAMPLES, device=device),
        SKIN_SAMPLES,
    )
    with torch.no_grad():
        opacity, color = look(chords)
        inside = color_at(torch.as_tensor(positions, device=device))
        faint = (opacity < 0.02)[:, None]
        return torch.where(faint, inside, color / opacity.clamp_min(1e-6)[:, None]).clamp(0.0, 1.0).cpu().numpy()


def _grid_colors(grid: DensityGrid, field: SampledField, positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    def look(chords: Chords) -> tuple[Tensor, Tensor]:
        image = field.composite(chords)
        return image.opacity, image.color

    return _colors_seen(positions, faces, _voxel(field.logits), look, grid.color_at, field.logits.device)


def _field_colors(
    density_at: Callable[[Tensor], Tensor],
    color_at: Callable[[Tensor], Tensor],
    field: SampledField,
    positions: np.ndarray,
    faces: np.ndarray,
) -> np.ndarray:
    def look(chords: Chords) -> tuple[Tensor, Tensor]:
        points = chords.points()
        flat = points.reshape(-1, 3)
        weights = visibility_weights(density_at(flat).view(points.shape[:2]), chords)
        return weights.sum(1), torch.einsum("ps,psc->pc", weights, color_at(flat).view(points.shape))

    return _colors_seen(positions, faces, _voxel(field.logits), look, color_at, field.logits.device)


def _voxel(logits: np.ndarray | Tensor) -> float:
    return 2.0 / (logits.shape[0] - 1)


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
