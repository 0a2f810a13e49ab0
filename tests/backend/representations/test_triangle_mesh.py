"""The preconditioner, its optimizer, the regularizers and the optimized mesh, against dense algebra and closed forms."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.rendering import headlight
from backend.representations.closest_point import closest_points, transfer_attributes
from backend.representations.large_steps import AdamUniform, Preconditioner, unique_edges
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_regularizers import MeshRegularizers
from backend.representations.primitives import cube, cylinder, icosphere
from backend.representations.soundness import soundness
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import MeshStage

FREE = MeshStage(steps=1, remesh_every=10)
LOCKED = MeshStage(steps=1)


def dense_system(faces: np.ndarray, count: int, smoothing: float) -> np.ndarray:
    adjacency = np.zeros((count, count))
    for a, b, c in faces:
        for i, j in ((a, b), (b, c), (c, a)):
            adjacency[i, j] = adjacency[j, i] = 1.0
    return np.eye(count) + smoothing * (np.diag(adjacency.sum(1)) - adjacency)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 19.0])
def test_preconditioner_solves_the_large_steps_system_and_its_adjoint(smoothing):
    ball = icosphere(1)
    count = len(ball.positions)
    inverse = np.linalg.inv(dense_system(ball.faces, count, smoothing))
    preconditioner = Preconditioner(count, unique_edges(torch.as_tensor(ball.faces)), smoothing)
    rng = np.random.default_rng(0)
    u, pull = rng.normal(size=(2, count, 3))
    parameters = torch.tensor(u, dtype=torch.float32, requires_grad=True)
    smooth = preconditioner.smooth(parameters)
    np.testing.assert_allclose(smooth.detach().numpy(), inverse @ u, atol=2e-6)
    smooth.backward(torch.tensor(pull, dtype=torch.float32))
    np.testing.assert_allclose(parameters.grad.numpy(), inverse.T @ pull, atol=2e-6)


def test_adam_uniform_scales_a_tensor_by_its_largest_second_moment():
    rng = np.random.default_rng(1)
    parameter = torch.zeros(4, 3, requires_grad=True)
    optimizer = AdamUniform([parameter], lr=0.1, betas=(0.9, 0.99))
    value, first, second = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))
    for step in range(1, 6):
        gradient = rng.normal(size=(4, 3))
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        largest = np.sqrt(second.max() / (1 - 0.99**step))
        value -= 0.1 * (first / (1 - 0.9**step)) / largest
    np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-5, atol=1e-7)


def test_adam_uniform_ignores_zero_gradients_and_resumes_exactly():
    parameter = torch.ones(3, requires_grad=True)
    optimizer = AdamUniform([parameter], lr=0.1)
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3))
    parameter.grad = torch.tensor([1.0, -2.0, 0.5])
    optimizer.step()
    twin = parameter.detach().clone().requires_grad_()
    resumed = AdamUniform([twin], lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, owner in ((parameter, optimizer), (twin, resumed)):
        each.grad = torch.tensor([0.3, 0.2, -0.1])
        owner.step()
    assert torch.equal(parameter, twin)


def test_regularizers_have_their_closed_form_values():
    # A regular tetrahedron with edge 2 sqrt(2): each vertex is 4/3 of its length from the mean of the others.
    positions = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], dtype=torch.int32)
    numbers = MeshRegularizers(faces, 4, None)(positions)
    assert numbers["laplacian"].item() == pytest.approx((16.0 / 9.0 * 3.0) / 8.0)
    assert numbers["normal_consistency"].item() == pytest.approx(1.0 + 1.0 / 3.0)  # cos of the normals is -1/3
    assert numbers["slivers"].item() == 0.0
    flat = positions.clone()
    flat[3] = 0.95 * flat[0] + 0.05 * flat[1]
    assert MeshRegularizers(faces, 4, None)(flat)["slivers"].item() > 0.0
    scaled = MeshRegularizers(faces, 4, None)(positions * 0.01)
    for name, value in numbers.items():
        assert scaled[name].item() == pytest.approx(value.item(), rel=1e-4)


def test_regularizers_leave_an_artists_mesh_alone_and_resist_what_is_added():
    shape = cube(3)
    start = torch.as_tensor(shape.positions)
    regularizers = MeshRegularizers(torch.as_tensor(shape.faces), len(start), start)
    assert all(value.item() == 0.0 for value in regularizers(start).values())
    dented = start.clone()
    dented[0] *= 0.3
    assert regularizers(dented)["laplacian"].item() > 0.0


def test_regularizer_gradients_match_finite_differences():
    ball = icosphere(1)
    noise = 0.1 * np.random.default_rng(2).normal(size=ball.positions.shape)
    vertices = torch.tensor(ball.positions + noise, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        vertices[5] = vertices[7] + 1e-3  # a few slivers
    regularizers = MeshRegularizers(torch.as_tensor(ball.faces), len(ball.positions), None)
    unit = vertices.detach()[torch.as_tensor(ball.faces).long()]
    edge = sum((unit[:, i] - unit[:, j]).square().sum(1) for i, j in ((0, 1), (1, 2), (2, 0))).mean() / 3.0

    def without_unit(vertices):
        # The unit of length is detached on purpose (a mesh must not grow to seem smooth): hold it fixed here too.
        numbers = regularizers(vertices)
        now = vertices.detach()[torch.as_tensor(ball.faces).long()]
        scale = sum((now[:, i] - now[:, j]).square().sum(1) for i, j in ((0, 1), (1, 2), (2, 0))).mean() / 3.0
        return numbers["laplacian"] * (scale / edge), numbers["normal_consistency"], numbers["slivers"]

    assert torch.autograd.gradcheck(without_unit, (vertices,), eps=1e-6, atol=1e-5)


def test_degenerate_triangles_have_finite_gradients():
    positions = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [1, 1, 3]], dtype=torch.int32)
    sum(MeshRegularizers(faces, 4, None)(positions).values()).backward()
    assert torch.isfinite(positions.grad).all()


def test_untouched_vertices_and_colors_come_back_bit_for_bit():
    rng = np.random.default_rng(3)
    ball = icosphere(2)
    # Awkward floats, a loose vertex and a second piece that nothing will touch.
    positions = np.concatenate([ball.positions, ball.positions / 3 + 0.7, [[0.1, 0.2, 0.3]]]).astype(np.float32)
    faces = np.concatenate([ball.faces, ball.faces + len(ball.positions)])
    data = MeshData(positions, faces, rng.random(positions.shape, dtype=np.float32))
    mesh = TriangleMesh(data, LOCKED)
    back = mesh.to_mesh()
    for name in ("positions", "faces", "colors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
        assert getattr(back, name).dtype == getattr(data, name).dtype
    first = len(ball.positions)
    optimizer = AdamUniform([mesh.displacement], 0.1)
    color_optimizer = torch.optim.Adam([mesh.colors], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        color_optimizer.zero_grad()
        (mesh.vertices()[:5].square().sum() + mesh.colors[:5].sum()).backward()
        optimizer.step()
        color_optimizer.step()
    moved = mesh.to_mesh()
    assert (moved.positions[:first] != positions[:first]).any(axis=1).all()
    np.testing.assert_array_equal(moved.positions[first:], positions[first:])
    np.testing.assert_array_equal(moved.colors[5:], data.colors[5:])
    assert (moved.colors[:5] != data.colors[:5]).any()


def test_a_mesh_without_colors_gets_none_unless_they_are_optimized():
    mesh = TriangleMesh(MeshData(cube(2).positions, cube(2).faces), LOCKED)
    assert mesh.to_mesh().colors is None
    with torch.no_grad():
        mesh.colors[3, 1] = 2.0
    assert mesh.to_mesh().colors[3].tolist() == [0.5, 1.0, 0.5]


def test_colors_at_the_border_feel_only_the_pull_back_inside():
    mesh = TriangleMesh(icosphere(1), LOCKED)
    with torch.no_grad():
        mesh.colors[:] = 1.2
    render = mesh.render(Cameras.orbit([0.0], 0.0), 16, None, "albedo")
    assert render.rgb.max() <= 1.0 + 1e-6
    (-render.rgb.sum()).backward()
    assert mesh.colors.grad.abs().max() == 0.0  # brighter is out of reach
    mesh.render(Cameras.orbit([0.0], 0.0), 16, None, "albedo").rgb.sum().backward()
    assert mesh.colors.grad.max() > 0.0


def test_optimization_turns_a_ball_into_a_taller_colored_one():
    goal = icosphere(3)
    tall = torch.as_tensor(goal.positions * np.array([0.7, 1.4, 0.7], dtype=np.float32))
    red = torch.tensor([0.9, 0.2, 0.1]).expand(len(tall), 3)
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 20.0)
    light = headlight(cameras)
    reference = TriangleMesh(MeshData(tall.numpy(), goal.faces, red.numpy()), LOCKED)
    with torch.no_grad():
        target = reference.render(cameras, 24, light)
    mesh = TriangleMesh(icosphere(3), FREE)
    positions, colors = (group["params"] for group in mesh.parameter_groups())
    optimizers = [AdamUniform(positions, 0.02), torch.optim.Adam(colors, 0.05)]
    losses = []
    for _ in range(70):
        for optimizer in optimizers:
            optimizer.zero_grad()
        image = mesh.render(cameras, 24, light)
        loss = (image.rgb - target.rgb).square().mean() + (image.alpha - target.alpha).square().mean()
        (loss + 0.05 * sum(mesh.regularization().values())).backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    result = mesh.to_mesh()
    height, width = np.ptp(result.positions[:, 1]), np.ptp(result.positions[:, 0])
    assert 1.7 < height / width < 2.3
    assert soundness(result).sound
    np.testing.assert_allclose(np.median(result.colors, axis=0), [0.9, 0.2, 0.1], atol=0.1)


def test_remeshing_changes_topology_keeps_shape_and_carries_colors():
    shape = cylinder(64)
    colors = np.where(shape.positions[:, 1:2] > 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]).astype(np.float32)
    mesh = TriangleMesh(MeshData(shape.positions, shape.faces, colors), FREE)
    assert mesh.remesh(800)
    after = mesh.to_mesh()
    assert 650 < len(after.positions) < 1000
    facts = soundness(after)
    assert facts.sound and facts.euler == 2
    assert facts.volume == pytest.approx(soundness(shape).volume, rel=0.03)
    high, low = after.positions[:, 1] > 0.1, after.positions[:, 1] < -0.1
    assert (after.colors[high] == [1, 0, 0]).all() and (after.colors[low] == [0, 0, 1]).all()


def test_a_locked_topology_is_not_remeshed():
    mesh = TriangleMesh(icosphere(2), LOCKED)
    assert not mesh.remesh(100)
    np.testing.assert_array_equal(mesh.to_mesh().faces, icosphere(2).faces)


def test_state_restores_exactly_even_after_remeshing():
    def run(mesh: TriangleMesh, optimizer: AdamUniform, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            image = mesh.render(Cameras.orbit([0.0, 130.0], 15.0), 16)
            (image.alpha.sum() - image.rgb.sum() + sum(mesh.regularization().values())).backward()
            optimizer.step()

    straight = TriangleMesh(icosphere(2), FREE)
    straight.remesh(250)
    optimizer = AdamUniform(straight.parameter_groups()[0]["params"], 0.01)
    run(straight, optimizer, 3)
    resumed = TriangleMesh(cube(2), FREE)
    resumed.load_state_dict({name: value.clone() for name, value in straight.state_dict().items()})
    twin = AdamUniform(resumed.parameter_groups()[0]["params"], 0.01)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(straight, optimizer, 3)
    run(resumed, twin, 3)
    assert resumed.locked == straight.locked
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    np.testing.assert_array_equal(straight.to_mesh().positions, resumed.to_mesh().positions)


def test_closest_points_agree_with_dense_sampling():
    shape = cylinder(12)
    rng = np.random.default_rng(4)
    points = rng.uniform(-1, 1, size=(40, 3))
    face, barycentrics = closest_points(points, shape.positions, shape.faces)
    assert (barycentrics >= -1e-9).all()
    np.testing.assert_allclose(barycentrics.sum(1), 1.0)
    found = np.einsum("pk,pkc->pc", barycentrics, shape.positions[shape.faces[face]].astype(np.float64))
    weights = rng.dirichlet([0.7] * 3, size=(len(shape.faces), 400))
    samples = np.einsum("fsk,fkc->fsc", weights, shape.positions[shape.faces]).reshape(-1, 3)
    sampled = np.sqrt(np.square(points[:, None] - samples[None]).sum(-1).min(1))
    distance = np.linalg.norm(points - found, axis=1)
    assert (distance <= sampled + 1e-6).all()
    assert (distance >= sampled - 0.05).all()
    np.testing.assert_allclose(transfer_attributes(points, shape.positions, shape.faces, shape.positions), found, atol=1e-6)
