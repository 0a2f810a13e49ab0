"""What our renderer shows of a material, and what Blender's Cycles shows of it as a Principled BSDF: the same light.

Means of absolute differences in linear light, where a white Lambert surface shows about 1. Most of what remains is Cycles'
noise, its Fresnel term in place of Schlick's, and under the map the one lookup that stands for a whole lobe. Under bumps
Cycles also darkens what faces away from the true surface ("Bump Map Correction").
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.representations.mesh_data import MaterialData
from tests.blender.blender import Blender
from tests.blender.material_scenes import LIGHTS, Shot, bumpy_egg, differences, sphere_grid, write

PICTURES = Path(__file__).with_name("cycles_pictures.py")
ORANGE, WHITE, BLUE = (np.array(color, dtype=np.float32) for color in ((0.9, 0.5, 0.3), (1.0, 1.0, 1.0), (0.2, 0.3, 0.5)))
MATERIALS = [
    MaterialData(WHITE, metallic=0.0, roughness=1.0),
    *(MaterialData(ORANGE, metallic, roughness) for metallic in (0.0, 1.0) for roughness in (0.3, 0.5, 0.8)),
    MaterialData(ORANGE, metallic=0.5, roughness=0.5),
    MaterialData(ORANGE, metallic=0.0, roughness=0.6, emission=BLUE),
]
SMOOTH = {"sun": 0.008, "harmonics": 0.008, "map": 0.02}
"""The largest difference of any of the nine spheres; white diffuse (the first) is held to half of it under the map."""


def with_material(shot: Shot, name: str, **changes) -> Shot:
    mesh = shot.objects[0]
    return replace(shot, name=name, objects=[replace(mesh, material=replace(mesh.material, **changes))])


def bumpy_shots(light: str) -> dict[str, tuple[Shot, float]]:
    """Shots of the bumpy egg, and how far each may differ."""
    shot = bumpy_egg(f"{light}-textures", LIGHTS[light]())
    white = with_material(shot, f"{light}-white", base_color=WHITE, metallic=0.0, roughness=1.0)
    metal = with_material(shot, f"{light}-metal", base_color=WHITE, metallic=1.0, roughness=0.5)
    return {"textures": (shot, 0.02), "white": (white, 0.02), "metal": (metal, 0.05 if light == "map" else 0.02)}


def render(blender: Blender, folder: Path, shots: list[Shot], samples: int) -> None:
    folder.mkdir()
    for shot in shots:
        write(shot, folder)
    blender.run(PICTURES, folder, samples, function="render", timeout=560)


@pytest.mark.parametrize("blender_environment", ["blender-4.5"], indirect=True)
def test_cycles_shows_the_same_materials(blender: Blender, tmp_path: Path) -> None:
    spheres = {light: sphere_grid(light, make(), MATERIALS) for light, make in LIGHTS.items()}
    bumpy = [bumpy_shots(light)[kind] for light, kind in (("sun", "white"), ("harmonics", "metal"), ("map", "textures"))]
    render(blender, tmp_path / "shots", [*spheres.values(), *(shot for shot, _ in bumpy)], samples=64)
    for light, shot in spheres.items():
        found = differences(shot, tmp_path / "shots")
        assert max(found) < SMOOTH[light], (light, found)
        assert found[0] < 0.01, (light, found)
    for shot, allowed in bumpy:
        assert differences(shot, tmp_path / "shots")[0] < allowed, shot.name


@pytest.mark.parametrize("blender_environment", ["blender-4.5"], indirect=True)
def test_a_wrong_normal_map_is_noticed(blender: Blender, tmp_path: Path) -> None:
    """Green or red the other way round, or no bumps at all, are three times as far away as what we show, or more."""
    shot = bumpy_shots("sun")["white"][0]
    render(blender, tmp_path / "shots", [shot], samples=64)
    right = differences(shot, tmp_path / "shots")[0]
    normal = shot.objects[0].material.normal
    for change in ([1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [0.0, 0.0, 1.0]):
        wrong = with_material(shot, shot.name, normal=normal * np.array(change, dtype=np.float32))
        assert differences(wrong, tmp_path / "shots")[0] > 3.0 * right, change


@pytest.mark.slow
def test_cycles_shows_the_same_materials_at_many_roughnesses(blender: Blender, tmp_path: Path) -> None:
    roughness = np.linspace(0.3, 1.0, 9)
    shots = []
    for light, make in LIGHTS.items():
        for metallic in (0.0, 1.0):
            materials = [MaterialData(ORANGE, metallic, float(each)) for each in roughness]
            shots.append((sphere_grid(f"{light}-{metallic}", make(), materials), 0.03 if light == "map" else 0.006))
        shots += bumpy_shots(light).values()
    render(blender, tmp_path / "shots", [shot for shot, _ in shots], samples=256)
    for shot, allowed in shots:
        found = differences(shot, tmp_path / "shots")
        print(blender.name, shot.name, [round(each, 4) for each in found])
        assert max(found) < allowed, (shot.name, found)
