"""Files that mean harm, or are only broken: nothing outside the mesh's folder is read, and memory and time are bounded."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import InputError
from backend.representations import load_mesh, write_mesh
from backend.representations.files import images
from backend.representations.files.disk import find_beside
from backend.representations.files.images import ImageShelf, png_of_bytes
from tests.backend.representations.mesh_samples import textured_box

TRIANGLE = "mtllib {library}\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
RED = png_of_bytes(np.tile(np.uint8([255, 0, 0]), (2, 2, 1)))


def obj_with_texture(folder: Path, reference: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "t.mtl").write_text(f"newmtl m\nKd 0 1 0\nmap_Kd {reference}\n")
    (folder / "t.obj").write_text(TRIANGLE.format(library="t.mtl"))
    return folder / "t.obj"


def is_red(path: Path) -> bool:
    return np.array_equal(load_mesh(path).colors, np.tile([1, 0, 0], (3, 1)))


def test_textures_in_the_folder_and_below_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a" / "maps").mkdir(parents=True)
    for name in ("red.png", "maps/red one.png"):
        (tmp_path / "a" / name).write_bytes(RED)
    for reference in ("red.png", "./red.png", "maps/red one.png", r"maps\red one.png", "maps/red%20one.png"):
        assert is_red(obj_with_texture(tmp_path / "a", reference)), reference
    # A path of the machine that wrote the file: the file of that name beside the mesh is meant.
    for reference in (r"D:\maps\red.png", "/somewhere/else/red.png", "../other/red.png"):
        assert is_red(obj_with_texture(tmp_path / "a", reference)), reference


def test_textures_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(RED)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(RED)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    (home / "door").symlink_to(tmp_path / "outside")
    os.mkfifo(home / "pipe.png")
    references = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "door/secret.png", "pipe.png", "..", "/dev/zero"]
    references += ["a/../../secret.png", "..%2Fsecret.png", "\0.png", "x" * 5000, "//host/share/secret.png"]
    for reference in references:
        path = obj_with_texture(home, reference)
        mesh = load_mesh(path)
        assert mesh.materials[0].base_color.shape == (3,), reference
        np.testing.assert_array_equal(mesh.materials[0].base_color, [0, 1, 0])
        assert find_beside(home, reference) is None
    (tmp_path / "outside" / "t.mtl").write_text("newmtl m\nKd 1 0 0\n")
    (home / "t.obj").write_text(TRIANGLE.format(library="../outside/t.mtl"))
    (home / "t.mtl").unlink()
    mesh = load_mesh(home / "t.obj")
    assert not is_red(home / "t.obj") and any("material file" in note for note in mesh.notes)


def test_gltf_reads_nothing_from_elsewhere_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    home = tmp_path / "home"
    home.mkdir()
    positions = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]]).tobytes() + np.zeros(6, "<f4").tobytes()
    (tmp_path / "buffer.bin").write_bytes(positions)
    (tmp_path / "red.png").write_bytes(RED)
    for buffer, image in (("../buffer.bin", None), ("data:", "../red.png"), ("data:", "http://localhost/red.png")):
        uri = "data:;base64," + base64.b64encode(positions).decode() if buffer == "data:" else buffer
        document = {
            "asset": {"version": "2.0"},
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
            "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
            "textures": [{"source": 0}],
            "images": [{"uri": image or "none.png"}],
            "buffers": [{"uri": uri, "byteLength": 60}],
            "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 24}],
            "accessors": [
                {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
                {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
            ],
        }
        (home / "t.gltf").write_text(json.dumps(document))
        if image is None:
            with pytest.raises(InputError, match="put it beside the mesh"):
                load_mesh(home / "t.gltf")
        else:
            mesh = load_mesh(home / "t.gltf")
            assert mesh.materials[0].base_color.shape == (3,)
            assert any("not in the mesh's folder" in note for note in mesh.notes)


def png_bomb(side: int) -> bytes:
    """A valid PNG header of a large image, with next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_images_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = obj_with_texture(tmp_path, "bomb.png")
    for side in (12_000, 60_000):
        (tmp_path / "bomb.png").write_bytes(png_bomb(side))
        mesh = load_mesh(path)
        assert mesh.materials[0].base_color.shape == (3,)
        assert any("pixels and is left out" in note for note in mesh.notes)
    (tmp_path / "bomb.png").write_bytes(b"no image at all")
    assert any("cannot be read as an image" in note for note in load_mesh(path).notes)
    (tmp_path / "bomb.png").write_bytes(b"")
    assert any("cannot be read as an image" in note for note in load_mesh(path).notes)
    monkeypatch.setattr(images, "MAX_SIDE", 8)
    texels = np.tile(np.uint8([10, 200, 30]), (10, 33, 1))
    (tmp_path / "bomb.png").write_bytes(png_of_bytes(texels))
    mesh = load_mesh(path)
    assert mesh.materials[0].base_color.shape == (2, 7, 3)
    np.testing.assert_allclose(mesh.materials[0].base_color[0, 0] * 255, [10, 200, 30], atol=1e-3)
    assert any("reduced from 33 x 10 to 7 x 2" in note for note in mesh.notes)


