"""Baked textures against the surface they came from; charts whose colors must not mix, at many resolutions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.errors import InputError
from backend.rendering import highest_safe_level, interpolate, rasterize, screen_derivatives, texture, to_clip_space
from backend.representations.bake import bake_colors, dilate_seams, transfer_material
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import cube, cylinder, icosphere
from backend.representations.texel_map import map_texels
from backend.representations.unwrap import unwrap

SHAPES = {"cube": cube(4), "ball": icosphere(2), "cylinder": cylinder(16)}


def painted(shape: MeshData, size: int) -> MeshData:
    """The shape with smooth vertex colors and texture coordinates."""
    return unwrap(replace(shape, colors=(0.5 + 0.5 * np.sin(3.0 * shape.positions)).astype(np.float32)), size)


def on_surface(mesh: MeshData, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random faces and barycentrics."""
    rng = np.random.default_rng(seed)
    return rng.integers(len(mesh.faces), size=count), rng.dirichlet([1.0] * 3, size=count)


def looked_up(image: np.ndarray, mesh: MeshData, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    uv = np.einsum("pk,pkc->pc", weights, mesh.uvs[mesh.uv_faces[face]]).astype(np.float32)
    return texture(torch.from_numpy(image), torch.from_numpy(uv).view(1, 1, -1, 2))[0, 0].numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_baked_texture_shows_the_vertex_colors(shape) -> None:
    errors = []
    for size in (128, 256):
        mesh = painted(SHAPES[shape], size)
        face, weights = on_surface(mesh, 4000)
        expected = np.einsum("pk,pkc->pc", weights, mesh.colors[mesh.faces[face]])
        errors.append(np.abs(looked_up(bake_colors(mesh, size).base_color, mesh, face, weights) - expected))
    assert errors[0].max() < 0.1 and errors[1].max() < 0.05  # at the rims of charts, half a texel beside the color
    assert errors[1].mean() < 0.6 * errors[0].mean() < 0.01


@pytest.mark.parametrize("shape", ["cube", "ball"])
def test_no_chart_s_color_shows_on_another(shape) -> None:
    size = 256
    mesh = unwrap(SHAPES[shape], size)
    texels = map_texels(mesh, size, size)
    colors = np.random.default_rng(1).random((texels.chart.max() + 1, 3)).astype(np.float32)
    image = np.zeros((size, size, 3), dtype=np.float32)
    image[texels.covered] = colors[texels.chart[texels.face[texels.covered]]]
    reach = int(texels.margin)
    dilated = torch.from_numpy(dilate_seams(image, texels.covered, reach))
    level = highest_safe_level(size, size, texels.margin)
    vertices, faces, uvs, uv_faces = (
        torch.from_numpy(array) for array in (mesh.positions, mesh.faces, mesh.uvs, mesh.uv_faces)
    )
    cameras = Cameras.orbit([20.0, 140.0, 260.0], 25.0)
    clip = to_clip_space(vertices, cameras.clip_matrix())
    foreign = {}
    for resolution in (7, 16, 33, 64, 150, 300):
        fragments = rasterize(clip, faces, resolution, resolution)
        uv = interpolate(uvs, fragments, uv_faces)
        derivatives = screen_derivatives(uvs, fragments, clip, faces, uv_faces)
        covered = fragments.face_id >= 0
        own = torch.from_numpy(colors[texels.chart])[fragments.face_id[covered].long()]
        for name, picture, highest in (("safe", dilated, level), ("any level", dilated, None), ("black", torch.from_numpy(image), level)):
            seen = texture(picture, uv, derivatives, filter="trilinear", highest_level=highest)[covered]
            foreign[name, resolution] = float((seen - own).abs().max())
        foreign["linear", resolution] = float((texture(dilated, uv)[covered] - own).abs().max())
    for resolution in (7, 16, 33, 64, 150, 300):
        assert foreign["safe", resolution] < 1e-5 and foreign["linear", resolution] < 1e-5, resolution
    # The test can fail: without dilation and without the limit the colors do mix.
    assert max(value for (name, _), value in foreign.items() if name == "black") > 0.1
    assert max(value for (name, _), value in foreign.items() if name == "any level") > 0.1


def test_a_texture_moves_to_other_texture_coordinates_of_the_same_surface() -> None:
    source = painted(SHAPES["ball"], 256)
    material = replace(
        bake_colors(source, 256), metallic=np.full((8, 8), 0.25, np.float32), roughness=0.3, name="Paint",
        normal=np.broadcast_to(np.float32([0, 0, 1]), (4, 4, 3)), emission=np.zeros(3, np.float32),
    )
    source = replace(source, material=material)
    target = unwrap(replace(SHAPES["ball"], positions=SHAPES["ball"].positions[:, [1, 2, 0]]), 128)
    target = replace(target, positions=SHAPES["ball"].positions)  # charts that run across the source's
    moved = transfer_material(source, target, 256)
    face, weights = on_surface(target, 3000)
    seen, expected = looked_up(moved.base_color, target, face, weights), looked_up(material.base_color, source, face, weights)
    error = np.abs(seen - expected)
    assert error.mean() < 0.01 and error.max() < 0.12
    np.testing.assert_allclose(moved.metallic, 0.25, atol=1e-6)
    assert moved.metallic.shape == (256, 256) and moved.normal.shape == (256, 256, 3)
    assert moved.roughness == 0.3 and moved.emission is material.emission and moved.name == "Paint"


def test_a_texture_moves_to_another_mesh_of_the_same_shape() -> None:
    source = painted(icosphere(3), 256)
    source = replace(source, material=bake_colors(source, 256))
    target = unwrap(icosphere(2), 128)
    moved = transfer_material(source, target, 128)
    face, weights = on_surface(target, 2000)
    point = np.einsum("pk,pkc->pc", weights, target.positions[target.faces[face]])
    point *= 0.6 / np.linalg.norm(point, axis=1, keepdims=True)
    assert np.abs(looked_up(moved.base_color, target, face, weights) - (0.5 + 0.5 * np.sin(3.0 * point))).max() < 0.06


def test_dilation_takes_the_nearest_covered_texel_and_keeps_all_else() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((20, 30, 3)).astype(np.float32)
    covered = rng.random((20, 30)) < 0.04
    for reach in (0, 1, 3):
        dilated = dilate_seams(image, covered, reach)
        for row, column in np.ndindex(20, 30):
            place = np.argwhere(covered)
            distance = np.abs(place - (row, column)).max(1)
            if covered[row, column] or distance.min() > reach:
                assert (dilated[row, column] == image[row, column]).all()
            else:
                nearest = place[distance == distance.min()]
                assert any((dilated[row, column] == image[r, c]).all() for r, c in nearest)
    np.testing.assert_array_equal(dilate_seams(image, np.zeros((20, 30), bool), 4), image)


def test_what_cannot_be_baked_is_refused_in_a_sentence() -> None:
    mesh = painted(SHAPES["cube"], 64)
    with pytest.raises(InputError, match="no vertex colors"):
        bake_colors(replace(mesh, colors=None), 64)
    with pytest.raises(InputError, match="unwrap it first"):
        bake_colors(replace(mesh, uvs=None, uv_faces=None), 64)
    with pytest.raises(InputError, match="use 1 to 8192"):
        bake_colors(mesh, 0)
    with pytest.raises(InputError, match="no material"):
        transfer_material(mesh, mesh, 64)
    with pytest.raises(InputError, match="dilate_seams needs"):
        dilate_seams(np.zeros((4, 4, 3)), np.zeros((4, 5), bool), 1)
    assert isinstance(bake_colors(mesh, 16), MaterialData)
