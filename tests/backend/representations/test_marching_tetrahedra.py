"""The lattice fills the cube, and its surfaces are closed, oriented, of the right topology, and differentiable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.representations.marching_tetrahedra import LARGEST_OFFSET, find_crossings, place_vertices
from backend.representations.mesh_data import MeshData
from backend.representations.soundness import soundness
from backend.representations.tetrahedral_lattice import Lattice

CPU = torch.device("cpu")
SHARPEST, WIDEST = 60.0, 90.0
"""Dihedral angles of the disphenoid that tiles space (Sommerville 1923)."""


def ball(points: Tensor, radius: float, x: float = 0.0) -> Tensor:
    return (points - torch.tensor([x, 0.0, 0.0], dtype=points.dtype)).norm(dim=1) - radius


def torus(points: Tensor, major: float, minor: float) -> Tensor:
    return ((points[:, :2].norm(dim=1) - major).square() + points[:, 2].square()).sqrt() - minor


def extract(lattice: Lattice, distances: Tensor, points: Tensor | None = None) -> MeshData:
    crossings = find_crossings(lattice, (distances < 0.0) & ~lattice.border)
    vertices, _ = place_vertices(crossings, distances, lattice.points if points is None else points)
    return MeshData(vertices.numpy(), crossings.faces.numpy())


def area(mesh: MeshData) -> float:
    a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2.0)


def all_tetrahedra(lattice: Lattice) -> np.ndarray:
    """Every tetrahedron of whole points, listed from the lattice's arithmetic: [T, 4]."""
    side = lattice.side
    found = []
    for axis in range(3):
        z, y, x = np.meshgrid(*[np.arange(1, lattice.resolution + 1)] * 3, indexing="ij")
        inner = (z, y, x)[2 - axis] < lattice.resolution
        site = ((z * side + y) * side + x)[inner]
        around = site[:, None] + lattice.square_sites[axis].numpy()
        found.append(around[:, lattice.tetrahedra.numpy()].reshape(-1, 4))
    return np.concatenate(found)


