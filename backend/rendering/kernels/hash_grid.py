"""Multiresolution hash encoding and its gradients; the twin is `backend.rendering.reference.hash_grid`.

One thread is one point at one level, points of a level next to each other, so that a level's part of the table stays in
a cache while it is read (Mueller et al. 2022, section 3).
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("hash_grid", strict=False)

PRIME_Y = wp.constant(wp.uint32(constants.HASH_PRIMES[1]))
PRIME_Z = wp.constant(wp.uint32(constants.HASH_PRIMES[2]))


@wp.func
def cell_coordinates(point: wp.vec3, cells: int) -> wp.vec3:
    """A point of the cube in units of cells; points outside are moved to its border."""
    size = float(cells)
    scaled = (point + wp.vec3(1.0, 1.0, 1.0)) * (0.5 * size)
    return wp.vec3(
        wp.clamp(scaled[0], 0.0, size),
        wp.clamp(scaled[1], 0.0, size),
        wp.clamp(scaled[2], 0.0, size),
    )


@wp.func
def entry_of(x: int, y: int, z: int, level: wp.vec3i) -> int:
    """Row of the table for a vertex of a level (cells, first row, rows of a hashed level or 0)."""
    if level[2] == 0:
        side = level[0] + 1
        return level[1] + (z * side + y) * side + x
    mixed = wp.uint32(x) ^ (wp.uint32(y) * PRIME_Y) ^ (wp.uint32(z) * PRIME_Z)
    return level[1] + int(mixed & wp.uint32(level[2] - 1))


@wp.func
def is_finite(point: wp.vec3) -> bool:
    return wp.isfinite(point[0]) and wp.isfinite(point[1]) and wp.isfinite(point[2])


@wp.kernel(module=module)
def encode_kernel(
    points: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=wp.vec4),
    levels: wp.array(dtype=wp.vec3i),
    point_count: int,
    level_count: int,
    features: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    index = thread / point_count
    p = thread - index * point_count
    point = points[p]
    feature = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if is_finite(point):
        level = levels[index]
        at = cell_coordinates(point, level[0])
        x = wp.min(int(at[0]), level[0] - 1)
        y = wp.min(int(at[1]), level[0] - 1)
        z = wp.min(int(at[2]), level[0] - 1)
        fx = at[0] - float(x)
        fy = at[1] - float(y)
        fz = at[2] - float(z)
        low0 = (1.0 - fx) * table[entry_of(x, y, z, level)] + fx * table[entry_of(x + 1, y, z, level)]
        low1 = (1.0 - fx) * table[entry_of(x, y + 1, z, level)] + fx * table[entry_of(x + 1, y + 1, z, level)]
        high0 = (1.0 - fx) * table[entry_of(x, y, z + 1, level)] + fx * table[entry_of(x + 1, y, z + 1, level)]
        high1 = (1.0 - fx) * table[entry_of(x, y + 1, z + 1, level)] + fx * table[entry_of(x + 1, y + 1, z + 1, level)]
        low = (1.0 - fy) * low0 + fy * low1
        high = (1.0 - fy) * high0 + fy * high1
        feature = (1.0 - fz) * low + fz * high
    features[p * level_count + index] = feature


@wp.kernel(module=module)
def encode_backward_table(
    points: wp.array(dtype=wp.vec3),
    levels: wp.array(dtype=wp.vec3i),
    point_count: int,
    level_count: int,
    grad_features: wp.array(dtype=wp.vec4),
    grad_table: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    index = thread / point_count
    p = thread - index * point_count
    point = points[p]
    grad = grad_features[p * level_count + index]
    if is_finite(point) and wp.dot(grad, grad) != 0.0:
        level = levels[index]
        at = cell_coordinates(point, level[0])
        x = wp.min(int(at[0]), level[0] - 1)
        y = wp.min(int(at[1]), level[0] - 1)
        z = wp.min(int(at[2]), level[0] - 1)
        fx = at[0] - float(x)
        fy = at[1] - float(y)
        fz = at[2] - float(z)
        low0 = ((1.0 - fz) * (1.0 - fy)) * grad
        low1 = ((1.0 - fz) * fy) * grad
        high0 = (fz * (1.0 - fy)) * grad
        high1 = (fz * fy) * grad
        wp.atomic_add(grad_table, entry_of(x, y, z, level), (1.0 - fx) * low0)
        wp.atomic_add(grad_table, entry_of(x + 1, y, z, level), fx * low0)
        wp.atomic_add(grad_table, entry_of(x, y + 1, z, level), (1.0 - fx) * low1)
        wp.atomic_add(grad_table, entry_of(x + 1, y + 1, z, level), fx * low1)
        wp.atomic_add(grad_table, entry_of(x, y, z + 1, level), (1.0 - fx) * high0)
        wp.atomic_add(grad_table, entry_of(x + 1, y, z + 1, level), fx * high0)
        wp.atomic_add(grad_table, entry_of(x, y + 1, z + 1, level), (1.0 - fx) * high1)
        wp.atomic_add(grad_table, entry_of(x + 1, y + 1, z + 1, level), fx * high1)


@wp.kernel(module=module)
def encode_backward_points(
    points: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=wp.vec4),
    levels: wp.array(dtype=wp.vec3i),
    point_count: int,
    level_count: int,
    grad_features: wp.array(dtype=wp.vec4),
    grad_points: wp.array(dtype=wp.vec3),
):
    """One thread a point, which sums over the levels: no two threads share an output."""
    p = wp.tid()
    point = points[p]
    if is_finite(point):
        total = wp.vec3(0.0, 0.0, 0.0)
        for index in range(level_count):
            level = levels[index]
            grad = grad_features[p * level_count + index]
            at = cell_coordinates(point, level[0])
            x = wp.min(int(at[0]), level[0] - 1)
            y = wp.min(int(at[1]), level[0] - 1)
            z = wp.min(int(at[2]), level[0] - 1)
            fx = at[0] - float(x)
            fy = at[1] - float(y)
            fz = at[2] - float(z)
            v000 = wp.dot(grad, table[entry_of(x, y, z, level)])
            v100 = wp.dot(grad, table[entry_of(x + 1, y, z, level)])
            v010 = wp.dot(grad, table[entry_of(x, y + 1, z, level)])
            v110 = wp.dot(grad, table[entry_of(x + 1, y + 1, z, level)])
            v001 = wp.dot(grad, table[entry_of(x, y, z + 1, level)])
            v101 = wp.dot(grad, table[entry_of(x + 1, y, z + 1, level)])
            v011 = wp.dot(grad, table[entry_of(x, y + 1, z + 1, level)])
            v111 = wp.dot(grad, table[entry_of(x + 1, y + 1, z + 1, level)])
            along_x = (1.0 - fz) * ((1.0 - fy) * (v100 - v000) + fy * (v110 - v010)) + fz * (
                (1.0 - fy) * (v101 - v001) + fy * (v111 - v011)
            )
            along_y = (1.0 - fz) * ((1.0 - fx) * (v010 - v000) + fx * (v110 - v100)) + fz * (
                (1.0 - fx) * (v011 - v001) + fx * (v111 - v101)
            )
            along_z = (1.0 - fy) * ((1.0 - fx) * (v001 - v000) + fx * (v101 - v100)) + fy * (
                (1.0 - fx) * (v011 - v010) + fx * (v111 - v110)
            )
            total += (0.5 * float(level[0])) * wp.vec3(along_x, along_y, along_z)
        inside_x = float(wp.abs(point[0]) <= 1.0)
        inside_y = float(wp.abs(point[1]) <= 1.0)
        inside_z = float(wp.abs(point[2]) <= 1.0)
        grad_points[p] = wp.vec3(inside_x * total[0], inside_y * total[1], inside_z * total[2])


class _EncodeHashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, levels: Tensor) -> Tensor:
        points, table = points.contiguous(), table.contiguous()
        count, depth = points.shape[0], levels.shape[0]
        features = torch.empty(count, 4 * depth, device=points.device)
        launch(
            encode_kernel,
            count * depth,
            [rows(points), rows(table), rows(levels), count, depth, rows(features.view(-1, 4))],
        )
        ctx.save_for_backward(points, table, levels)
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_features: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table, levels = ctx.saved_tensors
        count, depth = points.shape[0], levels.shape[0]
        grad_features = grad_features.contiguous().view(-1, 4)
        grad_points = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_points = torch.zeros_like(points)
            launch(
                encode_backward_points,
                count,
                [rows(points), rows(table), rows(levels), count, depth, rows(grad_features), rows(grad_points)],
            )
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            launch(
                encode_backward_table,
                count * depth,
                [rows(points), rows(levels), count, depth, rows(grad_features), rows(grad_table)],
            )
        return grad_points, grad_table, None


def encode_hash_grid(points: Tensor, table: Tensor, levels: Tensor) -> Tensor:
    """`[P, 4 L]`; see `backend.rendering.hash_grid.encode_hash_grid`."""
    return _EncodeHashGrid.apply(points, table, levels)
