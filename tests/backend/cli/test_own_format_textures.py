"""A new texture comes home in the artist's file: it changes, and nothing else does but the vertices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.cli.own_format import Repainted
from backend.cli.start_mesh import StartMesh
from backend.representations import load_mesh, write_mesh
from backend.representations.files.gltf_container import accessor_array, data_uri, read_gltf, view_bytes
from backend.representations.files.images import png
from backend.representations.mesh_data import MaterialData
from tests.backend.representations.gltf_validator import issues
from tests.backend.representations.mesh_samples import (
    QUAD_FACES,
    QUAD_POSITIONS,
    QUAD_UVS,
    eight_bit,
    png_uri,
    textured_box,
    write_gltf,
)

SIDES = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
MTL = """# written by hand
newmtl wood Å
Ns 250
Kd 0.5 0.5 0.5
map_Kd wood.png
newmtl unused
Kd 0.1 0.2 0.3
newmtl steel
Kd 0.9 0.9 0.9
Pr 0.2
"""


def write_obj(folder: Path, materials: bool = True) -> tuple[Path, str]:
    """A box of quads with a chart for each side, in two groups and materials."""
    lines = ["# by hand", "mtllib box.mtl", "o Käse Å"] if materials else ["o Käse Å"]
    lines += [f"v {x} {y} {z}" for x in (0, 1) for y in (0, 2) for z in (0, 3)]
    charts = [(x / 3, y / 2) for y in range(2) for x in range(3)]
    lines += [f"vt {u + a * 0.3:.7g} {v + b * 0.45:.7g}" for u, v in charts for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    for side, quad in enumerate(SIDES):
        if side in (0, 3):
            lines += [f"g half {side}"] + ([f"usemtl {'wood Å' if side == 0 else 'steel'}"] if materials else [])
        lines.append("f " + " ".join(f"{vertex}/{4 * side + corner + 1}" for corner, vertex in enumerate(quad)))
    text = "\n".join(lines) + "\n"
    (folder / "box.obj").write_text(text)
    if materials:
        (folder / "box.mtl").write_text(MTL)
        (folder / "wood.png").write_bytes(png(np.full((2, 2, 3), 0.25)))
    return folder / "box.obj", text


def new_texture(side: int = 8) -> np.ndarray:
    return eight_bit(np.random.default_rng(7), side, side, 3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_obj_gets_its_texture_beside_it(tmp_path: Path, out: Path) -> None:
    path, text = write_obj(tmp_path)
    start = StartMesh.read(path, "y")
    assert start.mesh.material is None and start.mesh.uvs is not None  # two materials
    painted = replace(start.mesh, material=MaterialData(new_texture(), 0.9, 0.1))
    start.write_result(painted, out)
    assert sorted(each.name for each in out.iterdir()) == [
        "box-refined.mtl", "box-refined.obj", "box-refined_base_color.png",
    ]  # fmt: skip
    lines = (out / "box-refined.obj").read_text().splitlines()
    kept = [line for line in text.splitlines() if line.split()[0] not in ("v", "mtllib")]
    assert [line for line in lines if line.split()[0] not in ("v", "mtllib")] == kept
    assert lines[0] == "mtllib box-refined.mtl" and all(len(line.split()) == 4 for line in lines if line.startswith("v "))
    texture = ["Kd 1 1 1", "map_Kd box-refined_base_color.png"]
    assert (out / "box-refined.mtl").read_text().splitlines() == [
        "# written by hand", "newmtl wood Å", *texture, "Ns 250", "newmtl unused", "Kd 0.1 0.2 0.3",
        "newmtl steel", *texture, "Pr 0.2",
    ]  # fmt: skip
    back = load_mesh(out / "box-refined.obj")
    assert [each.name for each in back.materials] == ["wood Å", "steel"] and back.objects == ("Käse Å",)
    assert back.polygons.sizes.tolist() == [4] * 6
    for each in back.materials:
        np.testing.assert_array_equal(each.base_color, new_texture())
    assert [each.roughness for each in back.materials] == [pytest.approx(0.5), 0.2]


def test_obj_without_materials_gets_one(tmp_path: Path, out: Path) -> None:
    path, _ = write_obj(tmp_path, materials=False)
    start = StartMesh.read(path, "y")
    start.write_result(replace(start.mesh, material=MaterialData(new_texture(), name="neu ß")), out)
    back = load_mesh(out / "box-refined.obj")
    assert back.notes == () and back.materials[0].name == "neu ß"
    np.testing.assert_array_equal(back.material().base_color, new_texture())


def glb_of(folder: Path) -> Path:
    write_mesh(textured_box(), folder / "box.glb", "box")
    return folder / "box.glb"


@pytest.mark.parametrize("ending", [".glb", ".gltf"])
def test_gltf_gets_its_texture_inside(tmp_path: Path, out: Path, ending: str) -> None:
    path = glb_of(tmp_path)
    if ending == ".gltf":
        gltf = read_gltf(path)
        gltf.document["buffers"][0]["uri"] = data_uri(gltf.buffers[0])
        path = tmp_path / "box.gltf"
        path.write_text(json.dumps(gltf.document))
    start = StartMesh.read(path, "y")
    own = start.mesh.material
    moved = start.mesh.positions * np.float32([1, 1, 0.5])
    start.write_result(replace(start.mesh, positions=moved, material=replace(own, base_color=new_texture())), out)
    result = out / f"box-refined{ending}"
    assert list(out.iterdir()) == [result]
    before, after = read_gltf(path), read_gltf(result)
    attributes = before.document["meshes"][0]["primitives"][0]["attributes"]
    assert after.document["meshes"][0]["primitives"][0]["attributes"] == attributes
    for index in (attributes["TEXCOORD_0"], before.document["meshes"][0]["primitives"][0]["indices"]):
        assert accessor_array(before, index).tobytes() == accessor_array(after, index).tobytes()
    for index in range(len(before.document["images"])):
        assert view_bytes(before, before.document["images"][index]["bufferView"]) == view_bytes(
            after, after.document["images"][index]["bufferView"]
        )
    back = load_mesh(result)
    read = back.material()
    np.testing.assert_array_equal(read.base_color, new_texture())
    for key in ("metallic", "roughness", "normal", "emission"):
        np.testing.assert_array_equal(getattr(read, key), getattr(own, key), err_msg=key)
    assert np.ptp(back.positions[:, 2]) == pytest.approx(1.5, abs=1e-5)
    if ending == ".glb":
        assert [issue for issue in issues([result])[result.name] if issue[0] in "01"] == []


def test_each_property_comes_home_alone(tmp_path: Path, out: Path) -> None:
    start = StartMesh.read(glb_of(tmp_path), "y")
    own, generator = start.mesh.material, np.random.default_rng(3)
    news = {
        "metallic": eight_bit(generator, 8, 8),
        "roughness": 0.25,
        "normal": np.tile(np.float32([0, 0, 1]), (4, 4, 1)),
        "emission": eight_bit(generator, 2, 2, 3),
    }
    for changed, value in news.items():
        start.write_result(replace(start.mesh, material=replace(own, **{changed: value})), out)
        read = load_mesh(out / "box-refined.glb").material()
        for key in ("base_color", "metallic", "roughness", "normal", "emission"):
            expected = value if key == changed else getattr(own, key)
            np.testing.assert_allclose(getattr(read, key), expected, atol=0.004, err_msg=f"{key} after {changed}")


def test_a_new_texture_uses_the_coordinates_that_the_old_one_did(tmp_path: Path, out: Path) -> None:
    """Another set of coordinates, transformed; and vertex colors, which would tint a texture that was made without them."""
    texture = {"index": 0, "texCoord": 1, "extensions": {"KHR_texture_transform": {"offset": [0.25, 0.5], "rotation": 0.5}}}
    path = write_gltf(
        tmp_path / "box.gltf",
        {
            "POSITION": QUAD_POSITIONS,
            "TEXCOORD_0": QUAD_UVS / 2,
            "TEXCOORD_1": QUAD_UVS,
            "COLOR_0": np.full((4, 4), 32768, np.uint16),
            "indices": QUAD_FACES,
        },
        primitive={"material": 0},
        materials=[{"pbrMetallicRoughness": {"baseColorTexture": texture, "baseColorFactor": [0.5, 0.5, 0.5, 1]}}],
        images=[{"uri": png_uri(np.full((2, 2, 3), 0.25))}],
        textures=[{"source": 0}],
    )
    start = StartMesh.read(path, "y")
    start.write_result(replace(start.mesh, material=replace(start.mesh.material, base_color=new_texture())), out)
    back = load_mesh(out / "box-refined.gltf")
    np.testing.assert_array_equal(back.material().base_color, new_texture())
    np.testing.assert_array_equal(back.uvs, start.mesh.uvs)
    surface = read_gltf(out / "box-refined.gltf").document["materials"][0]["pbrMetallicRoughness"]
    assert surface["baseColorTexture"] == texture | {"index": 1} and "baseColorFactor" not in surface
    assert "COLOR_0" not in read_gltf(out / "box-refined.gltf").document["meshes"][0]["primitives"][0]["attributes"]


def test_an_unchanged_material_changes_nothing(tmp_path: Path, out: Path) -> None:
    path, _ = write_obj(tmp_path)
    start = StartMesh.read(path, "y")
    start.write_result(start.mesh, out)
    assert [each.name for each in out.iterdir()] == ["box-refined.obj"]
    assert "mtllib box.mtl" in (out / "box-refined.obj").read_text()
    own = textured_box().material
    assert Repainted.between(own, replace(own, base_color=own.base_color.copy())) is None
    assert Repainted.between(own, None) is None


def test_a_texture_for_other_coordinates_stays_out(tmp_path: Path, out: Path) -> None:
    """A mesh that had to be unwrapped: its texture would be nonsense on the artist's coordinates."""
    path, _ = write_obj(tmp_path)
    start = StartMesh.read(path, "y")
    other = replace(start.mesh, uvs=start.mesh.uvs[::-1].copy(), material=MaterialData(new_texture()))
    start.write_result(other, out)
    assert [each.name for each in out.iterdir()] == ["box-refined.obj"]
