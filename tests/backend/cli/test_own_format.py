"""A refined mesh comes back in the artist's file with nothing moved but its vertices."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from backend.cli.own_format import Refined, rewrite
from backend.errors import InputError

SHIFT = np.array([1.0, 2.0, 3.0])


class Stretched:
    """Every point p goes to 2 p + shift; normals point to +y and colors are the original positions' signs."""

    def positions(self, original: np.ndarray) -> np.ndarray:
        return 2 * original + SHIFT

    def normals(self, original: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0, 0.0], (len(original), 1))

    def colors(self, original: np.ndarray) -> np.ndarray:
        return (original > 0).astype(float)

    def moved(self, original: np.ndarray) -> np.ndarray:
        return np.ones(len(original), dtype=bool)

    recolored = bent = moved

    def repainted(self) -> None:
        return None


def rewritten(path: Path, refined: Refined) -> bytes:
    """The one file that rewriting without new textures gives."""
    files = rewrite(path, refined, "new")
    assert list(files) == [f"new{path.suffix}"]
    return files[f"new{path.suffix}"]


OBJ = """# made by hand
mtllib cube.mtl
o Käse Å
v -1 -1 0
v 1 -1 0 1.0
v 1 1 0 0.5 0.5 0.5
v -1 1 0
v 0 0 2
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
g base
usemtl cheese
s 1
f 1/1/1 2/2/1 3/3/1 4/4/1
g sides
f 1//1 2//1 5//1
f -4 -3 -1
f 3/3 4/4 5/1
l 1 2
"""


def test_obj_keeps_polygons_uvs_groups_and_order(tmp_path: Path) -> None:
    path = tmp_path / "cheese.obj"
    path.write_text(OBJ, encoding="utf-8")
    text = rewritten(path, Stretched()).decode("utf-8")
    lines = text.splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    original = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [0, 0, 2]], float)
    np.testing.assert_allclose(vertices[:, :3], 2 * original + SHIFT)
    np.testing.assert_allclose(vertices[:, 3:], original > 0)
    assert [line for line in lines if line.startswith("f")] == ["f 1/1 2/2 3/3 4/4", "f 1 2 5", "f -4 -3 -1", "f 3/3 4/4 5/1"]
    untouched = [line for line in OBJ.splitlines() if line.split()[0] not in ("v", "vn", "f")]
    assert [line for line in lines if line.split()[0] not in ("v", "f")] == untouched


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("colored", [False, True])
def test_ply_keeps_faces_and_other_properties(tmp_path: Path, encoding: str, colored: bool) -> None:
    box = trimesh.creation.box()
    if colored:
        box.visual.vertex_colors = np.full((8, 4), (9, 9, 9, 77), np.uint8)
    path = tmp_path / "box.ply"
    path.write_bytes(trimesh.exchange.ply.export_ply(box, encoding=encoding.partition("_")[0]))
    (tmp_path / "out.ply").write_bytes(rewritten(path, Stretched()))
    result = trimesh.load(tmp_path / "out.ply", process=False)
    np.testing.assert_array_equal(result.faces, box.faces)
    np.testing.assert_allclose(result.vertices, 2 * box.vertices + SHIFT, atol=1e-6)
    np.testing.assert_array_equal(result.visual.vertex_colors[:, :3], 255 * (box.vertices > 0))
    if colored:
        assert (result.visual.vertex_colors[:, 3] == 77).all()


def test_ply_with_quads_and_a_double_property(tmp_path: Path) -> None:
    path = tmp_path / "quad.ply"
    path.write_text(
        "ply\nformat ascii 1.0\ncomment by hand\nelement vertex 4\nproperty double x\nproperty double y\nproperty double z\n"
        "property float weight\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0 .25\n1 0 0 .5\n1 1 0 .75\n0 1 0 1\n4 0 1 2 3\n"
    )
    lines = rewritten(path, Stretched()).decode().splitlines()
    assert lines[-1] == "4 0 1 2 3"
    assert [line.split()[3] for line in lines[-5:-1]] == [".25", ".5", ".75", "1"]
    assert lines[-3].split()[:3] == ["3", "4", "3"]


