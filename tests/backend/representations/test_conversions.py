"""Shape and color survive the way from one representation to another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from backend.errors import InputError
from backend.representations.closest_point import transfer_attributes
from backend.representations.convert import field_to_mesh, mesh_to_distances, tetrahedra_to_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from backend.representations.soundness import soundness
from backend.representations.tetrahedral_grid import TetrahedralGrid
from protocol.settings import TetrahedraStage

RESOLUTION = 20
CELL = 2.0 / RESOLUTION


def tinted(positions: np.ndarray) -> np.ndarray:
    return (0.5 + 0.4 * positions).astype(np.float32)


def painted_torus(major: float = 0.55, minor: float = 0.22) -> MeshData:
    u, v = np.meshgrid(np.arange(64), np.arange(32), indexing="ij")
    a, b = 2 * np.pi * u.reshape(-1) / 64, 2 * np.pi * v.reshape(-1) / 32
    distance = major + minor * np.cos(b)
    positions = np.stack([distance * np.cos(a), distance * np.sin(a), minor * np.sin(b)], -1).astype(np.float32)
    near, right = (u * 32 + v).reshape(-1), (((u + 1) % 64) * 32 + v).reshape(-1)
    up, both = (u * 32 + (v + 1) % 32).reshape(-1), (((u + 1) % 64) * 32 + (v + 1) % 32).reshape(-1)
    faces = np.concatenate([np.stack([near, right, both], -1), np.stack([near, both, up], -1)]).astype(np.int32)
    return MeshData(positions, faces, tinted(positions))


def on_surface(mesh: MeshData, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    corners = mesh.positions[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(corners), count, p=area / area.sum())]
    return np.einsum("pk,pkc->pc", rng.dirichlet(np.ones(3), count), chosen)


def chamfer(a: MeshData, b: MeshData) -> float:
    """Mean distance between points on the two surfaces, both ways; about .01 is due to the points' own spacing."""
    first, second = on_surface(a), on_surface(b)
    return float((cKDTree(second).query(first)[0].mean() + cKDTree(first).query(second)[0].mean()) / 2.0)


def with_tint(mesh: MeshData) -> MeshData:
    return MeshData(mesh.positions, mesh.faces, tinted(mesh.positions))


@pytest.mark.parametrize(
    ("start", "euler"),
    [(with_tint(icosphere(3)), 2), (painted_torus(), 0), (with_tint(cube(8, radius=0.9)), 2)],
    ids=["sphere", "torus", "cube"],
)
def test_mesh_to_tetrahedra_to_mesh_keeps_shape_and_color(start: MeshData, euler: int):
    grid = TetrahedralGrid(TetrahedraStage(steps=1, resolution=RESOLUTION), start=start)
    mesh = tetrahedra_to_mesh(grid, 800)
    facts = soundness(mesh)
    assert facts.sound and facts.euler == euler and facts.components == 1
    assert 650 < len(mesh.positions) < 950
    assert chamfer(mesh, start) < 0.25 * CELL
    assert np.abs(mesh.colors - tinted(mesh.positions)).max() < 0.05
    corners = mesh.positions[mesh.faces].astype(np.float64)
    sides = np.stack([corners[:, (k + 1) % 3] - corners[:, k] for k in range(3)], 1)
    double_area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    quality = 2.0 * 3.0**0.5 * double_area / np.square(sides).sum((1, 2))
    assert np.median(quality) > 0.85  # remeshed: no longer the lattice's slivers


def test_distances_to_a_sphere_are_those_of_the_closed_form():
    points = np.random.default_rng(1).uniform(-1.0, 1.0, (500, 3)).astype(np.float32)
    distance, colors = mesh_to_distances(points, with_tint(icosphere(4)), near=0.2)
    radius = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(distance, radius - 0.6, atol=2e-3)
    near = np.abs(radius - 0.6) < 0.19
    closest = points[near] / radius[near, None] * 0.6
    np.testing.assert_allclose(colors[near], tinted(closest), atol=0.01)
    assert distance.dtype == colors.dtype == np.float32


def test_near_a_large_face_colors_are_those_of_the_face_not_of_its_corners():
    start = with_tint(cube(1, radius=0.9))
    half = 0.9 / 3.0**0.5
    points = np.array([[0.1, half + 0.02, -0.2], [-0.3, 0.0, half - 0.03]], dtype=np.float32)
    distance, colors = mesh_to_distances(points, start, near=0.1)
    np.testing.assert_allclose(distance, [0.02, -0.03], atol=1e-5)
    np.testing.assert_allclose(colors, tinted(np.array([[0.1, half, -0.2], [-0.3, 0.0, half]])), atol=1e-5)


def test_a_mesh_with_a_hole_still_has_an_inside_and_a_colorless_one_is_gray():
    ball = icosphere(3)
    opened = MeshData(ball.positions, ball.faces[10:])
    distance, colors = mesh_to_distances(np.zeros((1, 3), np.float32), opened, near=0.1)
    assert distance[0] < -0.5 and (colors == 0.5).all()


def density_of(distance: Tensor, thickest: float) -> Tensor:
    """A surface as an optimized field has it; a ray that grazes it .015 outside meets a hundredth of what is inside."""
    return thickest * torch.sigmoid(-distance / 0.003)


@pytest.mark.parametrize("thickest", [30.0, 3000.0])
def test_field_to_mesh_keeps_shape_and_color_however_dense_it_is(thickest: float):
    start = painted_torus()
    asked: list[int] = []

    def density_at(points: Tensor) -> Tensor:
        asked.append(len(points))
        around = ((points[:, :2].norm(dim=1) - 0.55).square() + points[:, 2].square()).sqrt() - 0.22
        return density_of(around, thickest)

    mesh = field_to_mesh(density_at, lambda points: 0.5 + 0.4 * points, 900, resolution=40)
    facts = soundness(mesh)
    assert facts.sound and facts.euler == 0 and facts.components == 1
    assert chamfer(mesh, start) < 2.0 / 40
    assert np.abs(mesh.colors - tinted(mesh.positions)).max() < 0.05
    assert max(asked) <= 2**17 and asked[0] == 40**3


def test_field_to_mesh_repeats_and_takes_an_empty_field():
    def ball(points: Tensor) -> Tensor:
        return density_of(points.norm(dim=1) - 0.5, 100.0)

    meshes = [field_to_mesh(ball, torch.zeros_like, 300, resolution=24) for _ in range(2)]
    np.testing.assert_array_equal(meshes[0].positions, meshes[1].positions)
    nothing = field_to_mesh(lambda points: torch.zeros(len(points)), torch.zeros_like, 300, resolution=24)
    assert soundness(nothing).sound


def test_a_field_that_diverged_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="finite"):
        field_to_mesh(lambda points: points[:, 0] / 0.0, torch.zeros_like, 300, resolution=8)


def test_colors_of_tetrahedra_are_those_of_the_surface_they_came_from():
    """Two halves of different colors: within a cell of the seam they blend, elsewhere they are as they were."""
    ball = icosphere(4)
    colors = np.where(ball.positions[:, :1] > 0.0, [[0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9]]).astype(np.float32)
    start = MeshData(ball.positions, ball.faces, colors)
    mesh = tetrahedra_to_mesh(TetrahedralGrid(TetrahedraStage(steps=1, resolution=RESOLUTION), start=start), 1000)
    off_seam = np.abs(mesh.positions[:, 0]) > 1.5 * CELL
    wanted = transfer_attributes(mesh.positions, start.positions, start.faces, start.colors)
    assert np.abs(mesh.colors - wanted)[off_seam].max() < 0.05
