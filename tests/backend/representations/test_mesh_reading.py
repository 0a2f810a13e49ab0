"""What is read from other programs' files: names, materials, polygons and texture coordinates of OBJ, PLY and glTF."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import InputError
from backend.representations import load_mesh
from tests.backend.representations.mesh_samples import (
    QUAD_FACES,
    QUAD_POSITIONS,
    QUAD_UVS,
    eight_bit,
    png_uri,
    write_gltf,
)

def save_png(path: Path, values: np.ndarray) -> np.ndarray:
    """Writes values in [0, 1] as an 8-bit PNG and returns its texels."""
    texels = np.rint(values * 255).astype(np.uint8)
    Image.fromarray(texels).save(path)
    return texels


OBJ = """# made by hand
mtllib things.mtl
o first thing
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0.5 0.5 2
vt 0.1 0.2
vt 0.9 0.2
vt 0.9 0.8 0
vt 0.1 0.8
usemtl brick wall
f 4/4 3/3 2/2 1/1
o second
usemtl steel
f -5 -4 -1
f 2 3 5
f 3/3/ 4/4/ 5/1/
f 4 1 5
l 1 2
"""
MTL = """newmtl brick wall
Kd 0.2 0.2 0.2
map_Kd -bm 1 textures/brick wall.png
newmtl steel
Kd 0.5 0.25 1
Pm 1
Pr 0.25
Ke 0 0 0
"""


def test_obj_keeps_objects_materials_polygons_and_coordinates(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    texels = save_png(tmp_path / "textures" / "brick wall.png", eight_bit(np.random.default_rng(0), 4, 4, 3))
    (tmp_path / "things.mtl").write_text(MTL)
    (tmp_path / "things.obj").write_text(OBJ)
    mesh = load_mesh(tmp_path / "things.obj")
    assert mesh.objects == ("first thing", "second")
    np.testing.assert_array_equal(mesh.face_object, [0, 0, 1, 1, 1, 1])
    assert [material.name for material in mesh.materials] == ["brick wall", "steel"]
    np.testing.assert_array_equal(mesh.face_material, [0, 0, 1, 1, 1, 1])
    assert mesh.material() is None  # several
    brick, steel = mesh.materials
    np.testing.assert_array_equal(np.rint(brick.base_color * 255), texels)  # a texture stands for the color
    np.testing.assert_allclose(steel.base_color, [0.5, 0.25, 1])  # as displayed, where Blender did not write it
    assert (steel.metallic, steel.roughness, steel.emission) == (1.0, 0.25, None)
    np.testing.assert_array_equal(mesh.polygons.sizes, [4, 3, 3, 3, 3])
    np.testing.assert_array_equal(mesh.polygons.corners[:4], [3, 2, 1, 0])
    np.testing.assert_array_equal(mesh.uvs[:4], np.float32([[0.1, 0.2], [0.9, 0.2], [0.9, 0.8], [0.1, 0.8]]))
    np.testing.assert_array_equal(mesh.polygons.uv_corners[:4], [3, 2, 1, 0])
    np.testing.assert_array_equal(mesh.uvs[mesh.uv_faces[2]], np.zeros((3, 2)))  # faces without coordinates
    assert any("no texture coordinates" in note for note in mesh.notes)
    assert any("lines and points" in note for note in mesh.notes)


def test_colors_of_a_blender_mtl_are_linear(tmp_path: Path) -> None:
    """A linear 0.21404 is displayed as 0.5 (IEC 61966-2-1)."""
    (tmp_path / "t.obj").write_text("mtllib t.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    for first, expected in (("# Blender 4.5.15 MTL File: 'None'", 0.5), ("# something else", 0.21404114)):
        (tmp_path / "t.mtl").write_text(f"{first}\nnewmtl m\nKd 0.21404114 0 1\nNs 250\n")
        (material,) = load_mesh(tmp_path / "t.obj").materials
        np.testing.assert_allclose(material.base_color, [expected, 0, 1], atol=1e-6)
        assert material.roughness == pytest.approx(0.5)  # 1 - sqrt(250 / 1000)


def test_materials_that_nothing_describes_have_names_and_no_color(tmp_path: Path) -> None:
    (tmp_path / "t.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl paint\nf 1 2 3\n")
    mesh = load_mesh(tmp_path / "t.obj")
    assert mesh.materials[0].name == "paint" and mesh.face_material.tolist() == [0] and mesh.colors is None
    assert any("gone.mtl is not in the mesh's folder" in note for note in mesh.notes)


def test_names_in_latin_1_are_found_again(tmp_path: Path) -> None:
    text = "mtllib t.mtl\no Käse\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl Öl\nf 1 2 3\n"
    (tmp_path / "t.obj").write_bytes(text.encode("latin-1"))
    (tmp_path / "t.mtl").write_bytes("newmtl Öl\nKd 1 0 0\n".encode("latin-1"))
    mesh = load_mesh(tmp_path / "t.obj")
    assert (mesh.objects, mesh.materials[0].name) == (("Käse",), "Öl")
    np.testing.assert_array_equal(mesh.materials[0].base_color, [1, 0, 0])


def test_gray_bump_maps_are_no_normal_maps(tmp_path: Path) -> None:
    (tmp_path / "t.obj").write_text("mtllib t.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    (tmp_path / "t.mtl").write_text("newmtl m\nmap_Bump -bm 0.5 bump.png\n")
    save_png(tmp_path / "bump.png", eight_bit(np.random.default_rng(0), 4, 4))
    mesh = load_mesh(tmp_path / "t.obj")
    assert mesh.materials[0].normal is None and any("heights" in note for note in mesh.notes)
    save_png(tmp_path / "bump.png", np.tile(np.float32([0.5, 0.5, 1.0]), (4, 4, 1)))
    normal = load_mesh(tmp_path / "t.obj").materials[0].normal
    np.testing.assert_allclose(normal, np.tile([0, 0, 1], (4, 4, 1)), atol=0.005)


def test_vertex_colors_of_an_obj_stand_for_its_material(tmp_path: Path) -> None:
    (tmp_path / "t.obj").write_text("usemtl m\nv 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nv 5 5 5\nf 1 2 3\n")
    np.testing.assert_array_equal(load_mesh(tmp_path / "t.obj").colors[:3], np.eye(3))


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_keeps_polygons_and_corner_coordinates(tmp_path: Path, encoding: str) -> None:
    """A pyramid: triangles around a square base, with texture coordinates at the corners of faces and a texture."""
    positions = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 0.5, 2)]
    polygons = [(0, 1, 4), (3, 2, 1, 0), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    generator = np.random.default_rng(0)
    uvs = [generator.random(2 * len(each), np.float32) for each in polygons]
    save_png(tmp_path / "skin.png", np.tile(np.float32([1, 0, 0]), (2, 2, 1)))
    header = (
        f"ply\nformat {encoding} 1.0\ncomment TextureFile skin.png\nelement vertex 5\nproperty float x\nproperty double y\n"
        "property float z\nelement face 5\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n"
        "property uchar flags\nend_header\n"
    )
    sign = ">" if encoding.endswith("big_endian") else "<"
    body = b""
    for x, y, z in positions:
        body += f"{x} {y} {z}\n".encode() if encoding == "ascii" else struct.pack(f"{sign}fdf", x, y, z)
    for polygon, uv in zip(polygons, uvs, strict=True):
        if encoding == "ascii":
            words = [len(polygon), *polygon, len(uv), *(f"{value:.9g}" for value in uv), 7]
            body += (" ".join(map(str, words)) + "\n").encode()
        else:
            size = len(polygon)
            body += struct.pack(f"{sign}B{size}iB{2 * size}fB", size, *polygon, 2 * size, *uv, 7)
    (tmp_path / "p.ply").write_bytes(header.encode() + body)
    mesh = load_mesh(tmp_path / "p.ply")
    assert mesh.notes == ()
    np.testing.assert_array_equal(mesh.positions, positions)
    np.testing.assert_array_equal(mesh.polygons.sizes, [3, 4, 3, 3, 3])
    np.testing.assert_array_equal(mesh.polygons.corners, np.concatenate(polygons))
    np.testing.assert_array_equal(mesh.uvs[mesh.polygons.uv_corners], np.concatenate(uvs).reshape(-1, 2))
    np.testing.assert_allclose(mesh.colors, np.tile([1, 0, 0], (5, 1)))
    np.testing.assert_array_equal(mesh.material().base_color, np.tile([1, 0, 0], (2, 2, 1)))


def test_gltf_factors_are_linear_and_multiply_textures(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    color, packed, glow = (eight_bit(generator, 4, 4, 3) for _ in range(3))
    material = {
        "name": "m",
        "pbrMetallicRoughness": {
            "baseColorFactor": [0.5, 1.0, 0.25, 1.0],
            "baseColorTexture": {"index": 0},
            "metallicFactor": 0.5,
            "roughnessFactor": 0.75,
            "metallicRoughnessTexture": {"index": 1},
        },
        "emissiveFactor": [1, 0.5, 0],
        "emissiveTexture": {"index": 2},
    }
    path = write_gltf(
        tmp_path / "f.gltf",
        {"POSITION": QUAD_POSITIONS, "TEXCOORD_0": QUAD_UVS, "indices": QUAD_FACES},
        primitive={"material": 0},
        materials=[material],
        images=[{"uri": png_uri(values)} for values in (color, packed, glow)],
        textures=[{"source": index} for index in range(3)],
    )
    mesh = load_mesh(path)
    read = mesh.material()

    def linear(values: np.ndarray) -> np.ndarray:
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    np.testing.assert_allclose(linear(read.base_color), linear(color) * [0.5, 1.0, 0.25], atol=1e-5)
    np.testing.assert_allclose(linear(read.emission), linear(glow) * [1, 0.5, 0], atol=1e-5)
    np.testing.assert_allclose(read.roughness, packed[..., 1] * 0.75, atol=1e-6)
    np.testing.assert_allclose(read.metallic, packed[..., 2] * 0.5, atol=1e-6)
    np.testing.assert_array_equal(mesh.uvs[mesh.uv_faces], (QUAD_UVS * [1, -1] + [0, 1])[QUAD_FACES])
    # Image row 0 is at v = 1: the corner (0, 1, 0) shows, with repeating, the mean of the image's four corners.
    corners = read.base_color[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)
    np.testing.assert_allclose(mesh.colors[3], corners, atol=1e-6)


def test_gltf_takes_the_coordinates_that_the_base_color_uses(tmp_path: Path) -> None:
    other = np.uint8(np.rint(QUAD_UVS * 255 / 2))
    image = eight_bit(np.random.default_rng(0), 2, 2, 3)
    transform = {"offset": [0.25, 0.5], "scale": [2, 1], "rotation": np.pi / 2}
    texture = {"index": 0, "texCoord": 1, "extensions": {"KHR_texture_transform": transform}}
    material = {"pbrMetallicRoughness": {"baseColorTexture": texture}, "normalTexture": {"index": 0}, "alphaMode": "BLEND"}
    path = write_gltf(
        tmp_path / "t.gltf",
        {"POSITION": QUAD_POSITIONS, "TEXCOORD_0": QUAD_UVS, "TEXCOORD_1": other, "indices": QUAD_FACES},
        primitive={"material": 0},
        materials=[material],
        images=[{"uri": png_uri(image)}],
        textures=[{"source": 0, "sampler": 0}],
        samplers=[{"wrapS": 33071}],
    )
    mesh = load_mesh(path)
    scaled = other / 255 * [2, 1]  # then turned: (u, v) to (v, -u) for a quarter turn, as the extension's matrix has it
    moved = np.stack([scaled[:, 1], -scaled[:, 0]], axis=1) + [0.25, 0.5]
    np.testing.assert_allclose(mesh.uvs[mesh.uv_faces], (moved * [1, -1] + [0, 1])[QUAD_FACES], atol=1e-6)
    assert mesh.materials[0].normal is None
    for word in ("transparent", "other texture coordinates", "held at its border", "offset, scale and rotation"):
        assert any(word in note for note in mesh.notes), word


def test_gltf_vertex_colors_multiply_the_base_color(tmp_path: Path) -> None:
    colors = np.uint16(np.rint(np.array([[0.5, 1, 0, 1]] * 4) * 65535))
    material = {"pbrMetallicRoughness": {"baseColorFactor": [0.42808229, 1, 1, 1]}}
    arrays = {"POSITION": QUAD_POSITIONS, "COLOR_0": colors, "indices": QUAD_FACES}
    path = write_gltf(tmp_path / "c.gltf", arrays, primitive={"material": 0}, materials=[material])
    np.testing.assert_allclose(load_mesh(path).colors, np.tile([0.5, 1, 0], (4, 1)), atol=1e-4)


@pytest.mark.parametrize("mode", [5, 6])
def test_gltf_strips_and_fans_are_taken_apart(tmp_path: Path, mode: int) -> None:
    order = {5: [0, 1, 3, 2], 6: [0, 1, 2, 3]}[mode]
    arrays = {"POSITION": QUAD_POSITIONS, "indices": np.uint16(order)}
    mesh = load_mesh(write_gltf(tmp_path / "s.gltf", arrays, primitive={"mode": mode}))
    corners = mesh.positions[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(normals, [[0, 0, 1], [0, 0, 1]])


@pytest.mark.parametrize("wording", ["compressed", "sparsely"])
def test_gltf_that_is_packed_away_is_refused_clearly(tmp_path: Path, wording: str) -> None:
    path = write_gltf(tmp_path / "p.gltf", {"POSITION": QUAD_POSITIONS, "indices": QUAD_FACES})
    document = json.loads(path.read_text())
    if wording == "compressed":
        document["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {}}
    else:
        document["accessors"][0]["sparse"] = {"count": 1}
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=wording):
        load_mesh(path)


def test_udim_tiles_are_told(tmp_path: Path) -> None:
    lines = [f"v {x} {y} 0" for x in range(4) for y in range(2)]
    lines += [f"vt {u} {v}" for u, v in ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (1.1, 0.1), (1.9, 0.1), (1.9, 0.9))]
    lines += ["f 1/1 3/2 4/3", "f 3/4 5/5 6/6"]
    (tmp_path / "u.obj").write_text("\n".join(lines))
    mesh = load_mesh(tmp_path / "u.obj")
    assert mesh.udim_tiles == (1001, 1002)
    assert any("2 tiles (1001, 1002)" in note for note in mesh.notes)


def test_sixteen_bit_textures_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "t.obj").write_text("mtllib t.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    (tmp_path / "t.mtl").write_text("newmtl m\nmap_Pr rough.png\n")
    Image.fromarray(np.uint16([[0, 32768], [65535, 257]])).save(tmp_path / "rough.png")
    roughness = load_mesh(tmp_path / "t.obj").materials[0].roughness
    np.testing.assert_allclose(roughness, [[0, 128 / 255], [1, 1 / 255]], atol=1e-6)


def test_bare_formats_say_nothing_of_names_axes_and_units(tmp_path: Path) -> None:
    """OFF polygons are cut by trimesh."""
    (tmp_path / "a.off").write_text("OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
    corners = "".join(f"vertex {x} {y} 0\n" for x, y in ((0, 0), (1, 0), (0, 1)))
    (tmp_path / "a.stl").write_text(f"solid x\nfacet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\nendsolid x\n")
    off, stl = load_mesh(tmp_path / "a.off"), load_mesh(tmp_path / "a.stl")
    for mesh in (off, stl):
        assert (mesh.objects, mesh.materials, mesh.up, mesh.meters) == ((), (), None, None)
        assert (mesh.colors, mesh.uvs, mesh.polygons) == (None, None, None)
    assert len(off.faces) == 2 and len(stl.faces) == 1
