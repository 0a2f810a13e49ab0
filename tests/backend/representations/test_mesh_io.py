"""Files written and read back, scenes flattened, seams welded, and hostile files refused with one sentence."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import InputError
from backend.representations import load_mesh, write_glb
from backend.representations.mesh_data import MeshData
from backend.representations.files.gltf_writing import glb_bytes
from backend.representations.primitives import cube, icosphere
from backend.representations.soundness import soundness


def colored_ball() -> MeshData:
    ball = icosphere(2)
    return MeshData(ball.positions, ball.faces, np.random.default_rng(0).random(ball.positions.shape, dtype=np.float32))


def test_glb_round_trip_keeps_positions_faces_and_colors(tmp_path):
    mesh = colored_ball()
    write_glb(mesh, tmp_path / "ball.glb", name="a ball")
    assert os.listdir(tmp_path) == ["ball.glb"]
    back = load_mesh(tmp_path / "ball.glb")
    np.testing.assert_array_equal(back.positions, mesh.positions)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    np.testing.assert_allclose(back.colors, mesh.colors, atol=2e-4)


def parts_of_glb(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON document and, by attribute, the accessors' numbers."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    binary = content[20 + size + 8 :]
    assert document["buffers"][0]["byteLength"] == len(binary)
    primitive = document["meshes"][0]["primitives"][0]
    arrays = {}
    for name, index in {**primitive["attributes"], "indices": primitive["indices"]}.items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        number = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        arrays[name] = np.frombuffer(binary[view["byteOffset"] :][: view["byteLength"]], number).reshape(-1, width)
        assert len(arrays[name]) == accessor["count"]
    return document, arrays


def test_glb_says_what_the_standard_asks_for():
    ball = icosphere(2)
    document, arrays = parts_of_glb(glb_bytes(ball))
    assert set(arrays) == {"POSITION", "NORMAL", "COLOR_0", "indices"}
    position, color = (document["meshes"][0]["primitives"][0]["attributes"][name] for name in ("POSITION", "COLOR_0"))
    np.testing.assert_array_equal(np.float32(document["accessors"][position]["min"]), ball.positions.min(axis=0))
    np.testing.assert_array_equal(np.float32(document["accessors"][position]["max"]), ball.positions.max(axis=0))
    # A ball's normals are its directions.
    assert (arrays["POSITION"] / 0.6 * arrays["NORMAL"]).sum(axis=1).min() > 0.99
    # A displayed 0.5 is a linear 0.21404 (IEC 61966-2-1).
    assert document["accessors"][color]["normalized"] is True
    np.testing.assert_array_equal(arrays["COLOR_0"][0], [round(0.21404114 * 65535)] * 3 + [65535])
    assert document["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert "COLOR_0" not in parts_of_glb(glb_bytes(MeshData(ball.positions, ball.faces)))[1]


@pytest.mark.parametrize("ending", ["obj", "ply", "off", "stl", "glb"])
def test_formats_are_read_with_order_and_colors(tmp_path, ending):
    mesh = colored_ball()
    bytes_of_colors = np.rint(mesh.colors * 255).astype(np.uint8)
    trimesh.Trimesh(mesh.positions, mesh.faces, process=False, vertex_colors=bytes_of_colors).export(tmp_path / f"b.{ending}")
    back = load_mesh(tmp_path / f"b.{ending}")
    assert back.notes == ()
    assert soundness(back).sound
    if ending == "stl":  # knows neither vertices nor colors
        assert len(back.positions) == len(mesh.positions) and back.colors is None
        return
    np.testing.assert_allclose(back.positions, mesh.positions, atol=1e-6)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    if ending in ("obj", "ply"):
        np.testing.assert_allclose(back.colors, mesh.colors, atol=0.003)


def test_quads_are_cut_and_uv_seams_welded(tmp_path):
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + [f"vt {i / 24} {i % 3 / 3}" for i in range(24)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    lines += ["f " + " ".join(f"{v}/{4 * k + i + 1}" for i, v in enumerate(quad)) for k, quad in enumerate(quads)]
    (tmp_path / "cube.obj").write_text("\n".join(lines) + "\n")
    mesh = load_mesh(tmp_path / "cube.obj")
    assert len(mesh.positions) == 8 and len(mesh.faces) == 12
    facts = soundness(mesh)
    assert facts.sound and facts.volume == pytest.approx(1.0)


def test_scenes_are_flattened_with_their_transforms(tmp_path):
    scene = trimesh.Scene()
    shape = trimesh.Trimesh(cube(1).positions, cube(1).faces, process=False)
    scene.add_geometry(shape, transform=trimesh.transformations.translation_matrix([3, 0, 0]))
    mirrored = np.diag([-2.0, 2.0, 2.0, 1.0])
    scene.add_geometry(shape, transform=mirrored)
    scene.export(tmp_path / "two.glb")
    mesh = load_mesh(tmp_path / "two.glb")
    facts = soundness(mesh)
    assert facts.sound and facts.components == 2  # a mirrored part still looks outward
    assert facts.volume == pytest.approx(9 * soundness(cube(1)).volume, rel=1e-4)
    assert mesh.positions[:, 0].max() > 3.0


def test_positions_far_from_the_origin_keep_their_precision(tmp_path):
    far = icosphere(1).positions.astype(np.float64) + [500_000.125, 0.0, 4_000_000.5]
    lines = ["v " + " ".join(repr(float(value)) for value in row) for row in far]
    lines += ["f " + " ".join(str(i + 1) for i in face) for face in icosphere(1).faces]
    (tmp_path / "far.obj").write_text("\n".join(lines))
    mesh = load_mesh(tmp_path / "far.obj")
    assert mesh.notes == ()
    np.testing.assert_array_equal(mesh.positions, far)


def test_files_that_are_no_mesh_are_refused(tmp_path):
    cases = {
        "missing.obj": None,
        "wrong.txt": b"v 0 0 0",
        "empty.obj": b"",
        "noise.glb": os.urandom(300),
        "cut.glb": glb_bytes(icosphere(1))[:700],
        "bomb.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n",
        "short.stl": b"\0" * 80 + b"\xff\xff\xff\x7f" + b"\0" * 50,
        "text.off": b"OFF\n1000000 1000000 0\n0 0 0\n",
        "json.gltf": b'{"asset": {"version": "2.0"}, "scenes": 3, "nodes": "x"}',
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as error:
            load_mesh(tmp_path / name)
        assert "\n" not in str(error.value), name
    with pytest.raises(InputError, match="no file"):
        load_mesh(tmp_path)


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_a_mesh_or_one_sentence(tmp_path, data):
    """Bytes of small files are overwritten; whatever comes, it is a mesh or an InputError."""
    ending = data.draw(st.sampled_from(["glb", "obj", "ply", "stl", "off"]))
    shape = trimesh.Trimesh(icosphere(0).positions, icosphere(0).faces, process=False)
    whole = glb_bytes(icosphere(0)) if ending == "glb" else shape.export(file_type=ending)
    content = bytearray(whole.encode() if isinstance(whole, str) else whole)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{ending}"
    path.write_bytes(content)
    try:
        mesh = load_mesh(path)
    except InputError:
        return
    assert np.isfinite(mesh.positions).all() and mesh.faces.max() < len(mesh.positions)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_glb(colored_ball(), tmp_path / "missing" / "ball.glb")
    (tmp_path / "taken.glb").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_glb(colored_ball(), tmp_path / "taken.glb")
    assert os.listdir(tmp_path) == ["taken.glb"]
