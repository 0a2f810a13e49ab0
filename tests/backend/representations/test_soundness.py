"""Facts about topology on meshes whose answer is known, and the start shapes that must be sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.representations.mesh_data import MeshData
from backend.representations.primitives import GRAY, RADIUS, cube, cylinder, icosphere, start_shape
from backend.representations.soundness import drop_dust, soundness


def joined(*meshes: MeshData) -> MeshData:
    offsets = np.cumsum([0, *(len(mesh.positions) for mesh in meshes)])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]
    return MeshData(np.concatenate([mesh.positions for mesh in meshes]), np.concatenate(faces).astype(np.int32))


def torus(around: int, across: int) -> MeshData:
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    a, b = 2 * np.pi * u / around, 2 * np.pi * v / across
    ring = 0.6 + 0.2 * np.cos(b)
    positions = np.stack([ring * np.cos(a), ring * np.sin(a), 0.2 * np.sin(b)], -1).reshape(-1, 3)
    index = lambda i, j: (i % around) * across + j % across  # noqa: E731
    quads = [index(u, v), index(u + 1, v), index(u + 1, v + 1), index(u, v + 1)]
    a, b, c, d = (each.reshape(-1) for each in quads)
    return MeshData(positions.astype("f4"), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype("i4"))


@given(st.integers(3, 12), st.integers(3, 12))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_torus_has_euler_number_zero(around, across):
    facts = soundness(torus(around, across))
    assert (facts.watertight, facts.manifold, facts.oriented, facts.components, facts.euler) == (True, True, True, 1, 0)


@given(st.integers(0, 3), st.integers(1, 6), st.integers(3, 20))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_start_shapes_are_sound_at_every_size(level, divisions, segments):
    for shape in (icosphere(level), cube(divisions), cylinder(segments)):
        facts = soundness(shape)
        assert facts.sound and facts.components == 1 and facts.euler == 2
        assert np.linalg.norm(shape.positions, axis=1).max() == pytest.approx(RADIUS, rel=1e-5)
        assert (shape.colors == GRAY).all()
        assert shape.positions.dtype == np.float32 and shape.faces.dtype == np.int32


def test_start_shapes_have_their_volume():
    assert soundness(icosphere(4)).volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=5e-3)
    assert soundness(cube()).volume == pytest.approx((2 * RADIUS / 3**0.5) ** 3, rel=1e-5)
    assert soundness(cylinder()).volume == pytest.approx(2 * np.pi * (RADIUS / 2**0.5) ** 3, rel=5e-3)
    for kind in ("sphere", "cube", "cylinder"):
        assert 2000 < len(start_shape(kind).positions) < 3000


def test_open_flipped_and_pinched_surfaces_are_told_apart():
    ball = icosphere(1)
    cases = {
        "open": MeshData(ball.positions, ball.faces[1:]),
        "inside out": MeshData(ball.positions, ball.faces[:, ::-1]),
        "one flipped": MeshData(ball.positions, np.concatenate([ball.faces[:1, ::-1], ball.faces[1:]])),
        "doubled": MeshData(ball.positions, np.concatenate([ball.faces, ball.faces])),
    }
    facts = {name: soundness(mesh) for name, mesh in cases.items()}
    assert not any(each.sound for each in facts.values())
    assert not facts["open"].watertight and facts["open"].manifold
    assert facts["inside out"].volume < 0 and facts["inside out"].manifold and facts["inside out"].oriented
    assert facts["one flipped"].watertight and not facts["one flipped"].oriented
    assert facts["doubled"].watertight and not facts["doubled"].manifold


def test_two_balls_that_share_a_vertex_are_not_manifold():
    ball = icosphere(1)
    top = int(np.argmax(ball.positions[:, 1]))
    pair = joined(ball, MeshData(ball.positions + [0, 2 * RADIUS, 0], ball.faces))
    bottom = len(ball.positions) + int(np.argmin(ball.positions[:, 1]))
    facts = soundness(MeshData(pair.positions, np.where(pair.faces == bottom, top, pair.faces)))
    assert facts.watertight and facts.oriented and not facts.manifold
    assert facts.components == 1


def test_nothing_is_not_sound():
    assert not soundness(MeshData(np.zeros((0, 3), "f4"), np.zeros((0, 3), "i4"))).sound


def test_dust_and_cavities_are_dropped_and_the_rest_keeps_its_order():
    ball = icosphere(2)
    cavity = MeshData(ball.positions * 0.5, ball.faces[:, ::-1])
    speck = MeshData(icosphere(0).positions * 0.05 + 0.9, icosphere(0).faces)
    part = MeshData(icosphere(1).positions * 0.5 + [1.5, 0, 0], icosphere(1).faces)
    mesh = joined(speck, ball, cavity, part)
    kept, faces = drop_dust(mesh.positions, mesh.faces)
    clean = MeshData(mesh.positions[kept], faces)
    facts = soundness(clean)
    assert facts.sound and facts.components == 2
    np.testing.assert_array_equal(clean.positions[: len(ball.positions)], ball.positions)
    assert (np.diff(kept) > 0).all()
