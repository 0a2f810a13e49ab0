"""What the Khronos glTF validator says of exported GLB files: neither an error nor a warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.representations import write_glb
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import icosphere
from tests.backend.representations.gltf_validator import issues
from tests.backend.representations.mesh_samples import colored_ball, textured_box


def exports() -> dict[str, tuple[MeshData, str]]:
    """By file name: a mesh, and what it is called."""
    box, ball, plain = textured_box(), colored_ball(), icosphere(1)
    bare = MeshData(plain.positions, plain.faces)
    material = box.material
    spare = np.concatenate([box.positions, np.float32([[9, 9, 9], [8, 8, 8]])])
    numbers = MaterialData(np.float32([0.2, 0.5, 1.0]), 0.3, 0.9, None, np.float32([1.0, 0.5, 0.0]), "")
    nan_free = np.float32([[0, 0, 0], [1e-30, 0, 0], [0, 1e-30, 0]])
    return {
        "textured": (box, "box"),
        "unicode": (box, "ein Käse 木 \U0001f9c0 \" \\ \n"),
        "nameless": (replace(box, material=replace(material, name="")), ""),
        "base_color_only": (replace(box, material=MaterialData(material.base_color)), "box"),
        "metallic_map_only": (replace(box, material=replace(material, roughness=0.7, normal=None)), "box"),
        "maps_of_two_sizes": (replace(box, material=replace(material, roughness=np.ones((3, 5), np.float32))), "box"),
        "normal_and_color": (replace(box, material=MaterialData(np.float32([1, 0, 0]), normal=material.normal)), "box"),
        "textured_and_colored": (replace(box, colors=np.full((8, 3), 0.5, np.float32)), "box"),
        "uvs_without_material": (replace(box, material=None), "box"),
        "numbers": (replace(ball, material=numbers), "ball"),
        "colored": (ball, "ball"),
        "bare": (bare, "ball"),
        "unreferenced": (replace(box, positions=spare), "box"),
        "one_triangle": (MeshData(np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.int32([[0, 1, 2]])), "one"),
        "tiny": (MeshData(nan_free, np.int32([[0, 1, 2]])), "tiny"),
        "far": (replace(bare, positions=bare.positions * np.float32(1e12)), "far"),
        "large": (icosphere(6), "large"),
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("exports")
    for file, (mesh, name) in exports().items():
        write_glb(mesh, folder / f"{file}.glb", name)
    broken = bytearray((folder / "colored.glb").read_bytes())
    at = broken.index(b'"count":162')
    broken[at : at + 11] = b'"count":163'
    (folder / "broken.glb").write_bytes(broken)
    return issues(sorted(Path(folder).glob("*.glb")))


@pytest.mark.parametrize("file", sorted(exports()))
def test_exports_are_valid(said: dict[str, list[str]], file: str) -> None:
    # Severity 2 remarks on texture coordinates that no texture uses.
    assert [issue for issue in said[f"{file}.glb"] if issue[0] in "01"] == []


def test_the_validator_finds_a_wrong_count(said: dict[str, list[str]]) -> None:
    assert any(issue.startswith("0 ACCESSOR_TOO_LONG") for issue in said["broken.glb"])
