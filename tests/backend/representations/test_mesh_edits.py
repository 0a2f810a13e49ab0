"""Single splits, collapses and flips, hundreds in random order: the surface stays the surface that it was."""

from __future__ import annotations

import numpy as np
import pytest

from backend.representations import mesh_edits
from backend.representations.editable_mesh import EditableMesh, editable
from backend.representations.mesh_collapse import collapse_edges
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_edits import flip_edges, split_edges
from backend.representations.primitives import icosphere
from backend.representations.surface_edges import independent
from tests.backend.representations.closed_shapes import CLOSED, mean_edge
from tests.backend.representations.mesh_oracles import (
    crossings,
    euler_number,
    is_closed_manifold,
    one_sided_hausdorff,
    volume,
)


def under_edit(mesh: MeshData, size: float | None = None, locked: np.ndarray | None = None) -> EditableMesh:
    count = len(mesh.positions)
    held = np.zeros(count, dtype=bool) if locked is None else locked
    return editable(mesh, np.full(count, mean_edge(mesh) if size is None else size), held)


def random_edit(work: EditableMesh, rng: np.random.Generator) -> int:
    """One kind of edit on one edge, chosen at random; 0 if it was not safe there."""
    edges = work.edges()
    edge = rng.integers(len(edges.ends), size=1)
    kind = rng.integers(3)
    if kind == 0:
        return split_edges(work, edges, edge)
    return flip_edges(work, edges, edge) if kind == 1 else collapse_edges(work, edges, edge)[0]


@pytest.mark.parametrize("name", CLOSED)
def test_five_hundred_random_edits_keep_a_closed_manifold_its_genus_and_its_shape(name):
    mesh = CLOSED[name]()
    work = under_edit(mesh)
    rng = np.random.default_rng(list(CLOSED).index(name))
    genus = euler_number(mesh.faces)
    whole = volume(mesh.positions, mesh.faces)
    done, tried = 0, 0
    while done < 500:
        tried += 1
        assert tried < 5000, "hardly any edit is found safe"
        before = len(work.faces)
        edits = random_edit(work, rng)
        assert edits in (0, 1)
        assert edits == 1 or len(work.faces) == before
        done += edits
        if edits and done % 20 == 0:
            assert is_closed_manifold(work.faces), f"after {done} edits"
    assert is_closed_manifold(work.faces)
    assert euler_number(work.faces) == genus
    assert np.isfinite(work.positions).all()
    assert crossings(work.positions, work.faces) == set()
    assert volume(work.positions, work.faces) == pytest.approx(whole, rel=0.15)
    after = MeshData(work.positions, work.faces)
    assert max(one_sided_hausdorff(mesh, after), one_sided_hausdorff(after, mesh)) < 0.55 * mean_edge(mesh)


def test_a_split_halves_both_faces_and_interpolates():
    ball = icosphere(1)
    mesh = MeshData(ball.positions, ball.faces, np.random.default_rng(0).random(ball.positions.shape).astype("f4"))
    work = under_edit(mesh)
    edges = work.edges()
    a, b = edges.ends[7]
    assert split_edges(work, edges, np.array([7])) == 1
    np.testing.assert_allclose(work.positions[-1], (mesh.positions[a].astype(float) + mesh.positions[b]) / 2)
    np.testing.assert_allclose(work.colors[-1], (mesh.colors[a].astype(float) + mesh.colors[b]) / 2)
    assert len(work.faces) == len(mesh.faces) + 2 and is_closed_manifold(work.faces)
    assert (work.faces == len(mesh.positions)).any(axis=1).sum() == 4


def test_a_tetrahedron_cannot_be_collapsed_or_flipped():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype="f4")
    work = under_edit(MeshData(corners, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], dtype="i4")))
    edges = work.edges()
    for edge in range(6):
        assert collapse_edges(work, edges, np.array([edge]))[0] == 0
        assert flip_edges(work, edges, np.array([edge])) == 0


