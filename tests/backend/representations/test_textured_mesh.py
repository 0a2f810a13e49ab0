"""The textured mesh as a representation: what comes back untouched, what is learned, how it resumes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replace_settings

from backend.cameras import Cameras
from backend.errors import InputError
from backend.rendering import SphericalHarmonics, build_topology, headlight
from backend.representations.bake import bake_colors
from backend.representations.large_steps import AdamUniform
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import cube, cylinder, icosphere
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from backend.representations.unwrap import unwrap
from protocol.settings import MeshStage

SETTINGS = MeshStage(steps=1, supersample=1, texture_size=64)


def painted(shape: MeshData, size: int = 64) -> MeshData:
    mesh = unwrap(replace(shape, colors=(0.5 + 0.4 * np.sin(5.0 * shape.positions)).astype(np.float32)), size)
    return replace(mesh, material=bake_colors(mesh, size))


def artists(seed: int = 0) -> MeshData:
    """8-bit pictures of several sizes that also fill what lies between the charts, as artists' files have them."""
    rng = np.random.default_rng(seed)

    def picture(*shape: int) -> np.ndarray:
        return (rng.integers(0, 256, shape).astype(np.float32) / np.float32(255.0)).astype(np.float32)

    normal = np.concatenate([0.2 * rng.normal(size=(16, 8, 2)), np.ones((16, 8, 1))], axis=2).astype(np.float32)
    material = MaterialData(picture(48, 40, 3), picture(32, 32), 0.7, normal, np.float32([0.1, 0.0, 0.2]), "Lackier-Blech ü")
    mesh = unwrap(icosphere(2), 64)
    return replace(mesh, positions=mesh.positions * np.float32(1.1), colors=rng.random((162, 3), np.float32), material=material)


def step(mesh: TexturedMesh, shading: str = "material") -> None:
    positions, textures = mesh.parameter_groups()
    owners = [AdamUniform(positions["params"], 0.01), torch.optim.Adam(textures["params"], 0.02)]
    for owner in owners:
        owner.zero_grad()
    image = mesh.render(Cameras.orbit([30.0], 20.0), 12, None, shading)
    (image.rgb.sum() + image.alpha.sum()).backward()
    for owner in owners:
        owner.step()


def assert_same_bits(one: object, other: object) -> None:
    assert (one is None) == (other is None)
    if one is not None:
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_what_nothing_moved_or_colored_comes_back_bit_for_bit() -> None:
    data = artists()
    mesh = TexturedMesh(data, SETTINGS)
    (mesh.vertices().sum() * 0.0 + sum(values.sum() * 0.0 for values in mesh.textures.values())).backward()
    for group in mesh.parameter_groups():
        (AdamUniform if group["name"] == "positions" else torch.optim.Adam)(group["params"], 0.1).step()
    back = mesh.to_mesh()
    for name in ("positions", "faces", "colors", "uvs", "uv_faces"):
        assert_same_bits(getattr(back, name), getattr(data, name))
    for name in ("base_color", "metallic", "roughness", "normal", "emission"):
        assert_same_bits(getattr(back.material, name), getattr(data.material, name))
    assert back.material.name == data.material.name


def test_texels_that_no_view_showed_keep_their_8_bit_values() -> None:
    data = artists(1)
    mesh = TexturedMesh(data, SETTINGS)
    step(mesh, "albedo")
    back = mesh.to_mesh().material
    same = (back.base_color == data.material.base_color).all(axis=2)
    touched = (mesh.textures["base_color"].grad != 0.0).any(dim=2).numpy()
    assert 0.1 < same.mean() < 0.95 and touched.any()
    assert_same_bits(back.base_color[same], data.material.base_color[same])
    # The renders did not show the metallic picture, so it is as it was.
    assert_same_bits(back.metallic, data.material.metallic)


def test_a_mesh_without_texture_coordinates_or_color_gets_both_only_when_painted() -> None:
    mesh = TexturedMesh(MeshData(cube(3).positions, cube(3).faces), SETTINGS)
    back = mesh.to_mesh()
    assert back.colors is None and back.material is None and back.uvs is not None
    step(mesh, "albedo")
    painted_mesh = mesh.to_mesh()
    assert painted_mesh.material.base_color.shape == (64, 64, 3)
    assert painted_mesh.colors.shape == (len(cube(3).positions), 3)
    assert (painted_mesh.colors != 0.5).any()


