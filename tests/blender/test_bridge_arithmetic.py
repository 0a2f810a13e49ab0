"""The bridge's arithmetic, which needs no Blender, held to properties on random input."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blender_addon.bridge.colors import to_displayed, to_linear
from blender_addon.bridge.errors import SceneError
from blender_addon.bridge.placement import Placement, check_scale, default_placement, placement_of
from blender_addon.bridge.prepare import prepare, topology_of

FEW = settings(max_examples=60, deadline=None)
COORDINATES = arrays(np.float32, st.tuples(st.integers(3, 40), st.just(3)), elements=st.floats(-1000, 1000, width=32))


@st.composite
def objects(draw: st.DrawFn) -> tuple[SimpleNamespace, np.ndarray]:
    """(what the bridge reads of an object, its local positions): turned, sheared, mirrored, far away."""
    turn = np.linalg.qr(draw(arrays(np.float64, (3, 3), elements=st.floats(-1, 1))) + 2 * np.eye(3))[0]
    shear = np.linalg.qr(draw(arrays(np.float64, (3, 3), elements=st.floats(-1, 1))) + 2 * np.eye(3))[0]
    sizes = [draw(st.floats(0.01, 100)) * draw(st.sampled_from((-1, 1))) for _ in range(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(sizes) @ shear
    matrix[:3, 3] = draw(arrays(np.float64, 3, elements=st.floats(-1e4, 1e4)))
    return SimpleNamespace(name="Cloth", matrix_world=matrix), draw(COORDINATES)


@FEW
@given(objects(), st.randoms(use_true_random=False))
def test_a_placed_object_fills_the_sphere_and_comes_back(given_object: tuple, random) -> None:
    object, positions = given_object
    try:
        placement = placement_of(object, positions)
    except SceneError as refusal:
        assert "at one place" in str(refusal) and np.ptp(positions, axis=0).max() < 1e-12
        return
    wire = placement.to_wire(positions)
    assert abs(np.linalg.norm(wire.astype(float), axis=1).max() - 0.95) < 1e-5
    assert np.abs((wire.min(axis=0) + wire.max(axis=0)) / 2).max() < 1e-5

    # The shape is kept: distances on the wire are distances in the world, all scaled by one number.
    world = positions.astype(float) @ object.matrix_world[:3, :3].T
    apart = np.linalg.norm(world[:, None] - world[None], axis=-1)
    ratio = 0.95 / np.linalg.norm(world - box_center(world), axis=1).max()
    assert np.allclose(np.linalg.norm(wire[:, None].astype(float) - wire[None], axis=-1), apart * ratio, atol=1e-5)

    # What did not move comes back bit for bit, after any way through JSON; what moved is not mistaken for it.
    stored = Placement.from_dict(json.loads(json.dumps(placement.to_dict()))).with_original(positions)
    moved = np.array([random.random() < 0.3 for _ in positions])
    returned = wire.copy()
    returned[moved] = np.nextafter(returned[moved], np.float32(9))
    local = stored.to_local(returned)
    assert (local[~moved] == positions[~moved]).all()
    error = np.abs(placement.to_wire(local)[moved] - returned[moved])
    scale = np.linalg.norm(placement.to_wire_matrix[:3, :3], 2) * max(1.0, np.abs(positions).max())
    assert error.size == 0 or error.max() <= 1e-6 * max(1.0, scale)


def box_center(world: np.ndarray) -> np.ndarray:
    return (world.min(axis=0) + world.max(axis=0)) / 2


@FEW
@given(st.floats(0, 1e-9), st.integers(0, 2))
def test_flat_transforms_are_refused(size: float, axis: int) -> None:
    matrix = np.eye(4)
    matrix[axis, axis] = size
    with pytest.raises(SceneError, match="scaled to nothing"):
        check_scale("Cloth", matrix)
    matrix[0, 3] = np.nan
    with pytest.raises(SceneError, match="not numbers"):
        check_scale("Cloth", matrix)


@FEW
@given(arrays(np.int32, st.tuples(st.integers(1, 60), st.just(3)), elements=st.integers(0, 12)))
def test_the_edges_of_any_faces(faces: np.ndarray) -> None:
    topology = topology_of(faces)
    kept = [list(face) for face in faces.tolist() if len(set(face)) == 3]
    assert topology.corner_verts.reshape(-1, 3).tolist() == kept
    pairs = {frozenset(pair) for face in kept for pair in itertools.combinations(face, 2)}
    edges = [frozenset(edge) for edge in topology.edge_verts.tolist()]
    assert set(edges) == pairs and len(edges) == len(pairs)
    for face, corner_edges, start in zip(kept, topology.corner_edges.reshape(-1, 3), topology.face_starts, strict=True):
        assert [edges[edge] for edge in corner_edges] == [frozenset((face[i], face[(i + 1) % 3])) for i in range(3)]
        assert topology.corner_verts[start] == face[0]
    arrays_of_it = (topology.corner_verts, topology.corner_edges, topology.edge_verts, topology.face_starts)
    assert all(array.dtype == np.int32 and array.flags.c_contiguous for array in arrays_of_it)


def test_the_same_faces_are_prepared_once() -> None:
    faces = np.array([[0, 1, 2], [2, 1, 3]], np.int32)
    first = topology_of(faces)
    for other in range(3):
        topology_of(faces + other + 1)
    assert topology_of(faces.copy()) is first


def test_prepared_arrays_are_what_blender_takes_in_one_piece() -> None:
    positions = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    faces = np.arange(48, dtype=np.int32).reshape(-1, 3)
    for array in (positions, faces):
        array.flags.writeable = False  # as it comes from the wire
    mesh = SimpleNamespace(positions=positions, faces=faces, colors=positions)
    prepared = prepare(default_placement(), SimpleNamespace(mesh=mesh))
    for array, shape in ((prepared.positions, (50, 3)), (prepared.rgba, (50, 4))):
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.shape == shape
    assert (prepared.rgba[:, 3] == 1).all() and prepared.topology.faces == 16


@FEW
@given(arrays(np.float32, 20, elements=st.floats(0, 1, width=32)))
def test_colors_survive_the_curve_both_ways(displayed: np.ndarray) -> None:
    linear = to_linear(displayed)
    assert np.abs(to_displayed(linear) - displayed).max() < 1e-6
    assert (linear <= displayed + 1e-7).all()
    order = np.argsort(displayed)
    assert (np.diff(linear[order]) >= 0).all()


def test_the_curve_at_known_points() -> None:
    assert to_linear(np.float32([0, 0.5, 1])) == pytest.approx([0, 0.21404114, 1], abs=1e-6)
    assert to_displayed(np.float32([-1, 0, 0.5, 1, 7, np.nan])) == pytest.approx([0, 0, 0.7353569, 1, 1, 0], abs=1e-6)
