"""Masked vertices and texels keep their bits through optimizers, momentum and smoothing; soft borders and resuming."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.errors import InputError
from backend.representations.bake import bake_colors
from backend.representations.large_steps import AdamUniform, Preconditioner, unique_edges
from backend.representations.masks import checked_mask, let_through, texel_mask, vertex_mask
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere
from backend.representations.soundness import soundness
from backend.representations.texel_map import map_texels
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from backend.representations.unwrap import unwrap
from protocol.settings import MeshStage

SIZE = 64
SETTINGS = MeshStage(steps=1, supersample=1, texture_size=SIZE)


def awkward(seed: int) -> MeshData:
    """A ball of floats with all bits set, colored."""
    rng = np.random.default_rng(seed)
    ball = icosphere(2)
    positions = (ball.positions * (1.0 + 0.1 * rng.random((len(ball.positions), 1)))).astype(np.float32)
    return MeshData(positions, ball.faces, rng.random(positions.shape, dtype=np.float32))


def textured(seed: int) -> MeshData:
    """The same with an 8-bit picture, roughness and normals."""
    rng = np.random.default_rng(seed)
    mesh = unwrap(awkward(seed), SIZE)
    material = bake_colors(mesh, SIZE)
    base_color = np.rint(material.base_color * 255.0).astype(np.uint8).astype(np.float32) / np.float32(255.0)
    normal = rng.normal(size=(SIZE // 2, SIZE // 2, 3)).astype(np.float32) * 0.2 + np.float32([0, 0, 1])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return replace(mesh, material=replace(material, base_color=base_color, roughness=rng.random((SIZE, SIZE), dtype=np.float32), normal=normal))


def soft_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A third kept, a third free, a third between."""
    return np.clip(rng.random(shape) * 3.0 - 1.0, 0.0, 1.0).astype(np.float32)


def optimizers(mesh: TriangleMesh | TexturedMesh) -> list[torch.optim.Optimizer]:
    positions, others = mesh.parameter_groups()
    return [AdamUniform(positions["params"], 0.02), torch.optim.Adam(others["params"], 0.05)]


def optimize(mesh: TriangleMesh | TexturedMesh, steps: int, owners: list | None = None, shading: str = "lit") -> list:
    """Toward something that pulls at all vertices and texels; the target changes, so that momentum runs on."""
    owners = optimizers(mesh) if owners is None else owners
    for step in range(steps):
        for owner in owners:
            owner.zero_grad()
        image = mesh.render(Cameras.orbit([70.0 * step, 70.0 * step + 170.0], 30.0 * (step % 3 - 1)), 12, None, shading)
        pull = (mesh.vertices() * (1.0 if step < 8 else -1.0)).sum() + mesh.vertices().square().sum()
        (image.rgb.sum() - image.alpha.sum() + 0.1 * pull + sum(mesh.regularization().values())).backward()
        for owner in owners:
            owner.step()
    return owners


@pytest.mark.parametrize("seed", [0, 1])
def test_masked_vertices_keep_their_bits_over_50_steps(seed) -> None:
    data = awkward(seed)
    mask = soft_mask(np.random.default_rng(seed), (len(data.positions),))
    mesh = TriangleMesh(data, SETTINGS, mask=mask)
    optimize(mesh, 50)
    result = mesh.to_mesh()
    kept = mask == 0.0
    assert 20 < kept.sum() < len(mask) - 20
    assert result.positions[kept].tobytes() == data.positions[kept].tobytes()
    assert result.colors[kept].tobytes() == data.colors[kept].tobytes()
    assert (result.positions[~kept] != data.positions[~kept]).any(axis=1).all()
    assert (result.colors[~kept] != data.colors[~kept]).any(axis=1).mean() > 0.95
    # What is optimized is what is returned: nothing is put back afterwards that the renders did not show.
    assert mesh.vertices().detach().numpy()[kept].tobytes() == data.positions[kept].tobytes()
    np.testing.assert_array_equal(mesh.vertices().detach().numpy(), result.positions)