def test_vertex_colors_become_a_texture_that_looks_like_them() -> None:
    shape = replace(icosphere(3), colors=painted(icosphere(3)).colors)
    cameras = Cameras.orbit([20.0, 200.0], 15.0)
    for shading in ("albedo", "lit", "textureless", "normal"):
        with torch.no_grad():
            one = TexturedMesh(shape, replace_size(256)).render(cameras, 40, headlight(cameras), shading)
            other = TriangleMesh(shape, SETTINGS).render(cameras, 40, headlight(cameras), shading)
        assert (one.alpha - other.alpha).abs().max() < 1e-5
        assert (one.rgb - other.rgb).abs().mean() < 2e-3 and (one.rgb - other.rgb).abs().max() < 0.08


def replace_size(size: int) -> MeshStage:
    return MeshStage(steps=1, supersample=1, texture_size=size)


def test_the_wire_s_vertex_colors_are_the_texture_s() -> None:
    data = painted(icosphere(3), 256)
    mesh = TexturedMesh(replace(data, colors=None), replace_size(256))
    with torch.no_grad():
        mesh.textures["base_color"].mul_(0.5)
    result = mesh.to_mesh()
    np.testing.assert_allclose(result.colors, 0.5 * data.colors, atol=0.02)
    # Colors that came along stay where the texture did not change: here everywhere but on the upper half.
    mesh = TexturedMesh(data, replace_size(256))
    with torch.no_grad():
        mesh.textures["base_color"][:128] *= 0.5
    result = mesh.to_mesh()
    same = (result.colors == data.colors).all(axis=1)
    assert 0.2 < same.mean() < 0.8


def test_seams_of_the_texture_are_no_silhouettes() -> None:
    """A box whose vertices are split at every edge looks as the joined one does, and no edge of it is a boundary."""
    box = painted(cube(2), 64)
    split = MeshData(
        box.positions[box.faces.reshape(-1)], np.arange(box.faces.size, dtype=np.int32).reshape(-1, 3), None, box.uvs, box.uv_faces, box.material
    )
    joined, apart = TexturedMesh(box, SETTINGS), TexturedMesh(split, SETTINGS)
    assert (joined.surface.topology.opposite >= 0).all() and (apart.surface.topology.opposite >= 0).all()
    assert (build_topology(apart.faces).opposite < 0).any()
    cameras = Cameras.orbit([33.0], 20.0)
    with torch.no_grad():
        one, other = (mesh.render(cameras, 48, None, "albedo") for mesh in (joined, apart))
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-5, rtol=0.0)
    assert len(apart.displacement) == len(box.positions)


def test_shape_and_texture_are_learned_from_pictures() -> None:
    goal_shape = icosphere(2)
    tall = replace(painted(goal_shape), positions=goal_shape.positions * np.float32([0.8, 1.3, 0.8]))
    goal = TexturedMesh(tall, SETTINGS)
    mesh = TexturedMesh(replace(goal_shape, colors=None), SETTINGS)
    positions, textures = mesh.parameter_groups()
    assert (positions["name"], textures["name"]) == ("positions", "texture")
    owners = [AdamUniform(positions["params"], 0.02), torch.optim.Adam(textures["params"], 0.05)]
    losses = []
    for turn in range(50):
        cameras = Cameras.orbit([25.0 * turn + 120.0 * k for k in range(3)], 40.0 * (turn % 3 - 1))
        with torch.no_grad():
            target = goal.render(cameras, 24, None, "albedo")
        image = mesh.render(cameras, 24, None, "albedo")
        loss = (image.rgb - target.rgb).square().mean() + (image.alpha - target.alpha).square().mean()
        for owner in owners:
            owner.zero_grad()
        (loss + 0.02 * sum(mesh.regularization().values())).backward()
        for owner in owners:
            owner.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.08 * np.mean(losses[:3])
    result = mesh.to_mesh()
    assert 1.35 < np.ptp(result.positions[:, 1]) / np.ptp(result.positions[:, 0]) < 1.9
    assert np.abs(result.colors - tall.colors).mean() < 0.1


def test_texels_at_the_border_of_the_range_feel_only_the_pull_back_inside() -> None:
    mesh = TexturedMesh(painted(icosphere(1)), SETTINGS)
    with torch.no_grad():
        mesh.textures["base_color"][:] = 1.2
    image = mesh.render(Cameras.orbit([0.0], 0.0), 16, None, "albedo")
    assert image.rgb.max() <= 1.0 + 1e-5
    (-image.rgb.sum()).backward()
    assert mesh.textures["base_color"].grad.abs().max() == 0.0
    mesh.render(Cameras.orbit([0.0], 0.0), 16, None, "albedo").rgb.sum().backward()
    assert mesh.textures["base_color"].grad.max() > 0.0


