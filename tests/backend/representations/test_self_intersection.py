"""Faces that pass through each other are all found and no others are, against brute force and by construction."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from backend.representations.self_intersection import self_intersections
from tests.backend.representations.closed_shapes import CLOSED, noisy_ball
from tests.backend.representations.mesh_oracles import crossings


def pairs_of(mesh: MeshData) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in self_intersections(mesh)}


@pytest.mark.parametrize("seed", range(4))
def test_triangle_soups_of_all_sizes_agree_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    centers, sizes = rng.uniform(-1, 1, (150, 1, 3)), 10.0 ** rng.uniform(-2.5, 0.0, (150, 1, 1))
    positions = (centers + sizes * rng.normal(size=(150, 3, 3))).reshape(-1, 3).astype("f4")
    mesh = MeshData(positions, np.arange(450, dtype="i4").reshape(-1, 3))
    expected = crossings(positions, mesh.faces)
    assert len(expected) > 20
    assert pairs_of(mesh) == expected


@pytest.mark.parametrize("noise", [0.6, 0.9])
def test_a_crumpled_ball_agrees_with_brute_force_neighbors_included(noise):
    mesh = noisy_ball(2, noise)
    expected = crossings(mesh.positions, mesh.faces)
    assert len(expected) > 3
    assert any(set(mesh.faces[a]) & set(mesh.faces[b]) for a, b in expected)
    assert pairs_of(mesh) == expected


@pytest.mark.parametrize("name", CLOSED)
def test_neighbors_that_touch_do_not_count(name):
    mesh = CLOSED[name]()
    assert pairs_of(mesh) == set()
    far = MeshData(mesh.positions * np.float32(1e4) + np.float32(3e4), mesh.faces)
    assert pairs_of(far) == set()


def test_faces_upon_each_other_count_however_they_are_connected():
    flat = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [1, 1, 0], [2, 1, 0], [1, 2, 0], [3, 3, 0], [1, -3, 0]], dtype="f4")
    within, folded, beside, doubled, at_corner = [3, 4, 5], [0, 1, 3], [0, 7, 1], [1, 2, 0], [0, 3, 4]
    for other, meets in ((within, True), (folded, True), (beside, False), (doubled, True), (at_corner, True), ([1, 6, 2], False)):
        mesh = MeshData(flat, np.array([[0, 1, 2], other], dtype="i4"))
        assert (len(self_intersections(mesh)) == 1) == meets, other


def test_a_cap_pushed_through_the_other_side_is_found_in_ascending_pairs():
    ball = icosphere(3)
    positions = ball.positions.copy()
    positions[positions[:, 1] > 0.45, 1] -= 1.15
    pairs = self_intersections(MeshData(positions, ball.faces))
    assert len(pairs) > 20
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.tolist() == sorted(pairs.tolist())


def test_faces_without_area_are_left_out_and_no_mesh_is_refused():
    shape = cube(2)
    faces = np.concatenate([shape.faces, [[0, 0, 1], [3, 3, 3]]]).astype("i4")
    assert pairs_of(MeshData(shape.positions, faces)) == set()
    with pytest.raises(InputError):
        self_intersections(MeshData(shape.positions, shape.faces + 100))