def test_tetrahedra_are_congruent_and_fill_the_cube_between_the_outer_centers():
    lattice = Lattice(5, CPU)
    points = lattice.points.double().numpy()
    corners = points[all_tetrahedra(lattice)]
    volume = np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6.0
    np.testing.assert_allclose(volume, lattice.cell**3 / 12.0, rtol=1e-5)
    # Squares between whole cells: 3 axes, 4 x 5 x 5 of them, an octahedron of h^3 / 3 around each.
    assert volume.sum() == pytest.approx(3 * 4 * 25 * lattice.cell**3 / 3.0, rel=1e-5)
    cosines = []
    for i, j in combinations(range(4), 2):
        k, m = sorted({0, 1, 2, 3} - {i, j})
        axis = corners[0, j] - corners[0, i]
        first, second = np.cross(axis, corners[0, k] - corners[0, i]), np.cross(axis, corners[0, m] - corners[0, i])
        cosines.append(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    assert sorted(np.round(np.degrees(np.arccos(cosines)))) == [SHARPEST] * 4 + [WIDEST] * 2


def test_each_inner_triangle_belongs_to_two_tetrahedra_on_opposite_sides():
    lattice = Lattice(4, CPU)
    tetrahedra = all_tetrahedra(lattice)
    faces = np.concatenate([tetrahedra[:, list(face)] for face in combinations(range(4), 3)])
    _, count = np.unique(np.sort(faces, axis=1), axis=0, return_counts=True)
    assert set(count) <= {1, 2}
    points = lattice.points.numpy()
    lonely = np.unique(np.sort(faces, axis=1), axis=0)[count == 1]
    # Triangles with one neighbor have two points of the cube's surface or on the layer of centers just below it.
    assert (np.abs(points[lonely]).max(axis=2) > 1.0 - 0.6 * lattice.cell).sum(axis=1).min() >= 2


@pytest.mark.parametrize("resolution", [9, 24])
@pytest.mark.parametrize(
    ("distance", "volume", "area_", "euler", "components"),
    [
        (lambda p: ball(p, 0.6), 4 / 3 * np.pi * 0.6**3, 4 * np.pi * 0.36, 2, 1),
        (lambda p: torus(p, 0.55, 0.25), 2 * np.pi**2 * 0.55 * 0.25**2, 4 * np.pi**2 * 0.55 * 0.25, 0, 1),
        (
            lambda p: torch.minimum(ball(p, 0.35, 0.5), ball(p, 0.35, -0.5)),
            8 / 3 * np.pi * 0.35**3,
            8 * np.pi * 0.35**2,
            4,
            2,
        ),
    ],
    ids=["sphere", "torus", "two balls"],
)
def test_known_shapes(
    distance: Callable[[Tensor], Tensor], volume: float, area_: float, euler: int, components: int, resolution: int
):
    lattice = Lattice(resolution, CPU)
    mesh = extract(lattice, distance(lattice.points))
    facts = soundness(mesh)
    assert facts.sound and (facts.euler, facts.components) == (euler, components)
    # Chords of a curve of radius r over edges up to h leave out (h / r)^2 / 8 of it, twice for the two curvatures.
    tolerance = 0.8 * (lattice.cell / 0.25) ** 2
    assert facts.volume == pytest.approx(volume, rel=tolerance)
    assert area(mesh) == pytest.approx(area_, rel=tolerance)
    assert np.abs(distance(torch.from_numpy(mesh.positions)).numpy()).max() < 0.15 * lattice.cell**2 / 0.25


@pytest.mark.parametrize("seed", range(4))
def test_noise_makes_closed_manifolds_that_do_not_cut_themselves(seed: int):
    """Any signs and any numbers, with points moved as far as they may be: volumes of the tetrahedra stay positive."""
    lattice = Lattice(8, CPU)
    generator = torch.Generator().manual_seed(seed)
    distances = torch.randn(lattice.count, generator=generator)
    distances[torch.rand(lattice.count, generator=generator) < 0.2] = 0.0
    directions = torch.nn.functional.normalize(torch.randn(lattice.count, 3, generator=generator), dim=1)
    moved = lattice.points + LARGEST_OFFSET * lattice.cell * directions
    mesh = extract(lattice, distances, moved)
    facts = soundness(mesh)
    assert facts.watertight and facts.manifold and facts.oriented and facts.volume > 0.0
    corners = moved.double().numpy()[all_tetrahedra(lattice)]
    assert (np.linalg.det(corners[:, 1:] - corners[:, :1]) > 0.0).all()
    a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-6 * lattice.cell**2


def test_faces_look_toward_larger_distances():
    lattice = Lattice(10, CPU)
    mesh = extract(lattice, torus(lattice.points, 0.55, 0.25))
    corners = torch.from_numpy(mesh.positions[mesh.faces])
    middle = corners.mean(dim=1).requires_grad_()
    (outward,) = torch.autograd.grad(torus(middle, 0.55, 0.25).sum(), middle)
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert torch.nn.functional.cosine_similarity(normals, outward).min() > 0.0


def test_exact_zeros_make_no_degenerate_triangles():
    """A cube whose sides run through lattice points: most of its vertices would fall on one."""
    lattice = Lattice(8, CPU)
    mesh = extract(lattice, lattice.points.abs().amax(dim=1) - 0.5)
    facts = soundness(mesh)
    assert facts.sound and facts.euler == 2
    a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    double_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.maximum.reduce([np.linalg.norm(e, axis=1) for e in (b - a, c - b, a - c)])
    assert (double_area > 1e-3 * longest**2).all()
    assert facts.volume == pytest.approx(1.0, abs=0.02)


def test_nothing_inside_makes_no_faces_and_everything_inside_a_closed_box():
    lattice = Lattice(6, CPU)
    assert extract(lattice, torch.ones(lattice.count)).faces.shape == (0, 3)
    facts = soundness(extract(lattice, -torch.ones(lattice.count)))
    assert facts.sound and facts.components == 1 and facts.euler == 2


def test_positions_are_differentiable_in_distances_and_points():
    lattice = Lattice(4, CPU)
    generator = torch.Generator().manual_seed(3)
    distances = (ball(lattice.points, 0.6) + 0.05 * torch.randn(lattice.count, generator=generator)).double()
    distances = torch.where(distances.abs() < 0.02, 0.02 * distances.sign(), distances)  # away from the ends of edges
    points = lattice.points.double() + 0.05 * torch.randn(lattice.count, 3, generator=generator).double()
    crossings = find_crossings(lattice, (distances < 0.0) & ~lattice.border)
    used = crossings.edges.unique()

    def vertices(some_distances: Tensor, some_points: Tensor) -> Tensor:
        return place_vertices(
            crossings, distances.index_copy(0, used, some_distances), points.index_copy(0, used, some_points)
        )[0]

    inputs = distances[used].requires_grad_(), points[used].requires_grad_()
    share = place_vertices(crossings, distances, points)[1]
    assert 0.011 < share.min() and share.max() < 0.989
    assert torch.autograd.gradcheck(vertices, inputs, fast_mode=True)


def test_a_vertex_kept_off_the_end_of_its_edge_still_has_a_gradient():
    lattice = Lattice(6, CPU)
    distances = ball(lattice.points, 0.6)
    inside = (distances < 0.0) & ~lattice.border
    near = find_crossings(lattice, inside).edges[0]
    distances[near] = torch.where(distances[near] < 0.0, -1e-12, 0.0)
    distances.requires_grad_()
    vertices, share = place_vertices(find_crossings(lattice, inside), distances, lattice.points)
    assert torch.isfinite(vertices).all() and 0.0 < share.min()
    vertices.square().sum().backward()
    assert torch.isfinite(distances.grad).all() and (distances.grad[near] != 0.0).all()


def test_extraction_repeats_bit_for_bit():
    lattice = Lattice(12, CPU)
    distances = torus(lattice.points, 0.5, 0.2)
    first, second = extract(lattice, distances), extract(lattice, distances)
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.faces, second.faces)
