"""Remeshing as a whole: shape, topology, attributes, locks, seams and boundaries are kept; edges get the length asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations import mesh_checks
from backend.representations.adaptive_remesh import remesh_adaptive, remesh_tracked
from backend.representations.edge_lengths import GRADATION, TURN, curvature_edge_length
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from backend.representations.soundness import soundness
from tests.backend.representations.closed_shapes import CLOSED, box, double_torus, mean_edge, noisy_ball, spiky, torus
from tests.backend.representations.mesh_oracles import (
    area,
    botsch_and_kobbelt,
    crossings,
    edge_lengths,
    euler_number,
    is_closed_manifold,
    one_sided_hausdorff,
    smallest_angles,
    volume,
)


@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_shapes_stay_closed_whole_and_themselves(name, factor):
    mesh = CLOSED[name]()
    length = factor * mean_edge(mesh)
    result = remesh_adaptive(mesh, length)
    assert is_closed_manifold(result.faces)
    assert euler_number(result.faces) == euler_number(mesh.faces)
    assert crossings(result.positions, result.faces) == set()
    assert max(one_sided_hausdorff(mesh, result), one_sided_hausdorff(result, mesh)) < 0.5 * length
    lost = abs(volume(result.positions, result.faces) - volume(mesh.positions, mesh.faces))
    assert lost < 0.1 * length * area(mesh.positions, mesh.faces)
    assert result.positions.dtype == np.float32 and result.faces.dtype == np.int32
    assert len(np.unique(result.faces)) == len(result.positions)


@pytest.mark.parametrize("make", [double_torus, torus, spiky, lambda: noisy_ball(3)])
def test_edges_get_their_length_and_triangles_are_better_than_the_librarys(make):
    mesh = make()
    length = 0.8 * mean_edge(mesh)
    result = remesh_adaptive(mesh, length)
    edges = edge_lengths(result.positions, result.faces)
    assert edges.mean() == pytest.approx(length, rel=0.1)
    assert np.quantile(edges, 0.01) > 0.6 * length and np.quantile(edges, 0.99) < 1.4 * length
    other = botsch_and_kobbelt(mesh, length)
    spread = edges.std() / edges.mean()
    others = edge_lengths(*other)
    assert spread < 0.9 * others.std() / others.mean()
    angles = smallest_angles(result.positions, result.faces)
    assert np.quantile(angles, 0.01) > 32.0 and angles.min() > 20.0 and angles.mean() > 50.0


def test_creases_and_corners_stay_where_they_are():
    result = remesh_adaptive(cube(1), 0.12)
    half = np.abs(cube(1).positions).max()
    assert volume(result.positions, result.faces) == pytest.approx((2 * half) ** 3, rel=2e-3)
    corners = (np.abs(np.abs(result.positions) - half) < 1e-6).all(axis=1)
    assert corners.sum() == 8


def test_pieces_stay_apart_and_inward_surfaces_inward():
    ball = icosphere(2)
    count = len(ball.positions)
    near = MeshData(
        np.concatenate([ball.positions, ball.positions + [1.21, 0, 0], 0.9 * ball.positions]).astype("f4"),
        np.concatenate([ball.faces, ball.faces + count, ball.faces[:, ::-1] + 2 * count]).astype("i4"),
    )
    result = remesh_adaptive(near, 0.15)
    facts = soundness(result)
    assert facts.components == 3 and facts.sound and facts.euler == 6
    assert crossings(result.positions, result.faces) == set()
    assert volume(result.positions, result.faces) == pytest.approx(volume(near.positions, near.faces), rel=0.05)


def test_a_linear_color_field_stays_linear_where_the_surface_is_flat():
    shape = cube(7)
    slope = np.array([[0.3, 0.1, 0.0], [-0.2, 0.4, 0.1], [0.1, 0.0, -0.3]])
    mesh = replace(shape, colors=(shape.positions.astype(float) @ slope + 0.5).astype("f4"))
    for length in (0.05, 0.13):
        result = remesh_adaptive(mesh, length)
        assert len(result.positions) != len(mesh.positions)
        np.testing.assert_allclose(result.colors, result.positions.astype(float) @ slope + 0.5, atol=1e-6)


def test_locked_vertices_keep_bits_order_and_faces_and_all_is_kept_if_all_are_locked():
    ball = icosphere(3)
    mesh = replace(ball, colors=np.random.default_rng(0).random(ball.positions.shape).astype("f4"))
    locked = mesh.positions[:, 1] > 0.1
    result = remesh_tracked(mesh, 0.5 * mean_edge(mesh), locked)
    kept = np.flatnonzero(np.isin(result.origin, np.flatnonzero(locked)))
    np.testing.assert_array_equal(result.origin[kept], np.flatnonzero(locked))
    for name in ("positions", "colors"):
        np.testing.assert_array_equal(getattr(result.mesh, name)[kept], getattr(mesh, name)[locked])
    new_faces = {tuple(face) for face in result.origin[result.mesh.faces].tolist()}
    assert {tuple(face) for face in mesh.faces[locked[mesh.faces].all(axis=1)].tolist()} <= new_faces
    assert is_closed_manifold(result.mesh.faces)
    free = ~np.isin(np.arange(len(result.origin)), kept)
    assert free.sum() > 2 * (~locked).sum()

    same = remesh_tracked(mesh, 0.01, np.ones(len(locked), dtype=bool))
    for name in ("positions", "faces", "colors"):
        np.testing.assert_array_equal(getattr(same.mesh, name), getattr(mesh, name))
    np.testing.assert_array_equal(same.origin, np.arange(len(locked)))


def test_origins_tell_which_vertex_was_which():
    mesh = icosphere(3)
    result = remesh_tracked(mesh, mean_edge(mesh))
    old = result.origin >= 0
    assert (np.diff(result.origin[old]) > 0).all() and old[: old.sum()].all()
    moved = np.linalg.norm(result.mesh.positions[old] - mesh.positions[result.origin[old]], axis=1)
    assert moved.max() < 2.0 * mean_edge(mesh)


def charted_box(divisions: int) -> tuple[MeshData, list[np.ndarray]]:
    """A box whose six sides are charts of their own, uv linear in position, and that map [3, 2] of each side."""
    shape = box(divisions, 1.0, 0.8, 0.6)
    corners = shape.positions[shape.faces].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normal).argmax(axis=1)
    side = 2 * axis + (normal[np.arange(len(axis)), axis] > 0)
    maps = []
    for each in range(6):
        u, v = np.eye(3)[(each // 2 + 1) % 3], np.eye(3)[(each // 2 + 2) % 3]
        maps.append(np.stack([u if each % 2 else -u, v], axis=1) * 0.3)
    offset = np.stack([np.arange(6) % 3 / 3 + 0.15, np.arange(6) // 3 / 2 + 0.2], axis=1)
    key, rows = np.unique(np.stack([np.repeat(side, 3), shape.faces.reshape(-1)], 1), axis=0, return_inverse=True)
    uvs = np.stack([shape.positions[v].astype(float) @ maps[s] + offset[s] for s, v in key])
    return replace(shape, uvs=uvs.astype("f4"), uv_faces=rows.reshape(-1, 3).astype("i4")), [maps, offset]


@pytest.mark.parametrize("length", [0.06, 0.3])
def test_texture_charts_keep_their_seams_and_coordinates(length):
    mesh, (maps, offset) = charted_box(6)
    result = remesh_adaptive(mesh, length)
    assert is_closed_manifold(result.faces)
    assert len(result.faces) > 2 * len(mesh.faces) if length < 0.1 else len(result.faces) < len(mesh.faces)
    corners = result.positions[result.faces].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normal).argmax(axis=1)
    side = 2 * axis + (normal[np.arange(len(axis)), axis] > 0)
    areas = np.zeros(6)
    for each in range(6):
        mine = side == each
        expected = corners[mine] @ maps[each] + offset[each]
        np.testing.assert_allclose(result.uvs[result.uv_faces[mine]], expected, atol=1e-6)
        uv = result.uvs[result.uv_faces[mine]].astype(float)
        signed = np.cross(np.pad(uv[:, 1] - uv[:, 0], ((0, 0), (0, 1))), np.pad(uv[:, 2] - uv[:, 0], ((0, 0), (0, 1))))[:, 2]
        assert (signed > 0).all() or (signed < 0).all()
        areas[each] = np.abs(signed).sum() / 2
    np.testing.assert_allclose(areas, 0.09 * np.array([0.48, 0.48, 0.6, 0.6, 0.8, 0.8]), rtol=1e-4)


def test_on_a_curved_surface_texture_coordinates_stay_where_they_were_on_it():
    ball = icosphere(3)
    cap = ball.faces[(ball.positions[ball.faces][:, :, 1] > 0.2).all(axis=1)]
    mesh = MeshData(ball.positions, cap, uvs=ball.positions[:, [0, 2]] * np.float32(0.7) + np.float32(0.5), uv_faces=cap)
    result = remesh_adaptive(mesh, 0.07)
    error = result.uvs[result.uv_faces] - (result.positions[result.faces][:, :, [0, 2]] * 0.7 + 0.5)
    assert np.abs(error).max() < 2e-3  # of the size of the chords' height


def test_shared_rows_of_mirrored_texture_coordinates_are_no_seam_and_do_not_mix():
    ball = icosphere(2)
    mirrored = np.abs(ball.positions[:, :2]).astype("f4")
    uvs, rows = np.unique(mirrored.round(4), axis=0, return_inverse=True)
    mesh = replace(ball, uvs=uvs, uv_faces=rows.reshape(-1)[ball.faces].astype("i4"))
    result = remesh_adaptive(mesh, 0.8 * mean_edge(mesh))
    assert is_closed_manifold(result.faces)
    error = np.abs(result.uvs[result.uv_faces] - np.abs(result.positions[result.faces][:, :, :2]))
    assert np.quantile(error, 0.95) < 0.02


def test_boundaries_stay_where_they_are():
    ball = icosphere(3)
    faces = ball.faces[(ball.positions[ball.faces][:, :, 1] > 0.15).any(axis=1)]
    mesh = MeshData(ball.positions, faces)
    for length in (0.04, 0.2):
        result = remesh_tracked(mesh, length)
        rim, new_rim = boundary_edges(mesh.faces), boundary_edges(result.mesh.faces)
        there = np.unique(rim)
        row = np.flatnonzero(np.isin(result.origin, there))
        np.testing.assert_array_equal(result.mesh.positions[row], mesh.positions[there])
        span = lambda m, e: np.linalg.norm(m.positions[e[:, 0]] - m.positions[e[:, 1]], axis=1).sum()  # noqa: E731
        assert span(result.mesh, new_rim) == pytest.approx(span(mesh, rim), rel=1e-5)
        assert np.bincount(new_rim.reshape(-1)).max() == 2
        assert (len(new_rim) > len(rim)) == (length == 0.04)


def boundary_edges(faces: np.ndarray) -> np.ndarray:
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    return edges[count == 1]


def test_curvature_decides_edge_lengths():
    ball = icosphere(3)
    lengths = curvature_edge_length(ball, 10.0, 0.001)
    np.testing.assert_allclose(lengths, TURN * 0.6, rtol=0.15)
    tube = torus(48, 24)
    np.testing.assert_allclose(curvature_edge_length(tube, 10.0, 0.001), TURN * 0.25, rtol=0.03)
    shape = cube(10)
    step = 2 * np.abs(shape.positions).max() / 10
    lengths = curvature_edge_length(shape, 0.3, 0.7 * step)
    half = np.abs(shape.positions).max()
    on_crease = (np.abs(np.abs(shape.positions) - half) < 1e-6).sum(axis=1) > 1
    assert (lengths[on_crease] == 0.7 * step).all()
    np.testing.assert_allclose(lengths[~on_crease].min(), (0.7 + GRADATION) * step, rtol=1e-5)
    assert (curvature_edge_length(shape, 0.8 * step, 0.7 * step) <= 0.8 * step).all()


def test_wanted_lengths_that_vary_are_followed():
    mesh = icosphere(4)
    wanted = np.where(mesh.positions[:, 1] > 0, 0.03, 0.09) + 0.05 * np.abs(mesh.positions[:, 1])
    result = remesh_adaptive(mesh, wanted)
    assert is_closed_manifold(result.faces) and euler_number(result.faces) == 2
    for half, low in ((result.positions[:, 1] > 0.1, 0.03), (result.positions[:, 1] < -0.1, 0.09)):
        edges = np.sort(np.concatenate([result.faces[:, [0, 1]], result.faces[:, [1, 2]], result.faces[:, [2, 0]]]), axis=1)
        edges = edges[half[edges].all(axis=1)]
        length = np.linalg.norm(result.positions[edges[:, 0]] - result.positions[edges[:, 1]], axis=1)
        asked = low + 0.05 * np.abs(result.positions[edges][:, :, 1]).mean(axis=1)
        assert np.quantile(length / asked, 0.02) > 0.6 and np.quantile(length / asked, 0.98) < 1.45


def test_equal_input_gives_equal_bits_at_every_scale():
    mesh = CLOSED["spiky"]()
    once, again = remesh_adaptive(mesh, 0.1), remesh_adaptive(mesh, 0.1)
    np.testing.assert_array_equal(once.positions, again.positions)
    np.testing.assert_array_equal(once.faces, again.faces)
    for scale in (2.0**40, 2.0**-40):
        scaled = remesh_adaptive(replace(mesh, positions=mesh.positions * np.float32(scale)), 0.1 * scale)
        np.testing.assert_array_equal(scaled.faces, once.faces)
        np.testing.assert_array_equal(scaled.positions, once.positions * np.float32(scale))


def test_what_is_no_manifold_is_left_alone_around_it():
    ball = icosphere(2)
    fin = np.array([[0.0, 1.2, 0.0]], dtype="f4")
    edge = ball.faces[0, :2]
    mesh = MeshData(
        np.concatenate([ball.positions, fin]), np.concatenate([ball.faces, [[*edge, 162]]]).astype("i4")
    )
    result = remesh_tracked(mesh, 0.5 * mean_edge(ball))
    row = {int(origin): row for row, origin in enumerate(result.origin)}
    joint = {row[int(edge[0])], row[int(edge[1])]}
    assert sum(joint <= set(face) for face in result.mesh.faces.tolist()) == 3
    assert len(result.mesh.faces) > 3 * len(mesh.faces)


def test_faces_without_area_are_no_obstacle():
    ball = icosphere(3)
    positions = ball.positions.copy()
    positions[ball.faces[5, 0]] = positions[ball.faces[5, 1]]  # a collapsed edge: two faces without area
    faces = np.concatenate([ball.faces, [[1, 1, 2]]]).astype("i4")
    result = remesh_adaptive(MeshData(positions, faces), mean_edge(ball))
    assert is_closed_manifold(result.faces)
    assert smallest_angles(result.positions, result.faces).min() > 15.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(edge_length=0.0), "positive"),
        (dict(edge_length=np.nan), "positive"),
        (dict(edge_length=np.full(41, 0.1)), "42"),
        (dict(edge_length=1e-6), "longer"),
        (dict(locked=np.zeros(42)), "booleans"),
        (dict(locked=np.zeros(3, dtype=bool)), "42"),
        (dict(mesh=MeshData(np.zeros((42, 3), "f4"), icosphere(1).faces)), "no area"),
        (dict(mesh=MeshData(icosphere(1).positions * np.nan, icosphere(1).faces)), "not numbers"),
        (dict(mesh=replace(icosphere(1), uvs=np.zeros((42, 2), "f4"))), "uv_faces"),
        (dict(mesh=replace(icosphere(1), uvs=np.zeros((2, 2), "f4"), uv_faces=icosphere(1).faces)), "uv_faces"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, words):
    given = dict(mesh=icosphere(1), edge_length=0.1) | change
    with pytest.raises(InputError, match=words) as error:
        remesh_adaptive(**given)
    assert "\n" not in str(error.value)
    assert mesh_checks.MAX_FACES > 1e6