@pytest.mark.parametrize("kind", ["stl", "stl_ascii"])
def test_stl_keeps_its_facets_in_order(tmp_path: Path, kind: str) -> None:
    box = trimesh.creation.box()
    path = tmp_path / "box.stl"
    content = box.export(file_type=kind)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "out.stl").write_bytes(rewritten(path, Stretched()))
    before = trimesh.load(path, process=False)
    after = trimesh.load(tmp_path / "out.stl", process=False)
    np.testing.assert_allclose(after.triangles, 2 * before.triangles + SHIFT, atol=1e-5)
    np.testing.assert_allclose(after.face_normals, before.face_normals, atol=1e-5)


def test_off_keeps_polygons_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "quad.off"
    path.write_text("OFF\n# by hand\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
    expected = "OFF\n# by hand\n4 1 0\n1 2 3\n3 2 3\n3 4 3\n1 4 3\n4 0 1 2 3\n"
    assert rewritten(path, Stretched()).decode() == expected


def gltf_scene() -> trimesh.Scene:
    """Two boxes, one of them turned, scaled and moved by its node; with UVs and a texture."""
    from PIL import Image

    box = trimesh.creation.box()
    box.unmerge_vertices()
    uv = np.random.default_rng(0).random((len(box.vertices), 2))
    box.visual = trimesh.visual.TextureVisuals(uv, image=Image.new("RGB", (4, 4), (200, 10, 10)))
    box.vertex_normals  # noqa: B018  so that the export holds normals
    other = trimesh.creation.icosphere(1)
    placed = trimesh.transformations.rotation_matrix(0.7, [0, 1, 1]) @ np.diag([2.0, 3.0, 1.5, 1.0])
    placed[:3, 3] = (5, -1, 2)
    scene = trimesh.Scene()
    scene.add_geometry(box, node_name="box", transform=placed)
    scene.add_geometry(other, node_name="ball")
    return scene


def geometries(path: Path) -> dict[str, trimesh.Trimesh]:
    scene = trimesh.load(path, process=False)
    return {
        name: scene.geometry[scene.graph[name][1]].copy().apply_transform(scene.graph[name][0])
        for name in scene.graph.nodes_geometry
    }


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_gltf_keeps_nodes_uvs_and_textures(tmp_path: Path, suffix: str) -> None:
    scene = gltf_scene()
    path = tmp_path / f"boxes{suffix}"
    if suffix == ".glb":
        path.write_bytes(scene.export(file_type="glb"))
    else:
        for name, content in scene.export(file_type="gltf").items():
            (tmp_path / (path.name if name.endswith(".gltf") else name)).write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / path.name
    out.write_bytes(rewritten(path, Stretched()))
    before, after = geometries(path), geometries(out)
    assert before.keys() == after.keys() and len(before) == 2
    for name, mesh in before.items():
        np.testing.assert_allclose(after[name].vertices, 2 * mesh.vertices + SHIFT, atol=1e-4)
        np.testing.assert_array_equal(after[name].faces, mesh.faces)
        if mesh.visual.kind == "texture":
            np.testing.assert_array_equal(after[name].visual.uv, mesh.visual.uv)
            assert after[name].visual.material.baseColorTexture.size == (4, 4)


def test_gltf_bounds_follow_the_vertices(tmp_path: Path) -> None:
    path = tmp_path / "ball.glb"
    path.write_bytes(trimesh.creation.icosphere(1).export(file_type="glb"))
    content = rewritten(path, Stretched())
    length = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + length])
    positions = document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    np.testing.assert_allclose(document["accessors"][positions]["max"], 2 + SHIFT, atol=1e-6)
    assert struct.unpack_from("<I", content, 8)[0] == len(content)


def test_gltf_that_shows_one_mesh_twice_is_refused(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    ball = trimesh.creation.icosphere(1)
    scene.add_geometry(ball, geom_name="ball", node_name="one")
    scene.graph.update("two", matrix=trimesh.transformations.translation_matrix([3, 0, 0]), geometry="ball")
    path = tmp_path / "twice.glb"
    path.write_bytes(scene.export(file_type="glb"))
    with pytest.raises(InputError, match="several places"):
        rewritten(path, Stretched())
