"""Texture coordinates: own ones kept, others made; what the texels of a texture show; seams that keep apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.errors import InputError
from backend.rendering import highest_safe_level
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, cylinder, icosphere
from backend.representations.texel_map import map_texels
from backend.representations.unwrap import overlapping_share, padding_texels, unwrap, usable_uvs


def grid(columns: int = 6, rows: int = 4) -> MeshData:
    """A flat sheet with a row of texture coordinates for each vertex, all of the unit square used."""
    y, x = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    lower = np.stack([corner, corner + 1, corner + columns + 2], -1)
    upper = np.stack([corner, corner + columns + 2, corner + columns + 1], -1)
    uvs = np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
    faces = np.concatenate([lower, upper]).astype(np.int32)
    return MeshData(np.pad(uvs, ((0, 0), (0, 1))), faces, None, uvs, faces.copy())


def rectangle_of(mesh: MeshData, low: tuple[float, float], high: tuple[float, float]) -> MeshData:
    """The mesh with its texture coordinates, which fill the unit square, moved into a rectangle."""
    span = np.subtract(high, low)
    return replace(mesh, uvs=(mesh.uvs * span + low).astype(np.float32))


def joined(*meshes: MeshData) -> MeshData:
    offsets = np.cumsum([0] + [len(mesh.positions) for mesh in meshes])
    uv_offsets = np.cumsum([0] + [len(mesh.uvs) for mesh in meshes])
    return MeshData(
        np.concatenate([mesh.positions + (0.0, 0.0, k) for k, mesh in enumerate(meshes)]).astype(np.float32),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets)]).astype(np.int32),
        None,
        np.concatenate([mesh.uvs for mesh in meshes]),
        np.concatenate([mesh.uv_faces + offset for mesh, offset in zip(meshes, uv_offsets)]).astype(np.int32),
    )


@pytest.mark.parametrize("size", [64, 500])
@pytest.mark.parametrize("shape", [cube(6), icosphere(2), cylinder(24)], ids=["cube", "ball", "cylinder"])
def test_charts_fit_do_not_overlap_and_keep_their_distance(shape, size) -> None:
    mesh = unwrap(shape, size)
    assert mesh.positions is shape.positions and mesh.faces is shape.faces
    assert mesh.uvs.dtype == np.float32 and mesh.uv_faces.dtype == np.int32 and mesh.uv_faces.shape == shape.faces.shape
    corners = mesh.uvs[mesh.uv_faces].astype(np.float64)
    border = 0.5 * padding_texels(size) / size
    assert corners.min() >= border - 1e-6 and corners.max() <= 1.0 - border + 1e-6
    assert overlapping_share(corners) == 0.0
    assert usable_uvs(mesh)
    texels = map_texels(mesh, size, size)
    assert texels.chart.max() > 0
    # Distances measured by brute force: from each chart's texels to all those of the others.
    if size == 64:
        owner = texels.chart[texels.face[texels.covered]]
        place = np.argwhere(texels.covered)
        for chart in range(texels.chart.max() + 1):
            gap = np.abs(place[owner == chart][:, None] - place[owner != chart][None]).max(-1).min()
            assert gap > padding_texels(size) - 1
    assert texels.margin >= padding_texels(size) // 2 - 1
    # One scale for all: areas in the texture are those on the surface, times one number (charts are nearly isometric here).
    a, b = (np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1) for p in (
        shape.positions[shape.faces].astype(np.float64), np.pad(corners, ((0, 0), (0, 0), (0, 1)))
    ))
    ratio = b / a
    assert ratio.max() / ratio.min() < 2.5


def test_unwrapping_repeats_bit_for_bit() -> None:
    one, other = unwrap(icosphere(2), 256), unwrap(icosphere(2), 256)
    np.testing.assert_array_equal(one.uvs, other.uvs)
    np.testing.assert_array_equal(one.uv_faces, other.uv_faces)


@pytest.mark.parametrize("mesh", [
    grid(),
    grid(31, 17),  # diagonals through texel centers
    rectangle_of(grid(), (1.0, 0.0), (0.0, 1.0)),  # mirrored
    joined(rectangle_of(grid(), (0.0, 0.0), (0.5, 1.0)), rectangle_of(grid(), (0.5, 0.0), (1.0, 1.0))),  # side by side
    unwrap(icosphere(2), 128),
], ids=["sheet", "fine", "mirrored", "touching", "charts"])
def test_own_usable_texture_coordinates_are_kept(mesh) -> None:
    kept = unwrap(mesh, 128)
    assert kept is mesh


def test_own_texture_coordinates_that_cannot_be_used_are_replaced() -> None:
    unusable = {
        "stacked": joined(grid(), grid()),
        "partly stacked": joined(rectangle_of(grid(), (0, 0), (0.5, 1)), rectangle_of(grid(), (0.45, 0), (1, 1))),
        "not finite": replace(grid(), uvs=np.where(np.arange(35)[:, None] == 3, np.nan, grid().uvs).astype(np.float32)),
        "all at one point": replace(grid(), uvs=np.zeros_like(grid().uvs)),
        "repeated over the border": rectangle_of(grid(), (0, 0), (2.5, 1.7)),
        "missing": replace(grid(), uvs=None, uv_faces=None),
    }
    for name, mesh in unusable.items():
        assert not usable_uvs(mesh), name
        made = unwrap(mesh, 64)
        assert made is not mesh and usable_uvs(made), name
        assert made.positions is mesh.positions and made.faces is mesh.faces, name


def test_the_share_that_overlaps_is_measured() -> None:
    for width in (0.1, 0.01, 0.004):
        mesh = joined(rectangle_of(grid(), (0, 0), (0.5, 1)), rectangle_of(grid(), (0.5 - width, 0), (1 - width, 1)))
        share = overlapping_share(mesh.uvs[mesh.uv_faces].astype(np.float64))
        assert share == pytest.approx(width / (1 - width), abs=2e-3)


def test_udim_tiles_are_refused_and_named() -> None:
    mesh = joined(grid(), rectangle_of(grid(), (1, 0), (2, 1)), rectangle_of(grid(), (0, 1), (1, 2)))
    with pytest.raises(InputError, match=r"UDIM tiles \(1001, 1002, 1011\).*first tile"):
        unwrap(mesh, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.zeros((0, 3), np.float32), "faces": np.zeros((0, 3), np.int32)}, "nothing to unwrap"),
        ({"faces": np.zeros((0, 3), np.int32), "uv_faces": np.zeros((0, 3), np.int32)}, "nothing to unwrap"),
        ({"positions": np.full((35, 3), np.nan, np.float32)}, "not numbers"),
        ({"positions": np.zeros((35, 3), np.float32), "uvs": None, "uv_faces": None}, "No face of the mesh has an area"),
        ({"faces": grid().faces + 7}, "names vertex .*, but the mesh has vertices 0 to 34"),
        ({"uv_faces": grid().uv_faces + 7}, "do not exist"),
        ({"uv_faces": grid().uv_faces[:-1]}, "one row of indices a face"),
    ],
)
def test_meshes_that_cannot_be_unwrapped_are_refused_in_a_sentence(change, words) -> None:
    with pytest.raises(InputError, match=words):
        unwrap(replace(grid(), **change), 64)
    for size in (0, 8, 10000):
        with pytest.raises(InputError, match="16 to 8192"):
            unwrap(grid(), size)


def test_broken_meshes_are_unwrapped_where_there_is_a_surface() -> None:
    ball = icosphere(1)
    positions, faces = ball.positions, ball.faces
    broken = {
        "zero-area faces": (positions, np.concatenate([faces, [[0, 0, 1], [3, 3, 3]]])),
        "collinear face": (np.concatenate([positions, [[2, 0, 0], [3, 0, 0], [4, 0, 0]]]), np.concatenate([faces, [[42, 43, 44]]])),
        "three faces at an edge": (np.concatenate([positions, [[2.0, 2, 2]]]), np.concatenate([faces, [[*faces[0, :2], 42]]])),
        "duplicate vertices": (positions[faces.reshape(-1)], np.arange(faces.size).reshape(-1, 3)),
        "unused vertices": (np.concatenate([positions, [[9.0, 9, 9]]]), faces),
        "duplicate faces": (positions, np.concatenate([faces, faces[:5]])),
        "flipped faces": (positions, np.where(np.arange(len(faces))[:, None] % 3 == 0, faces[:, ::-1], faces)),
    }
    for name, (points, triangles) in broken.items():
        mesh = MeshData(points.astype(np.float32), triangles.astype(np.int32))
        made = unwrap(mesh, 128)
        assert made.uv_faces.shape == triangles.shape, name
        assert np.isfinite(made.uvs).all() and made.uvs.min() >= 0.0 and made.uvs.max() <= 1.0, name
        # Faces at one place may share texels: 5 of 80 are there twice.
        most = 5 / 80 if name == "duplicate faces" else 1e-3
        assert overlapping_share(made.uvs[made.uv_faces].astype(np.float64)) <= most, name
    # Copies of a vertex at one place are no seams: as few charts as for the mesh without copies.
    copies = unwrap(MeshData(*(array.astype(kind) for array, kind in zip(broken["duplicate vertices"], ("f4", "i4")))), 128)
    assert map_texels(copies, 128, 128).chart.max() == map_texels(unwrap(ball, 128), 128, 128).chart.max()


def test_texels_show_the_point_of_the_surface_that_has_their_coordinates() -> None:
    mesh = rectangle_of(grid(), (0.07, 0.11), (0.83, 0.71))
    texels = map_texels(mesh, 40, 50)
    v, u = np.meshgrid(1 - (np.arange(40) + 0.5) / 40, (np.arange(50) + 0.5) / 50, indexing="ij")
    inside = (u > 0.07) & (u < 0.83) & (v > 0.11) & (v < 0.71)
    shown = texels.interpolate(mesh.uvs, mesh.uv_faces)
    nearest = np.stack([u.clip(0.07, 0.83), v.clip(0.11, 0.71)], -1)[texels.covered]
    np.testing.assert_allclose(shown, nearest, atol=0.25 / 40 + 1e-6)  # rims are looked at in steps of a quarter of a texel
    np.testing.assert_allclose(shown[inside[texels.covered]], nearest[inside[texels.covered]], atol=2e-6)
    touched = (u > 0.07 - 0.01) & (u < 0.83 + 0.01) & (v > 0.11 - 0.0125) & (v < 0.71 + 0.0125)
    np.testing.assert_array_equal(texels.covered, touched)


def test_the_smallest_chart_has_a_texel_of_its_own() -> None:
    tiny = rectangle_of(grid(1, 1), (0.501, 0.501), (0.5015, 0.5012))
    sliver = rectangle_of(grid(1, 1), (0.1, 0.201), (0.4, 0.2011))
    texels = map_texels(joined(tiny, sliver), 64, 64)
    owner = texels.chart[texels.face[texels.covered]]
    assert (owner == texels.chart[0]).sum() == 1
    assert (owner == texels.chart[-1]).sum() >= 0.3 * 64 - 1
    assert np.allclose(texels.barycentrics[texels.covered].sum(-1), 1.0)


def test_margins_count_across_the_texture_s_borders() -> None:
    def margin(low: float, high: float, between: float) -> float:
        left, right = (0.5 - between / 2, 0.5 + between / 2)
        return map_texels(
            joined(rectangle_of(grid(), (low, 0.4), (left, 0.6)), rectangle_of(grid(), (right, 0.4), (high, 0.6))), 100, 100
        ).margin

    assert margin(0.2, 0.8, 0.2) in (9.0, 10.0)
    assert margin(0.2, 0.8, 0.06) in (2.0, 3.0)
    assert margin(0.035, 0.955, 0.2) in (2.0, 3.0)
    assert margin(0.1, 0.955, 0.2) in (3.0, 4.0)
    assert margin(0.0, 1.0, 0.2) == 0.0
    assert map_texels(grid(), 32, 32).margin == np.inf
    assert highest_safe_level(100, 100, 0.0) == 0


def test_no_texture_coordinates_no_texels() -> None:
    with pytest.raises(InputError, match="unwrap it first"):
        map_texels(cube(2), 32, 32)
    with pytest.raises(InputError, match="have no area"):
        map_texels(replace(grid(), uvs=np.full_like(grid().uvs, 7.0)), 32, 32)
