"""Meshes come back as they were, and a broken one is refused with a sentence that names the first fault."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protocol.codec import WireError, decode, encode
from protocol.mesh_codec import MAX_COORDINATE, Mesh, mesh_frames, read_mesh
from protocol.messages import MAX_VERTICES, MeshHeader, Result, ToClientBulk

JOB = "0123456789abcdef" * 2


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    vertices, faces = draw(st.integers(3, 40)), draw(st.integers(0, 40))
    positions = draw(arrays.arrays(np.float32, (vertices, 3), elements=st.floats(-MAX_COORDINATE, MAX_COORDINATE, width=32)))
    corners = [draw(st.permutations(range(vertices)))[:3] for _ in range(faces)]
    colors = draw(st.none() | arrays.arrays(np.float32, (vertices, 3), elements=st.floats(0, 1, width=32)))
    return Mesh(positions, np.array(corners, dtype=np.int32).reshape(-1, 3) if faces else None, colors)


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape))


@given(meshes(), st.integers(0, 3))
def test_meshes_come_back_as_they_were(mesh: Mesh, offset: int) -> None:
    header, buffers = mesh_frames(mesh)
    # Wherever ZeroMQ put the bytes.
    frames = [memoryview(b"." * offset + bytes(frame))[offset:] for frame in encode(Result(1, JOB, header), buffers)]
    received = decode(frames, ToClientBulk)
    again = read_mesh(received.message.mesh, received.buffers, known_vertices=len(mesh.positions))
    assert same(again.positions, mesh.positions) and same(again.faces, mesh.faces) and same(again.colors, mesh.colors)
    for array in (again.positions, again.faces, again.colors):
        assert array is None or (array.flags.aligned and array.flags.c_contiguous and not array.flags.writeable)


def square(**changes: Any) -> Mesh:
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
    return Mesh(**{"positions": positions, "faces": faces, "colors": np.full((4, 3), 0.5, np.float32), **changes})


def test_bytes_are_little_endian_and_nothing_is_copied() -> None:
    mesh = square()
    header, [positions, faces, colors] = mesh_frames(mesh)
    assert header == MeshHeader(vertices=4, faces=2, colors=True)
    assert bytes(positions)[:24] == bytes.fromhex("000000000000000000000000 0000803f0000000000000000")
    assert bytes(faces)[:12] == bytes.fromhex("000000000100000002000000")
    again = read_mesh(header, [positions, faces, colors])
    assert np.shares_memory(again.positions, mesh.positions) and np.shares_memory(again.faces, mesh.faces)


def test_other_layouts_are_sent_as_the_wire_wants_them() -> None:
    mesh = square()
    twisted = Mesh(np.asfortranarray(mesh.positions.astype(">f8")), mesh.faces[:, ::-1].astype(np.int64), None)
    header, buffers = mesh_frames(twisted)
    again = read_mesh(header, buffers)
    assert np.array_equal(again.positions, mesh.positions) and again.faces.tolist() == [[2, 1, 0], [3, 2, 0]]
    assert not header.colors and again.colors is None


def with_value(array: np.ndarray, row: int, value: float) -> np.ndarray:
    array = array.copy()
    array[row, 1] = value
    return array


@pytest.mark.parametrize(
    ("name", "row", "value", "sentence"),
    [
        ("positions", 2, np.nan, "Vertex 2 of the mesh has the position .*nan"),
        ("positions", 1, -np.inf, "Vertex 1 of the mesh has the position .*-inf"),
        ("positions", 3, 1001.0, "Vertex 3 of the mesh has the position .*1001"),
        ("positions", 3, -3e38, "Vertex 3"),
        ("faces", 1, 4, r"Face 1 of the mesh has the vertex indices \(0, 4, 3\); expected from 0 to 3"),
        ("faces", 0, -1, "Face 0 .*-1"),
        ("faces", 1, 2**31 - 1, "Face 1"),
        ("faces", 1, -(2**31), "Face 1"),
        ("faces", 1, 3, r"Face 1 .*\(0, 3, 3\); expected three different ones"),
        ("faces", 0, 0, r"Face 0 .*\(0, 0, 2\)"),
        ("colors", 0, np.nan, "Vertex 0 of the mesh has the color .*nan"),
        ("colors", 2, 1.001, "Vertex 2 of the mesh has the color .*1.001"),
        ("colors", 2, -1e-6, "Vertex 2"),
    ],
)
def test_broken_values_are_named_in_and_out(name: str, row: int, value: float, sentence: str) -> None:
    good = square()
    broken = square(**{name: with_value(getattr(good, name), row, value)})
    header, buffers = mesh_frames(good)
    wrong = {"positions": 0, "faces": 1, "colors": 2}[name]
    buffers[wrong] = memoryview(getattr(broken, name))
    for act in (lambda: mesh_frames(broken), lambda: read_mesh(header, buffers)):
        with pytest.raises(WireError, match=sentence) as caught:
            act()
        assert caught.value.code == "invalid"


def test_the_first_and_last_corner_of_a_face_are_compared_too() -> None:
    with pytest.raises(WireError, match="Face 1"):
        mesh_frames(square(faces=np.array([[0, 1, 2], [3, 1, 3]], dtype=np.int32)))
    # Neighbors in memory that belong to two faces may be equal.
    mesh_frames(square(faces=np.array([[0, 1, 2], [2, 3, 0]], dtype=np.int32)))


def test_many_faults_are_counted() -> None:
    with pytest.raises(WireError, match=r"Vertex 0 .*\(3 more like it\)"):
        mesh_frames(square(positions=np.full((4, 3), np.nan, np.float32)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"positions": np.zeros((4, 2))}, r"positions have the shape \[4, 2\]; expected \[N, 3\]"),
        ({"positions": [[1, 2], [3]]}, "positions are no array"),
        ({"positions": np.zeros(12)}, r"shape \[12\]"),
        ({"positions": np.zeros((2, 3))}, "2 vertices; expected 3 to 2,000,000"),
        ({"positions": np.zeros((MAX_VERTICES + 1, 3), np.float32), "colors": None}, "2,000,001 vertices"),
        ({"faces": np.zeros((0, 3), np.int32)}, "0 faces; expected 1 to 4,000,000"),
        ({"faces": np.zeros((2, 4), np.int32)}, r"faces have the shape \[2, 4\]"),
        ({"colors": np.zeros((3, 3))}, "3 colors for 4 vertices"),
        ({"faces": np.zeros((2, 3))}, "faces are of the type float64; expected int32"),
        ({"faces": np.array([[0, 1, 2**32 + 2]])}, "Face 0"),
        ({"faces": np.array([[0, 1, 2**63]], np.uint64)}, "Face 0"),
        ({"positions": np.full((4, 3), "x")}, "positions are of the type <U1; expected float32"),
        ({"positions": np.full((4, 3), 1e300)}, "Vertex 0 .*inf"),
    ],
)
def test_wrong_shapes_are_not_sent(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WireError, match=re.compile(sentence)):
        mesh_frames(square(**changes))


@given(st.integers(0, 3), st.integers(-13, 13).filter(bool))
def test_buffers_of_another_size_are_refused(which: int, difference: int) -> None:
    header, buffers = mesh_frames(square())
    if which == 3:
        buffers = buffers[:difference] if difference < 0 else buffers + buffers[:difference]
    else:
        size = max(0, buffers[which].nbytes + difference)
        buffers[which] = memoryview((bytes(buffers[which]) * 2)[:size])
    with pytest.raises(WireError, match="bytes|buffers"):
        read_mesh(header, buffers)


@given(st.integers(3, 9), st.integers(0, 9), st.booleans(), st.lists(st.binary(max_size=130), max_size=4), st.none() | st.integers(0, 9))
def test_random_bytes_are_a_sound_mesh_or_refused(
    vertices: int, faces: int, colors: bool, garbage: list[bytes], known: int | None
) -> None:
    try:
        mesh = read_mesh(MeshHeader(vertices, faces, colors), [memoryview(one) for one in garbage], known)
    except WireError as error:
        assert error.message.endswith(".")
        return
    assert np.isfinite(mesh.positions).all() and len(mesh.positions) == vertices
    assert mesh.faces is not None or known == vertices
    assert mesh.faces is None or (mesh.faces.min() >= 0 and mesh.faces.max() < vertices)


def test_a_mesh_without_faces_needs_a_topology_of_its_size() -> None:
    header, buffers = mesh_frames(square(faces=None))
    assert read_mesh(header, buffers, known_vertices=4).faces is None
    with pytest.raises(WireError, match="without faces"):
        read_mesh(header, buffers)
    with pytest.raises(WireError, match="4 vertices; its topology has 5"):
        read_mesh(header, buffers, known_vertices=5)
