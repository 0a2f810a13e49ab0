"""What a file keeps of a mesh: written, read back, and compared bit for bit where the format can hold it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from backend.errors import InputError
from backend.representations import load_mesh, write_mesh
from backend.representations.files.gltf_container import accessor_array, read_gltf
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.mesh_io import ImportedMesh
from backend.representations.polygons import cut_polygons
from tests.backend.representations.mesh_samples import colored_ball, textured_box


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def corner_uvs(mesh: MeshData | ImportedMesh) -> np.ndarray:
    return mesh.uvs[mesh.uv_faces]


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_textured_mesh_comes_back(tmp_path: Path, ending: str) -> None:
    mesh = textured_box()
    notes = write_mesh(mesh, tmp_path / f"box.{ending}", "a box")
    assert [note for note in notes if "Non-Color" not in note] == [] and len(notes) == (ending == "obj")
    back = load_mesh(tmp_path / f"box.{ending}")
    assert back.notes == ()
    np.testing.assert_array_equal(back.positions, mesh.positions)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    assert back.objects == ("a box",) and (back.face_object == 0).all()
    assert len(back.materials) == 1 and (back.face_material == 0).all()
    assert back.polygons is None and back.udim_tiles == (1001,)
    assert (back.up, back.meters) == (("y", 1.0) if ending == "glb" else (None, None))
    if ending == "obj":
        np.testing.assert_array_equal(bits(back.uvs), bits(mesh.uvs))
        np.testing.assert_array_equal(back.uv_faces, mesh.uv_faces)
    else:  # v is stored as 1 - v, which rounds to a multiple of 2^-24
        assert back.uvs.shape == mesh.uvs.shape
        np.testing.assert_array_equal(bits(corner_uvs(back)[..., 0]), bits(corner_uvs(mesh)[..., 0]))
        np.testing.assert_allclose(corner_uvs(back)[..., 1], corner_uvs(mesh)[..., 1], atol=2**-24, rtol=0)
    read, written = back.material(), mesh.material
    assert read.name == written.name
    for key in ("base_color", "metallic", "roughness", "emission"):
        np.testing.assert_array_equal(getattr(read, key), getattr(written, key), err_msg=key)
    np.testing.assert_allclose(read.normal, written.normal, atol=1 / 255)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_the_second_round_trip_changes_nothing(tmp_path: Path, ending: str) -> None:
    write_mesh(textured_box(), tmp_path / f"one.{ending}")
    one = load_mesh(tmp_path / f"one.{ending}")
    again = MeshData(np.float32(one.positions), one.faces, None, one.uvs, one.uv_faces, one.material())
    write_mesh(again, tmp_path / f"two.{ending}")
    two = load_mesh(tmp_path / f"two.{ending}")
    np.testing.assert_array_equal(bits(corner_uvs(one)), bits(corner_uvs(two)))
    for key in ("base_color", "metallic", "roughness", "emission", "normal"):
        np.testing.assert_array_equal(getattr(one.material(), key), getattr(two.material(), key), err_msg=key)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_a_material_of_numbers_comes_back(tmp_path: Path, ending: str) -> None:
    material = MaterialData(np.float32([0.2, 0.5, 1.0]), 0.3, 0.9, None, np.float32([1.0, 0.5, 0.0]), "numbers")
    mesh = replace(textured_box(), material=material)
    write_mesh(mesh, tmp_path / f"box.{ending}")
    back = load_mesh(tmp_path / f"box.{ending}")
    read = back.material()
    np.testing.assert_allclose(read.base_color, material.base_color, atol=1e-6)
    np.testing.assert_allclose(read.emission, material.emission, atol=1e-6)
    assert (read.metallic, read.roughness, read.normal) == (pytest.approx(0.3), pytest.approx(0.9), None)
    np.testing.assert_allclose(back.colors, np.tile(material.base_color, (8, 1)), atol=1e-6)


def test_seams_are_split_into_copies_with_the_same_bits(tmp_path: Path) -> None:
    mesh = textured_box()
    write_mesh(mesh, tmp_path / "box.glb")
    gltf = read_gltf(tmp_path / "box.glb")
    attributes = gltf.document["meshes"][0]["primitives"][0]["attributes"]
    positions, normals, uvs = (accessor_array(gltf, attributes[key]) for key in ("POSITION", "NORMAL", "TEXCOORD_0"))
    assert len(positions) == 24  # three charts meet at each of eight corners
    for corner in mesh.positions:
        copies = (positions == corner).all(axis=1)
        assert copies.sum() == 3 and len(np.unique(bits(normals[copies]), axis=0)) == 1
    # glTF's v grows downward: the set of stored coordinates is ours turned over.
    ours = np.stack([mesh.uvs[:, 0], np.float32(1) - mesh.uvs[:, 1]], axis=1)
    np.testing.assert_array_equal(np.unique(bits(uvs), axis=0), np.unique(bits(ours), axis=0))


def test_glb_packs_maps_as_the_standard_says(tmp_path: Path) -> None:
    mesh = textured_box()
    write_mesh(mesh, tmp_path / "box.glb")
    loaded = trimesh.load_scene(tmp_path / "box.glb", process=False)
    (geometry,) = loaded.geometry.values()
    material = geometry.visual.material
    np.testing.assert_array_equal(np.asarray(material.baseColorTexture), np.rint(mesh.material.base_color * 255))
    packed = np.asarray(material.metallicRoughnessTexture)
    np.testing.assert_array_equal(packed[..., 1], np.rint(mesh.material.roughness * 255))
    np.testing.assert_array_equal(packed[..., 2], np.rint(mesh.material.metallic * 255))
    stored = np.asarray(material.normalTexture) / 255 * 2 - 1
    np.testing.assert_allclose(stored, mesh.material.normal, atol=1 / 255)
    np.testing.assert_array_equal(np.asarray(material.emissiveTexture), np.rint(mesh.material.emission * 255))
    np.testing.assert_array_equal(material.emissiveFactor, [1, 1, 1])
    assert material.name == "Käse 木" and (material.metallicFactor, material.roughnessFactor) == (1, 1)
    assert list(loaded.graph.nodes_geometry) == ["Galatea"]


def test_tangents_point_along_u(tmp_path: Path) -> None:
    """A unit square in the plane z = 0 whose texture is turned by a known angle, once as it is and once mirrored."""
    square = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.int32([[0, 1, 2], [0, 2, 3]])
    angle = 0.4
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for mirror in (1.0, -1.0):
        uvs = np.float32((square[:, :2] @ turn.T) * [mirror, 1.0])
        mesh = MeshData(square, faces, None, uvs, faces, textured_box().material)
        write_mesh(mesh, tmp_path / "square.glb")
        gltf = read_gltf(tmp_path / "square.glb")
        index = gltf.document["meshes"][0]["primitives"][0]["attributes"]["TANGENT"]
        along = mirror * np.array([np.cos(angle), np.sin(angle), 0.0])
        np.testing.assert_allclose(accessor_array(gltf, index), np.tile([*along, mirror], (4, 1)), atol=1e-5)


def test_a_mirrored_chart_gets_vertices_of_its_own(tmp_path: Path) -> None:
    """Two triangles that share an edge in space and in the texture, folded over it there."""
    positions = np.float32([[0, 0, 0], [0, 1, 0], [-1, 0, 0], [1, 0, 0]])
    faces = np.int32([[0, 1, 2], [1, 0, 3]])
    uvs = np.float32([[0, 0], [0, 1], [0.5, 0], [0.5, 0]])
    write_mesh(MeshData(positions, faces, None, uvs, faces, textured_box().material), tmp_path / "folded.glb")
    gltf = read_gltf(tmp_path / "folded.glb")
    index = gltf.document["meshes"][0]["primitives"][0]["attributes"]["TANGENT"]
    tangents = accessor_array(gltf, index)
    assert len(tangents) == 6 and sorted(tangents[:, 3]) == [-1, -1, -1, 1, 1, 1]
    back = load_mesh(tmp_path / "folded.glb")
    assert len(back.positions) == 4 and len(back.uvs) == 4


def test_vertex_colors_give_way_to_a_texture(tmp_path: Path) -> None:
    """glTF multiplies both: colors sampled from the texture would darken it."""
    mesh = replace(textured_box(), colors=np.full((8, 3), 0.5, np.float32))
    write_mesh(mesh, tmp_path / "box.glb")
    document = read_gltf(tmp_path / "box.glb").document
    assert "COLOR_0" not in document["meshes"][0]["primitives"][0]["attributes"]
    write_mesh(replace(mesh, material=MaterialData(np.float32([0, 0, 0]))), tmp_path / "box.glb")
    np.testing.assert_allclose(load_mesh(tmp_path / "box.glb").colors, mesh.colors, atol=1e-4)


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_polygons_come_back(tmp_path: Path, ending: str) -> None:
    """A prism on an L: two concave caps with six corners, six quads, and one quad cut into two triangles."""
    outline = np.array([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)], float)
    positions = np.float32([[*p, z] for z in (0, 1) for p in outline])
    sides = [(i, (i + 1) % 6, (i + 1) % 6 + 6, i + 6) for i in range(5)]
    listed = [tuple(range(6))[::-1], tuple(range(6, 12)), *sides, (5, 0, 6), (5, 6, 11)]
    sizes = np.array([len(each) for each in listed])
    corners = np.concatenate(listed)
    cut = cut_polygons(positions, sizes, corners, corners)
    mesh = MeshData(positions, cut.faces(), np.float32(np.random.default_rng(1).integers(0, 256, (12, 3))) / 255)
    assert len(write_mesh(mesh, tmp_path / f"l.{ending}", "L", cut)) == 0
    back = load_mesh(tmp_path / f"l.{ending}")
    assert back.notes == ()
    np.testing.assert_array_equal(back.polygons.sizes, sizes)
    np.testing.assert_array_equal(back.polygons.corners, corners)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    np.testing.assert_array_equal(back.polygons.faces(), back.faces)
    np.testing.assert_array_equal(back.positions, mesh.positions)
    np.testing.assert_allclose(back.colors, mesh.colors, atol=1e-6)
    with pytest.raises(InputError, match="not those of the mesh"):
        write_mesh(replace(mesh, faces=mesh.faces[::-1]), tmp_path / f"l.{ending}", "L", cut)


def test_ply_takes_the_textures_colors_along(tmp_path: Path) -> None:
    """Each chart shows one texel, so a vertex has the mean of its three charts' colors."""
    mesh = textured_box()
    uvs = np.repeat((np.float32([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]) + 0.5) / [4, 2], 4, axis=0)
    texels = np.random.default_rng(2).integers(0, 256, (2, 4, 3))
    shown = MaterialData(np.float32(texels) / np.float32(255))
    (note,) = write_mesh(replace(mesh, uvs=np.float32(uvs), material=shown), tmp_path / "box.ply")
    assert "vertex colors" in note
    back = load_mesh(tmp_path / "box.ply")
    sides = [texels[1 - row, column] for row in range(2) for column in range(3)]  # row 0 is at the top, v = 1
    for vertex in range(8):
        charts = [sides[face // 2] for face in np.flatnonzero((mesh.faces == vertex).any(axis=1))]
        expected = np.unique(np.array(charts), axis=0).mean(axis=0)
        np.testing.assert_allclose(back.colors[vertex] * 255, expected, atol=0.51)


def test_stl_says_what_it_loses(tmp_path: Path) -> None:
    mesh = colored_ball()
    (note,) = write_mesh(mesh, tmp_path / "ball.stl")
    assert "colors" in note
    back = load_mesh(tmp_path / "ball.stl")
    assert back.colors is None and back.polygons is None
    np.testing.assert_array_equal(back.positions[back.faces], mesh.positions[mesh.faces])
    normals = trimesh.load(tmp_path / "ball.stl").face_normals
    assert ((mesh.positions[mesh.faces].mean(axis=1) * normals).sum(axis=1) > 0.5).all()


def test_vertices_that_no_face_uses_come_back(tmp_path: Path) -> None:
    box = textured_box()
    spare = replace(box, positions=np.concatenate([box.positions, np.float32([[9, 9, 9]])]))
    for ending in ("glb", "obj", "ply"):
        write_mesh(spare, tmp_path / f"box.{ending}")
        back = load_mesh(tmp_path / f"box.{ending}")
        np.testing.assert_array_equal(back.positions, spare.positions)
        assert any("no face uses" in note for note in back.notes)


@pytest.mark.parametrize("name", ["ein Käse 木", '"quotes" and a \\ within', "at the end \\", ""])
def test_names_come_back(tmp_path: Path, name: str) -> None:
    material = MaterialData(np.float32([1, 0, 0]), name=name)
    for ending in ("glb", "obj"):
        write_mesh(replace(textured_box(), material=material), tmp_path / f"box.{ending}", name)
        back = load_mesh(tmp_path / f"box.{ending}")
        expected = name if ending == "glb" else name.rstrip("\\ ") or "unnamed"
        assert back.objects == (expected,) and back.materials[0].name == expected


def test_names_that_no_file_can_hold_are_mended(tmp_path: Path) -> None:
    """Half a surrogate pair, as Python gives for file names in another encoding."""
    for ending in ("glb", "obj"):
        write_mesh(textured_box(), tmp_path / f"box.{ending}", "K\udce4se")
        assert load_mesh(tmp_path / f"box.{ending}").objects == ("K?se",)


def test_files_beside_an_obj_are_complete_and_named_after_it(tmp_path: Path) -> None:
    write_mesh(textured_box(), tmp_path / "my box.obj")
    maps = [f"my_box_{what}.png" for what in ("base_color", "emission", "metallic", "normal", "roughness")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my box.obj", "my_box.mtl", *maps]
    with Image.open(tmp_path / "my_box_base_color.png") as image:
        assert image.size == (8, 16)
    other = trimesh.load(tmp_path / "my box.obj", process=False)
    texels = np.asarray(other.visual.material.image)[..., :3]
    np.testing.assert_array_equal(texels, np.rint(textured_box().material.base_color * 255))


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    box = textured_box()
    gray = np.full((4, 4), 0.5, np.float32)
    bad = {
        "0 faces": replace(box, faces=np.zeros((0, 3), np.int32)),
        "not numbers": replace(box, positions=np.where(np.arange(8)[:, None] == 3, np.nan, box.positions)),
        "names vertex": replace(box, faces=box.faces + 1),
        "both or neither": replace(box, uv_faces=None),
        "the rows of uvs": replace(box, uv_faces=box.uv_faces + 1),
        "unwrap the mesh first": replace(box, uvs=None, uv_faces=None),
        "base_color must be": replace(box, material=replace(box.material, base_color=gray)),
        "roughness must be": replace(box, material=replace(box.material, roughness=np.zeros((0, 4)))),
        "normal must be": replace(box, material=replace(box.material, normal=gray)),
    }
    for message, mesh in bad.items():
        for ending in ("glb", "obj", "ply", "stl"):
            with pytest.raises(InputError, match=message):
                write_mesh(mesh, tmp_path / f"box.{ending}")
    with pytest.raises(InputError, match=r"\.glb, \.obj, \.ply, \.stl"):
        write_mesh(box, tmp_path / "box.fbx")
    assert list(tmp_path.iterdir()) == []


def test_glb_document_is_plain_json(tmp_path: Path) -> None:
    write_mesh(textured_box(), tmp_path / "box.glb")
    json.dumps(read_gltf(tmp_path / "box.glb").document, allow_nan=False)