def test_many_images_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_TOTAL_TEXELS", 20)
    shelf = ImageShelf()
    assert shelf.decode("a", "a", lambda: RED) is not None
    assert shelf.decode("a", "a", lambda: pytest.fail("read twice")) is not None
    decoded = [shelf.decode(str(index), "another", lambda: RED) for index in range(10)]
    assert decoded[0] is not None and decoded[-1] is None
    assert any("too large together" in note for note in shelf.notes)


def test_files_that_promise_too_much_are_refused(tmp_path: Path) -> None:
    gltf = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0, "children": [0]}],
        "scenes": [{"nodes": [0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "buffers": [{"uri": "data:;base64,AAAA", "byteLength": 3}],
        "bufferViews": [{"buffer": 0, "byteLength": 3}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 10**12, "type": "VEC3"}],
    }
    ply = b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    ply += b"element face 1\nproperty list uint int vertex_indices\nend_header\n" + b"\0" * 36
    cases = {
        "loop.gltf": json.dumps(gltf).encode(),
        "count.gltf": json.dumps(gltf | {"nodes": [{"mesh": 0}]}).encode(),
        "list.ply": ply + b"\xff\xff\xff\xff" + b"\0" * 12,
        "negative.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n",
        "beyond.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99\n",
        "zero.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n",
        "coordinate.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/2 3/1\n",
        "endless.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf" + b" 1 2 3" * 5000 + b"\n",
        "words.obj": b"v a b c\nf 1 1 1\n",
        "overflow.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999999\n",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as error:
            load_mesh(tmp_path / name)
        assert "\n" not in str(error.value), name


@pytest.fixture(scope="module")
def textured_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A textured GLB, and OBJ, MTL, PNG and PLY files, by name."""
    folder = tmp_path_factory.mktemp("whole")
    for ending in ("glb", "obj", "ply"):
        write_mesh(textured_box(), folder / f"box.{ending}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_textured_files_give_a_mesh_or_one_sentence(tmp_path: Path, textured_files: dict[str, bytes], data) -> None:
    """Bytes are overwritten, cut out or doubled; whatever comes, it is a mesh or an InputError."""
    name = data.draw(st.sampled_from(sorted(textured_files)))
    content = bytearray(textured_files[name])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        match data.draw(st.sampled_from(["set", "cut", "double"])):
            case "set":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 40))]
            case "double":
                content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
    for each, whole in textured_files.items():
        (tmp_path / each).write_bytes(bytes(content) if each == name else whole)
    for ending in ("glb", "obj", "ply"):
        try:
            mesh = load_mesh(tmp_path / f"box.{ending}")
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert np.isfinite(mesh.positions).all() and mesh.faces.max() < len(mesh.positions)
        assert mesh.uvs is None or (np.isfinite(mesh.uvs).all() and mesh.uv_faces.max() < len(mesh.uvs))
        for material in mesh.materials:
            for values in (material.base_color, material.metallic, material.roughness, material.emission, material.normal):
                assert values is None or np.isfinite(values).all()