@pytest.mark.parametrize("seed", [0])
def test_masked_texels_keep_their_bits_over_50_steps(seed) -> None:
    data = textured(seed)
    rng = np.random.default_rng(seed)
    vertices, texels = soft_mask(rng, (len(data.positions),)), soft_mask(rng, (SIZE, SIZE))
    mesh = TexturedMesh(data, SETTINGS, vertex_mask=vertices, texel_mask=texels)
    owners = optimize(mesh, 25)
    optimize(mesh, 25, owners, "material")  # this one shows roughness and normals too
    result = mesh.to_mesh()
    kept, still = texels == 0.0, vertices == 0.0
    before, after = data.material, result.material
    assert result.positions[still].tobytes() == data.positions[still].tobytes()
    assert after.base_color[kept].tobytes() == before.base_color[kept].tobytes()
    assert after.roughness[kept].tobytes() == before.roughness[kept].tobytes()
    kept_normals = kept.reshape(SIZE // 2, 2, SIZE // 2, 2).any(axis=(1, 3))
    assert after.normal[kept_normals].tobytes() == before.normal[kept_normals].tobytes()
    free = (texels > 0.0) & map_texels(data, SIZE, SIZE).covered
    assert (after.base_color[free] != before.base_color[free]).any(axis=1).mean() > 0.8
    assert (after.roughness[free] != before.roughness[free]).mean() > 0.5
    assert np.rint(after.base_color[kept] * 255.0).astype(np.uint8).tobytes() == np.rint(before.base_color[kept] * 255.0).astype(np.uint8).tobytes()
    np.testing.assert_array_equal(result.uvs, data.uvs)
    np.testing.assert_array_equal(result.faces, data.faces)


def test_a_mask_of_vertices_alone_holds_the_texels_of_its_faces() -> None:
    data = textured(2)
    mask = (data.positions[:, 1] > 0.05).astype(np.float32)
    mesh = TexturedMesh(data, SETTINGS, vertex_mask=mask)
    optimize(mesh, 6)
    result = mesh.to_mesh()
    texels = map_texels(data, SIZE, SIZE)
    held = texels.covered & (mask[data.faces].max(axis=1) == 0.0)[texels.face]
    assert held.sum() > 100
    assert result.material.base_color[held].tobytes() == data.material.base_color[held].tobytes()
    assert (result.material.base_color[texels.covered & ~held] != data.material.base_color[texels.covered & ~held]).any()


@pytest.mark.parametrize("smoothing", [0.0, 3.0, 50.0])
def test_fixed_vertices_are_dirichlet_conditions_of_a_positive_definite_system(smoothing) -> None:
    ball = icosphere(1)
    count = len(ball.positions)
    edges = unique_edges(torch.as_tensor(ball.faces))
    fixed = np.random.default_rng(0).random(count) < 0.4
    system = np.eye(count)
    for a, b in edges.numpy():
        system[[a, b], [a, b]] += smoothing
        system[[a, b], [b, a]] -= smoothing
    inner = system[np.ix_(~fixed, ~fixed)]
    assert (inner == inner.T).all() and np.linalg.eigvalsh(inner).min() >= 1.0 - 1e-9
    solver = Preconditioner(count, edges, smoothing, torch.from_numpy(fixed))
    u, pull = np.random.default_rng(1).normal(size=(2, count, 3))
    expected, adjoint = np.zeros((2, count, 3))
    expected[~fixed] = np.linalg.solve(inner, u[~fixed])
    adjoint[~fixed] = np.linalg.solve(inner, pull[~fixed])
    parameters = torch.tensor(u, dtype=torch.float32, requires_grad=True)
    smooth = solver.smooth(parameters)
    np.testing.assert_allclose(smooth.detach().numpy(), expected, atol=2e-6)
    smooth.backward(torch.tensor(pull, dtype=torch.float32))
    np.testing.assert_allclose(parameters.grad.numpy(), adjoint, atol=2e-6)
    assert (smooth.detach().numpy()[fixed] == 0.0).all() and (parameters.grad.numpy()[fixed] == 0.0).all()


def test_smoothing_stops_at_a_ring_of_kept_vertices() -> None:
    """A pull at the north pole does not reach beyond a kept belt; without the mask it does."""
    ball = icosphere(3)
    height = ball.positions[:, 1] / 0.6
    mask = (np.abs(height) > 0.2).astype(np.float32)

    def moved(mask: np.ndarray | None) -> np.ndarray:
        mesh = TriangleMesh(ball, MeshStage(steps=1, smoothing=50.0), mask=mask)
        mesh.vertices()[int(height.argmax())].sum().backward()
        return mesh.displacement.grad.abs().sum(1).numpy()

    south = height < -0.2
    assert moved(None)[south].max() > 0.0
    assert moved(mask)[south].max() == 0.0 and moved(mask)[height > 0.2].min() > 0.0


def test_everything_masked_stays_and_everything_free_is_as_without_a_mask() -> None:
    data = awkward(3)
    still = TriangleMesh(data, SETTINGS, mask=np.zeros(len(data.positions)))
    optimize(still, 3)
    assert still.to_mesh().positions.tobytes() == data.positions.tobytes()
    assert still.to_mesh().colors.tobytes() == data.colors.tobytes()
    free, plain = TriangleMesh(data, SETTINGS, mask=np.ones(len(data.positions))), TriangleMesh(data, SETTINGS)
    for mesh in (free, plain):
        optimize(mesh, 3)
    np.testing.assert_array_equal(free.to_mesh().positions, plain.to_mesh().positions)
    np.testing.assert_array_equal(free.to_mesh().colors, plain.to_mesh().colors)


def test_copies_of_a_vertex_at_one_place_stay_together_and_one_mask_holds_them_all() -> None:
    box = cube(3)
    split = MeshData(box.positions[box.faces.reshape(-1)], np.arange(box.faces.size, dtype=np.int32).reshape(-1, 3))
    mask = np.ones(len(split.positions), dtype=np.float32)
    mask[0] = 0.0
    mesh = TriangleMesh(split, SETTINGS, mask=mask)
    assert len(mesh.displacement) == len(box.positions)
    optimize(mesh, 4)
    result = mesh.to_mesh().positions
    _, place = np.unique(split.positions, axis=0, return_inverse=True)
    place = place.reshape(-1)
    for one in range(place.max() + 1):
        assert len(np.unique(result[place == one], axis=0)) == 1
    twins = place == place[0]
    assert twins.sum() > 1 and result[twins].tobytes() == split.positions[twins].tobytes()
    assert (result[~twins] != split.positions[~twins]).any(axis=1).all()


@pytest.mark.parametrize("kind", [TriangleMesh, TexturedMesh])
def test_a_masked_run_resumes_bit_for_bit(kind) -> None:
    data = textured(4) if kind is TexturedMesh else awkward(4)
    mask = soft_mask(np.random.default_rng(4), (len(data.positions),))
    straight = kind(data, SETTINGS, "cpu", mask)
    owners = optimize(straight, 3)
    state = {name: value.clone() for name, value in straight.state_dict().items()}
    resumed = kind(MeshData(state["start"].numpy(), state["faces"].numpy(), None, *(
        (state["uvs"].numpy(), state["uv_faces"].numpy()) if kind is TexturedMesh else (None, None)
    )), SETTINGS)
    resumed.load_state_dict(state)
    twins = optimizers(resumed)
    for twin, owner in zip(twins, owners):
        twin.load_state_dict(copy.deepcopy(owner.state_dict()))
    optimize(straight, 3, owners)
    optimize(resumed, 3, twins)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    one, other = straight.to_mesh(), resumed.to_mesh()
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.colors, other.colors)
    if kind is TexturedMesh:
        assert one.material.base_color.tobytes() == other.material.base_color.tobytes()
        assert one.material.name == other.material.name