def test_a_neck_is_not_pinched_off():
    """A collapse around a ring of three edges would join two sheets at a vertex: the link condition forbids it."""
    angle = 2 * np.pi * np.arange(3) / 3
    rings = [np.stack([r * np.cos(angle), np.full(3, y), r * np.sin(angle)], 1) for r, y in ((1, -1), (0.1, 0), (1, 1))]
    positions = np.concatenate([*rings, [[0, -1.2, 0], [0, 1.2, 0]]]).astype("f4")
    faces = []
    for ring in (0, 3):
        for k in range(3):
            a, b, c, d = ring + k, ring + (k + 1) % 3, ring + 3 + (k + 1) % 3, ring + 3 + k
            faces += [[a, c, b], [a, d, c]]
    faces += [[9, k, (k + 1) % 3] for k in range(3)] + [[10, 6 + (k + 1) % 3, 6 + k] for k in range(3)]
    mesh = MeshData(positions, np.array(faces, dtype="i4"))
    assert is_closed_manifold(mesh.faces)
    work = under_edit(mesh, size=100.0)
    edges = work.edges()
    neck = np.flatnonzero(((edges.ends >= 3) & (edges.ends < 6)).all(axis=1))
    assert len(neck) == 3
    assert collapse_edges(work, edges, neck)[0] == 0


def test_an_edge_that_exists_already_is_not_made_again(monkeypatch):
    """On the torus of seven vertices each is everybody's neighbor: with flatness out of the way, no edge can be flipped."""
    monkeypatch.setattr(mesh_edits, "_flips_flat", lambda *given: np.ones(len(given[1]), dtype=bool))
    faces = [[(i + k) % 7 for k in shift] for i in range(7) for shift in ((0, 1, 3), (0, 3, 2))]
    mesh = MeshData(np.random.default_rng(0).normal(size=(7, 3)).astype("f4"), np.array(faces, dtype="i4"))
    assert is_closed_manifold(mesh.faces) and euler_number(mesh.faces) == 0
    work = under_edit(mesh)
    edges = work.edges()
    assert len(edges.ends) == 21
    assert flip_edges(work, edges, np.arange(21)) == 0


def test_many_edits_at_once_are_as_safe_as_one():
    rng = np.random.default_rng(5)
    for make in CLOSED.values():
        mesh = make()
        work = under_edit(mesh)
        for _ in range(8):
            edges = work.edges()
            everything = rng.permutation(len(edges.ends))
            kind = rng.integers(3)
            edit = (split_edges, flip_edges, lambda *given: collapse_edges(*given)[0])[kind]
            if kind == 0:
                everything = everything[: len(everything) // 6]
            count = edit(work, edges, everything)
            assert count > (0 if kind else 10)
            assert is_closed_manifold(work.faces)
        assert euler_number(work.faces) == euler_number(mesh.faces)
        assert crossings(work.positions, work.faces) == set()


def test_locked_vertices_and_the_edges_between_them_survive_every_edit():
    mesh = icosphere(2)
    locked = mesh.positions[:, 0] > 0.1
    work = under_edit(mesh, locked=locked)
    kept = mesh.faces[locked[mesh.faces].all(axis=1)]
    rng = np.random.default_rng(3)
    for _ in range(600):
        random_edit(work, rng)
    np.testing.assert_array_equal(work.positions[: len(locked)][locked], mesh.positions[locked])
    assert {tuple(face) for face in kept.tolist()} <= {tuple(face) for face in work.faces.tolist()}
    assert len(work.faces) != len(mesh.faces)


def test_greedy_independent_sets_equal_the_sequential_ones():
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows, items = int(rng.integers(1, 40)), int(rng.integers(3, 60))
        members = [rng.choice(items, size=rng.integers(1, 4), replace=False) for _ in range(rows)]
        row = np.repeat(np.arange(rows), [len(each) for each in members])
        used: set[int] = set()
        expected = []
        for each in members:
            expected.append(not used & set(each.tolist()))
            used |= set(each.tolist()) if expected[-1] else set()
        np.testing.assert_array_equal(independent(row, np.concatenate(members), rows, items), expected)