def test_texels_beside_the_charts_follow_and_hand_their_gradient_on() -> None:
    """A uniform pull on all that is shown: each texel of the surface feels itself and those that follow it."""
    mesh = TexturedMesh(painted(icosphere(1)), SETTINGS)
    layer = mesh.appearance._layers["base_color"]
    with torch.no_grad():
        mesh.textures["base_color"].copy_(0.2 + 0.6 * torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0)))
    shown = layer.shown()
    covered = torch.from_numpy(layer._texels.covered)
    source, distance = (torch.from_numpy(array) for array in layer._texels.nearest)
    beside = (distance == 1) & ~covered
    assert torch.equal(shown[beside], mesh.textures["base_color"].view(-1, 3)[source[beside]])
    weight = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    (weight * beside[..., None] * shown).sum().backward()
    expected = torch.zeros(64 * 64, 3).index_add(0, source[beside], weight[beside])
    torch.testing.assert_close(mesh.textures["base_color"].grad.view(-1, 3), expected)


def test_unusable_texture_coordinates_are_replaced_and_the_picture_moves_along() -> None:
    data = painted(cylinder(24), 256)
    doubled = replace(  # every face twice over the same texels: a stack
        data, faces=np.concatenate([data.faces, data.faces]), uv_faces=np.concatenate([data.uv_faces, data.uv_faces]),
        positions=data.positions,
    )
    apart = replace(
        doubled, faces=np.concatenate([data.faces, data.faces + len(data.positions)]), colors=None,
        positions=np.concatenate([data.positions, data.positions * 0.5]),
    )
    mesh = TexturedMesh(apart, replace_size(256))
    back = mesh.to_mesh()
    assert back.uvs.shape != data.uvs.shape or (back.uvs != data.uvs).any()
    outer = mesh.appearance.vertex_colors()[: len(data.positions)]
    assert np.abs(outer - data.colors).mean() < 0.02


def test_the_state_restores_exactly_with_every_texture() -> None:
    straight = TexturedMesh(artists(3), SETTINGS)
    step(straight)
    resumed = TexturedMesh(painted(cube(2)), SETTINGS)
    resumed.load_state_dict({name: value.clone() for name, value in straight.state_dict().items()})
    for mesh in (straight, resumed):
        step(mesh)
        step(mesh, "lit")
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    one, other = straight.to_mesh(), resumed.to_mesh()
    for name in ("positions", "faces", "colors", "uvs", "uv_faces"):
        assert_same_bits(getattr(one, name), getattr(other, name))
    for name, value in vars(one.material).items():
        assert_same_bits(value, getattr(other.material, name)) if name != "name" else None
    assert one.material.name == other.material.name == "Lackier-Blech ü"
    twin = copy.deepcopy(straight.state_dict())
    step(straight)
    assert any(not torch.equal(twin[name], value) for name, value in straight.state_dict().items())  # they were copies


def test_materials_are_lit_by_their_environment_with_gradients_to_every_texture() -> None:
    mesh = TexturedMesh(artists(4), SETTINGS)
    sky = SphericalHarmonics(torch.full((9, 3), 0.1) + torch.tensor([1.0] + [0.0] * 8)[:, None])
    image = mesh.render(Cameras.orbit([0.0, 120.0, 240.0], 10.0), 16, sky, "material")
    image.rgb.square().sum().backward()
    for name, values in mesh.textures.items():
        assert torch.isfinite(values.grad).all() and values.grad.abs().max() > 0.0, name
    assert mesh.displacement.grad.abs().max() > 0.0
    assert list(mesh.textures) == ["base_color", "metallic", "normal"]


def test_meshes_that_cannot_carry_a_texture_are_refused() -> None:
    for data in (MeshData(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32)),
                 replace(painted(cube(2)), uvs=painted(cube(2)).uvs + np.float32(1.0))):
        with pytest.raises(InputError):
            TexturedMesh(data, SETTINGS)
    assert not TexturedMesh(painted(cube(2)), SETTINGS).remesh(100)


def test_silhouettes_are_those_of_the_settings() -> None:
    start, cameras = painted(icosphere(1)), Cameras.orbit([30.0], 20.0)
    hard = TexturedMesh(start, replace_settings(SETTINGS, silhouettes="edge-gradient"))
    image = hard.render(cameras, 16, None, "albedo")
    assert set(image.alpha.unique().tolist()) == {0.0, 1.0}, "values stay hard"
    (image.alpha[..., 0] * torch.linspace(-1.0, 1.0, 16)).sum().backward()
    assert hard.displacement.grad.abs().max() > 0.01, "and still move the outline"
    blended = TexturedMesh(start, SETTINGS).render(cameras, 16, None, "albedo")
    assert len(blended.alpha.unique()) > 10
    with pytest.raises(InputError, match='"soft" silhouettes'):
        TexturedMesh(start, replace_settings(SETTINGS, silhouettes="soft"))
