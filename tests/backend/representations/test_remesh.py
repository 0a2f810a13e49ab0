"""Remeshing to a number of vertices: the number is met, the shape followed, nothing made worse than it was."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations import remesh
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