def test_remeshing_goes_around_what_a_mask_keeps() -> None:
    rng = np.random.default_rng(6)
    ball = icosphere(3)
    data = MeshData(ball.positions, ball.faces, rng.random(ball.positions.shape, dtype=np.float32))
    mask = np.clip(5.0 * (data.positions[:, 1] + 0.2), 0.0, 1.0).astype(np.float32)
    mesh = TriangleMesh(data, MeshStage(steps=1, remesh_every=5), mask=mask)
    kept = mask == 0.0
    optimize(mesh, 3)
    assert mesh.remesh(300)
    optimize(mesh, 5)
    result = mesh.to_mesh()
    assert soundness(result).sound and 200 < len(result.positions) < 600
    rows = {row.tobytes() for row in np.concatenate([result.positions, result.colors], axis=1)}
    assert 100 < kept.sum() and all(
        row.tobytes() in rows for row in np.concatenate([data.positions, data.colors], axis=1)[kept]
    )
    after = mesh.surface.mask.numpy()
    assert (after == 0.0).sum() == kept.sum() and after.max() == 1.0


def test_let_through_holds_bits_and_gradients() -> None:
    start = torch.tensor([0.1, -0.0, 0.3, 0.7])
    values = torch.tensor([float("nan"), 5.0, 0.9, 1.0], requires_grad=True)
    mask = torch.tensor([0.0, 0.0, 0.5, 1.0])
    out = let_through(start, values, mask)
    assert out.detach().numpy()[:2].tobytes() == start.numpy()[:2].tobytes()
    assert out[3].item() == 1.0 and out[2].item() == pytest.approx(0.6)
    out.sum().backward()
    assert values.grad.tolist() == [0.0, 0.0, 0.5, 1.0]


def test_masks_go_from_texels_to_vertices_and_back() -> None:
    data = textured(5)
    texels = map_texels(data, 64, 64)
    mask = (data.positions[:, 0] > 0).astype(np.float32)
    image = texel_mask(mask, data, texels)
    assert image.min() == 0.0 and image.max() == 1.0
    back = vertex_mask(image, data).numpy()
    clear = np.abs(data.positions[:, 0]) > 0.25
    np.testing.assert_allclose(back[clear], mask[clear], atol=0.05)


def test_what_is_no_mask_is_refused_in_a_sentence() -> None:
    data = awkward(0)
    for mask, words in ((np.ones(3), "The mask has shape"), (np.full(len(data.positions), 1.5), "outside"),
                        (np.full(len(data.positions), np.nan), "outside")):
        with pytest.raises(InputError, match=words):
            TriangleMesh(data, SETTINGS, mask=mask)
    with pytest.raises(InputError, match="texels of the base color"):
        TexturedMesh(textured(0), SETTINGS, texel_mask=np.ones((8, 8)))
    with pytest.raises(InputError, match="unwrap it first"):
        vertex_mask(np.ones((4, 4)), data)
    with pytest.raises(InputError, match="has shape"):
        checked_mask(np.ones((2, 2)), (2,), "vertices")
