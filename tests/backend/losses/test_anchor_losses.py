"""What holds a mesh to its start: zero for the start, the closed form elsewhere, gradients by finite differences."""

from __future__ import annotations

import torch

from backend.losses.anchors import bend_change, silhouette_change
from backend.representations.large_steps import unique_edges
from backend.representations.primitives import icosphere


def ball(level: int) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = icosphere(level)
    return torch.from_numpy(mesh.positions).double(), unique_edges(torch.from_numpy(mesh.faces))


def test_the_start_and_what_was_shifted_cost_nothing_and_pull_nowhere() -> None:
    start, edges = ball(1)
    for vertices in (start.clone(), start + torch.tensor([0.3, -0.1, 2.0], dtype=torch.float64)):
        vertices.requires_grad_()
        change = bend_change(vertices, start, edges)
        change.backward()
        assert change.item() < 1e-20 and vertices.grad.abs().max().item() < 1e-9
    alpha = torch.rand(2, 6, 6, 1, dtype=torch.float64).requires_grad_()
    change = silhouette_change(alpha, alpha.detach())
    change.backward()
    assert change.item() == 0.0 and not alpha.grad.any()


def test_bends_are_those_of_the_definition() -> None:
    start, edges = ball(1)
    vertices = start + 0.05 * torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    neighbors: list[list[int]] = [[] for _ in start]
    for a, b in edges.tolist():
        neighbors[a].append(b)
        neighbors[b].append(a)
    bends = [[points[near].mean(0) - points[row] for row, near in enumerate(neighbors)] for points in (vertices, start)]
    change = torch.stack([(now - then).square().sum() for now, then in zip(*bends)]).mean()
    unit = torch.stack([(start[a] - start[b]).square().sum() for a, b in edges.tolist()]).mean()
    torch.testing.assert_close(bend_change(vertices, start, edges), change / unit**2)


def test_bends_cost_about_the_same_however_fine_the_mesh_is() -> None:
    """A ball pressed to an ellipsoid. Without the second squared length, each level would cost a fourth of the one before."""
    costs = []
    for level in (2, 3, 4):
        start, edges = ball(level)
        costs.append(bend_change(start * torch.tensor([1.0, 0.8, 1.0], dtype=torch.float64), start, edges).item())
    assert max(costs) < 2.5 * min(costs)


def test_a_vertex_without_edges_counts_as_unchanged() -> None:
    start, edges = ball(1)
    lone = torch.cat([start, torch.zeros(1, 3, dtype=torch.float64)])
    moved = lone.clone()
    moved[-1] += 1.0
    assert bend_change(moved, lone, edges).item() == 0.0


def test_silhouettes_count_per_covered_pixel() -> None:
    start, alpha = torch.zeros(1, 8, 8, 1), torch.zeros(1, 8, 8, 1)
    start[:, 2:6, 2:6], alpha[:, 2:6, 3:7] = 1.0, 1.0
    assert silhouette_change(alpha, start).item() == 8 / 16
    assert silhouette_change(torch.zeros_like(start), start).item() == 1.0
    assert silhouette_change(0.5 * start, start).item() == 0.25


def test_gradients_are_those_of_finite_differences() -> None:
    start, edges = ball(0)
    draw = torch.Generator().manual_seed(1)
    vertices = start + 0.1 * torch.randn(start.shape, dtype=torch.float64, generator=draw)
    assert torch.autograd.gradcheck(lambda v: bend_change(v, start, edges), vertices.requires_grad_())
    alpha, target = (torch.rand(1, 4, 4, 1, dtype=torch.float64, generator=draw) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a: silhouette_change(a, target), alpha.requires_grad_())
