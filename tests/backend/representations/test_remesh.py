"""Remeshing to a number of vertices: the number is met, the shape followed, nothing made worse than it was."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations import remesh
from backend.representations.adaptive_remesh import remesh_adaptive
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from backend.representations.remesh import remesh_isotropic
from backend.representations.soundness import soundness
from tests.backend.representations.closed_shapes import CLOSED, mean_edge, noisy_ball
from tests.backend.representations.mesh_oracles import crossings, one_sided_hausdorff, smallest_angles


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("target", [400, 900])
def test_the_number_of_vertices_is_met_and_the_shape_kept(name, target):
    mesh = CLOSED[name]()
    result = MeshData(*remesh_isotropic(mesh.positions, mesh.faces, target))
    assert abs(len(result.positions) / target - 1.0) < 0.08
    before, after = soundness(mesh), soundness(result)
    assert after.sound and (after.euler, after.components) == (before.euler, before.components)
    near = max(one_sided_hausdorff(mesh, result), one_sided_hausdorff(result, mesh))
    assert near < 0.6 * mean_edge(result)
    assert crossings(result.positions, result.faces) == set()
    assert np.quantile(smallest_angles(result.positions, result.faces), 0.01) > 25.0
    assert result.positions.dtype == np.float32 and result.faces.dtype == np.int32


def test_much_detail_is_simplified_first_and_creases_survive_it():
    shape = cube(40)
    result = MeshData(*remesh_isotropic(shape.positions, shape.faces, 600))
    assert abs(len(result.positions) / 600 - 1.0) < 0.08
    assert soundness(result).volume == pytest.approx(soundness(shape).volume, rel=2e-3)


def test_a_result_that_is_worse_than_the_input_is_not_taken(monkeypatch):
    ball = icosphere(2)
    crumpled = noisy_ball(2, 0.9)
    assert len(crossings(crumpled.positions, crumpled.faces)) > 0
    for worse in (MeshData(ball.positions, ball.faces[1:]), crumpled, MeshData(ball.positions * np.nan, ball.faces)):
        monkeypatch.setattr(remesh, "remesh_adaptive", lambda *given, worse=worse: worse)
        positions, faces = remesh_isotropic(ball.positions, ball.faces, 162)
        assert positions is ball.positions and faces is ball.faces


def test_it_repeats_to_the_bit():
    mesh = noisy_ball(3)
    one, other = (remesh_isotropic(mesh.positions, mesh.faces, 500) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_no_surface_and_no_number_of_vertices():
    ball = icosphere(1)
    nowhere = np.zeros_like(ball.positions)
    assert remesh_isotropic(nowhere, ball.faces, 100)[0] is nowhere
    with pytest.raises(InputError, match="at least 4"):
        remesh_isotropic(ball.positions, ball.faces, 0)
    with pytest.raises(InputError, match="not numbers"):
        remesh_isotropic(ball.positions * np.nan, ball.faces, 100)


def folded(mesh: MeshData, edge_length: float) -> MeshData:
    """As good as `mesh`, but one vertex is pulled through the other side."""
    positions = mesh.positions.copy()
    positions[0] = -1.5 * positions[0]
    return MeshData(positions, mesh.faces)


def test_what_folds_after_simplification_is_remeshed_from_the_whole_surface(monkeypatch) -> None:
    ball = icosphere(4)
    positions, faces = ball.positions, ball.faces
    asked = []

    def sometimes(mesh: MeshData, edge_length: float) -> MeshData:
        asked.append(len(mesh.positions))
        return remesh_adaptive(mesh, edge_length) if len(mesh.positions) == len(positions) else folded(mesh, edge_length)

    monkeypatch.setattr(remesh, "remesh_adaptive", sometimes)
    points, triangles = remesh.remesh_isotropic(positions, faces, 400)
    assert asked[0] < len(positions) and asked[-1] == len(positions)
    assert abs(len(points) - 400) < 40 and crossings(points, triangles) == set()

    monkeypatch.setattr(remesh, "remesh_adaptive", folded)
    points, triangles = remesh.remesh_isotropic(positions, faces, 400)
    assert len(points) < 1000 and crossings(points, triangles) == set()
    assert (points.dtype, triangles.dtype) == (np.float32, np.int32)
    same, _ = remesh.remesh_isotropic(positions, faces, 2000)
    assert same is positions, "nothing to simplify and nothing sound: the very same arrays come back"
