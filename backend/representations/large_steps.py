"""Preconditioned vertex optimization: "Large Steps in Inverse Rendering of Geometry" (Nicolet, Jacobson, Jakob 2021).

Vertices v = (I + lambda L)^-1 u are optimized through u, with L the uniform Laplacian: gradients reach u smoothed over
the surface, so that steps can be large without tangling the mesh.
"""

from __future__ import annotations

import torch
from cholespy import CholeskySolverF, MatrixType
from torch import Tensor


def unique_edges(faces: Tensor) -> Tensor:
    """Undirected edges [E, 2] int64 of faces [F, 3], each once, lower index first, in ascending order; no loops."""
    corners = faces.long()
    pairs = torch.cat([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return torch.unique(pairs.sort(dim=1).values, dim=0)


class Preconditioner:
    """The factorized system M = I + lambda L of one topology; L is the uniform (combinatorial) Laplacian D - A.

    Vertices that are `fixed` ([V] bool) stay at 0 (Dirichlet conditions): the others solve the part of M that couples them
    to each other, a principal submatrix, which is symmetric positive definite as M is.
    """

    def __init__(self, vertex_count: int, edges: Tensor, smoothing: float, fixed: Tensor | None = None) -> None:
        self.edges = edges
        self.smoothing = smoothing
        degree = torch.bincount(edges.reshape(-1), minlength=vertex_count).double()
        self._free = None
        if fixed is not None and bool(fixed.any()):
            free = (~fixed).to(edges.device)
            self._free = free.nonzero().squeeze(1)
            number = torch.cumsum(free, 0) - 1
            edges = number[edges[free[edges].all(dim=1)]]
            vertex_count, degree = len(self._free), degree[free]
        self._solver = _factorize(vertex_count, edges, degree, smoothing) if vertex_count else None

    def smooth(self, parameters: Tensor) -> Tensor:
        """M^-1 u for u [V, 3]; differentiable (the matrix is symmetric: backward solves the same system)."""
        if self._solver is None:
            return parameters * 0.0
        if self._free is None:
            return _Solve.apply(parameters, self._solver)
        solution = _Solve.apply(parameters.index_select(0, self._free), self._solver)
        return torch.zeros_like(parameters).index_copy(0, self._free, solution)


def _factorize(count: int, edges: Tensor, degree: Tensor, smoothing: float) -> CholeskySolverF:
    first, second = edges.unbind(1)
    diagonal = torch.arange(count, device=edges.device)
    off_diagonal = torch.full((edges.shape[0],), -smoothing, dtype=torch.float64, device=edges.device)
    rows = torch.cat([diagonal, first, second]).int()
    columns = torch.cat([diagonal, second, first]).int()
    values = torch.cat([1.0 + smoothing * degree, off_diagonal, off_diagonal])
    return CholeskySolverF(count, rows, columns, values, MatrixType.COO)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, right_hand_side: Tensor, solver: CholeskySolverF) -> Tensor:
        ctx.solver = solver
        right_hand_side = right_hand_side.detach().contiguous()
        solution = torch.empty_like(right_hand_side)
        solver.solve(right_hand_side, solution)
        return solution

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        gradient = gradient.contiguous()
        solution = torch.empty_like(gradient)
        ctx.solver.solve(gradient, solution)
        return solution, None


class AdamUniform(torch.optim.Optimizer):
    """Adam whose second moment is shared by all entries of a tensor: the largest of it (Nicolet et al. 2021, section 4).

    Per-entry normalization would undo the preconditioner's smoothness; here a step has a length of about `lr` where the
    gradient is largest, and proportionally less elsewhere.
    """

    def __init__(self, params, lr: float = 0.01, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step for every parameter that has a gradient; a gradient of exact zeros before any other moves nothing."""
        if closure is not None:
            raise NotImplementedError("AdamUniform takes no closure")
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.int64)
                    state["first_moment"] = torch.zeros_like(parameter)
                    state["second_moment"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = int(state["step"])
                first = state["first_moment"].lerp_(parameter.grad, 1.0 - beta1)
                second = state["second_moment"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1.0 - beta2)
                scale = (second.max() / (1.0 - beta2**count)).sqrt().clamp_min(1e-30)
                parameter.sub_(first * (group["lr"] / (1.0 - beta1**count) / scale))
