"""Our mesh files in real Blenders, and Blender's in ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.representations import load_mesh, write_mesh
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.mesh_io import ImportedMesh
from tests.backend.representations.mesh_samples import textured_box
from tests.blender.blender import Blender
from tests.blender.environments import Environment

SCRIPTS = Path(__file__).with_name("mesh_files.py")


def to_blender(positions: np.ndarray) -> np.ndarray:
    """glTF's and OBJ's y up to Blender's z up."""
    return np.stack([positions[:, 0], -positions[:, 2], positions[:, 1]], axis=1)


def corner_rows(positions: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Corners with their texture coordinates, polygon by polygon's order aside."""
    return np.array(sorted(np.concatenate([positions, uvs], axis=1).round(5).tolist()))


@pytest.fixture(scope="module")
def exchanged(blender_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    """Our files as Blender sees them, by name; what it says is in its own; and the folder with all of them."""
    folder = tmp_path_factory.mktemp("files")
    for ending in ("glb", "obj"):
        write_mesh(textured_box(), folder / f"textured.{ending}", "Ein Kästchen")
        write_mesh(plain_box(), folder / f"plain.{ending}", "box")
    paths = [folder / f"{name}.{ending}" for name in ("textured", "plain") for ending in ("glb", "obj")]
    blender = Blender(blender_environment, tmp_path_factory.mktemp("blender"), lambda: folder, lambda: folder)
    told = blender.run(SCRIPTS, paths, folder, function="exchange")
    return told["seen"], told["told"], folder


def plain_box() -> MeshData:
    numbers = MaterialData(np.float32([0.5, 1, 0]), metallic=0.25, roughness=0.75)
    return replace(textured_box(), material=numbers)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_our_textured_file_is_what_it_should_be_in_blender(exchanged: tuple[dict, dict, Path], ending: str) -> None:
    mesh = textured_box()
    (item,) = exchanged[0][f"textured.{ending}"]
    assert item["name"] == "Ein Kästchen" and item["colors"] == []
    positions = np.array(item["positions"])
    corners = np.concatenate(item["polygons"])
    np.testing.assert_allclose(np.ptp(positions, axis=0), [1, 3, 2], rtol=1e-6)  # x, depth, height
    expected = corner_rows(to_blender(mesh.positions)[mesh.faces.reshape(-1)], mesh.uvs[mesh.uv_faces.reshape(-1)])
    np.testing.assert_allclose(corner_rows(positions[corners], np.array(item["uvs"])), expected, atol=2e-5)
    (material,) = item["materials"]
    written = mesh.material
    data = "Non-Color" if ending == "glb" else "sRGB"  # Blender takes every texture of an OBJ for a color
    assert material["name"] == written.name
    for socket, space, way, values in (
        ("Base Color", "sRGB", ["TEX_IMAGE Color"], written.base_color),
        ("Emission Color", "sRGB", ["TEX_IMAGE Color"], written.emission),
        ("Normal", data, ["NORMAL_MAP Normal", "TEX_IMAGE Color"], written.normal / 2 + 0.5),
    ):
        assert (material[socket]["space"], material[socket]["way"]) == (space, way), socket
        np.testing.assert_array_equal(material[socket]["texels"], np.rint(values * 255), err_msg=socket)
    assert material["Emission Strength"]["value"] == 1.0
    for channel, socket, values in (("Green", "Roughness", written.roughness), ("Blue", "Metallic", written.metallic)):
        split = [] if ending == "obj" else [f"SEPARATE_COLOR {channel}"]
        assert material[socket]["way"] == [*split, "TEX_IMAGE Color"] and material[socket]["space"] == data
        texels = np.array(material[socket]["texels"])[..., ["Red", "Green", "Blue"].index(channel)]
        np.testing.assert_array_equal(texels, np.rint(values * 255), err_msg=socket)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_our_numbers_are_blenders_numbers(exchanged: tuple[dict, dict, Path], ending: str) -> None:
    """A displayed 0.5 is a linear 0.21404."""
    (item,) = exchanged[0][f"plain.{ending}"]
    (read,) = item["materials"]
    np.testing.assert_allclose(read["Base Color"]["value"][:3], [0.21404, 1, 0], atol=1e-5)
    assert read["Metallic"]["value"] == pytest.approx(0.25) and read["Roughness"]["value"] == pytest.approx(0.75)


def test_blenders_files_are_what_they_were_in_blender(exchanged: tuple[dict, dict, Path]) -> None:
    _, told, folder = exchanged
    positions = np.array(told["positions"])
    glb, obj = load_mesh(folder / "thing.glb"), load_mesh(folder / "thing.obj")
    for mesh in (glb, obj):
        assert mesh.notes == () and mesh.objects == ("Häuschen",)
        assert len(mesh.positions) == len(positions)
        ours = sorted(to_blender(mesh.positions).round(4).tolist())
        np.testing.assert_allclose(ours, sorted(positions.round(4).tolist()), atol=1e-4)
        check_materials(mesh, told)
        # The concave front, 2 x 2 x 5, is tiled by both triangulations.
        assert area(mesh, mesh.face_material == 0) == pytest.approx(2 * 4 * 5)
    assert (glb.up, glb.meters, glb.polygons) == ("y", 1.0, None)
    sizes = [len(each) for each in told["polygons"]]
    assert obj.polygons.sizes.tolist() == sizes and set(sizes) == {3, 4, 8}
    np.testing.assert_allclose(to_blender(obj.positions), positions, atol=1e-5)
    np.testing.assert_array_equal(obj.polygons.corners, np.concatenate(told["polygons"]))
    np.testing.assert_allclose(obj.uvs[obj.polygons.uv_corners], told["uvs"], atol=1e-6)
    np.testing.assert_array_equal(obj.polygons.of_triangles(obj.face_material), told["material_of"])


def check_materials(mesh: ImportedMesh, told: dict) -> None:
    brick, steel = mesh.materials
    assert [brick.name.replace("_", " "), steel.name] == ["brick wall", "steel"]  # Blender's OBJ has no spaces
    np.testing.assert_array_equal(np.rint(brick.base_color * 255), told["materials"][0]["Base Color"]["texels"])
    assert brick.roughness == pytest.approx(0.9, abs=1e-4) and brick.metallic == 0.0
    displayed = 1.055 * np.array([0.5, 0.25, 0.1]) ** (1 / 2.4) - 0.055
    np.testing.assert_allclose(steel.base_color, displayed, atol=1e-4)
    assert (steel.metallic, steel.roughness) == (1.0, pytest.approx(0.3, abs=1e-4))


def area(mesh: MeshData | ImportedMesh, faces: np.ndarray) -> float:
    corners = mesh.positions[mesh.faces[faces]]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return float(np.linalg.norm(facing, axis=1).sum() / 2)
