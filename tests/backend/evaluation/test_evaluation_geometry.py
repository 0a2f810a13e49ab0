"""Geometry checks against closed forms, and the degradation that the judge was trained with."""

import numpy as np
import pytest
import trimesh

from backend.evaluation.degrade import HALF_WIDTH, degraded, inside
from backend.evaluation.geometry import degenerate_faces, inverted_share, measure, visible_hole, winding_number
from backend.representations.mesh_data import MeshData
from backend.toybox.objects import build_object, kind_named
from backend.toybox.shapes import box, ellipsoid, torus


def as_mesh(*solids) -> MeshData:
    starts = np.cumsum([0] + [len(solid.positions) for solid in solids])
    faces = np.concatenate([solid.faces + start for solid, start in zip(solids, starts)])
    return MeshData(np.concatenate([solid.positions for solid in solids]).astype(np.float32), faces.astype(np.int32))


def toy(name: str, seed: int = 1) -> MeshData:
    built = build_object(kind_named(name), "red", "yellow", "", np.random.default_rng(seed))
    return MeshData(built.positions, built.faces, built.colors)


def test_winding_number_counts_how_often_a_point_is_enclosed():
    nested = as_mesh(ellipsoid(0.9), box(0.5, 0.5, 0.5))
    points = np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 1.5, 0]])
    assert winding_number(nested, points) == pytest.approx([2.0, 1.0, 0.0], abs=1e-6)
    flipped = MeshData(nested.positions, nested.faces[:, ::-1])
    assert winding_number(flipped, points) == pytest.approx([-2.0, -1.0, 0.0], abs=1e-6)


def test_inverted_and_degenerate_faces_are_found():
    ball = as_mesh(ellipsoid(0.9))
    assert inverted_share(ball) == 0.0
    assert inverted_share(MeshData(ball.positions, ball.faces[:, ::-1].copy())) == 1.0
    faces = np.concatenate([ball.faces, [[0, 0, 1], [3, 4, 4]]]).astype(np.int32)
    assert degenerate_faces(ball) == 0 and degenerate_faces(MeshData(ball.positions, faces)) == 2


def test_inside_agrees_with_exact_containment_where_solids_overlap():
    mesh = as_mesh(ellipsoid(0.6).moved(x=-0.2), box(0.6, 0.5, 0.7).moved(0.4, 0.1, 0.05), torus(0.8, 0.12))
    resolution = 10
    cells = inside(mesh, resolution)
    axis = (np.arange(resolution) + 0.5) / resolution * 2 * HALF_WIDTH - HALF_WIDTH
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    assert np.array_equal(cells.ravel(), winding_number(mesh, points) > 0.5)
    assert cells.any() and not cells.all()


@pytest.mark.parametrize("name, genus", [("mug", 1), ("donut", 1), ("apple", 0)])
def test_degraded_objects_stay_sound_and_keep_their_holes(name, genus):
    mesh = degraded(toy(name), np.random.default_rng(3))
    facts = measure(mesh)
    assert facts.sound and facts.genus == genus and facts.has_hole == (genus == 1)
    assert np.linalg.norm(mesh.positions, axis=1).max() < 1.05
    reds = (mesh.colors[:, 0] > 0.5) & (mesh.colors[:, 1] < 0.4)
    assert 0.1 < reds.mean() < 0.999


def test_visible_hole_measures_what_one_can_look_through():
    """A thin ring seen from above shows a hole of (r - t)^2 / ((r + t)^2 - (r - t)^2) of its own area."""
    radius, tube = 0.7, 0.2
    expected = (radius - tube) ** 2 / ((radius + tube) ** 2 - (radius - tube) ** 2)
    assert visible_hole(as_mesh(torus(radius, tube, 48, 24)), 192) == pytest.approx(expected, rel=0.12)
    assert visible_hole(as_mesh(ellipsoid(0.9))) == 0.0


def test_an_open_mesh_is_not_sound():
    whole = as_mesh(box(1, 1, 1))
    assert measure(whole).sound
    facts = measure(MeshData(whole.positions, whole.faces[1:].copy()))
    assert not facts.sound and not facts.watertight and facts.genus == 0


def test_euler_number_agrees_with_trimesh():
    mesh = as_mesh(torus(0.6, 0.2), ellipsoid(0.1).moved(y=0.8))
    other = trimesh.Trimesh(mesh.positions, mesh.faces)
    facts = measure(mesh)
    assert facts.components == other.body_count == 2
    assert 2 * facts.components - 2 * facts.genus == other.euler_number
