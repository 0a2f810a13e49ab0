"""Warp kernels that sample a grid over [-1, 1]^3 along rays; the twin is `backend.rendering.reference.volume`.

One thread walks one ray, sample after sample, so that neighboring reads share cache lines. Grids are indexed [z, y, x]
and flattened; points are clamped to the cube, where the field is continued as a constant.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.chords import Chords
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("volume", strict=False)

LINEAR_FROM = wp.constant(15.0)
"""softplus(x) = x to float32's precision from here on, and exp(x) below its negative."""


@wp.func
def corner_index(coordinate: float, resolution: int) -> int:
    return wp.clamp(int(wp.floor(coordinate)), 0, resolution - 2)


@wp.func
def grid_coordinates(point: wp.vec3, resolution: int) -> wp.vec3:
    """Continuous vertex indices (x, y, z) of a point."""
    last = float(resolution - 1)
    scaled = (point + wp.vec3(1.0, 1.0, 1.0)) * (0.5 * last)
    return wp.vec3(
        wp.clamp(scaled[0], 0.0, last),
        wp.clamp(scaled[1], 0.0, last),
        wp.clamp(scaled[2], 0.0, last),
    )


@wp.kernel(module=module)
def sample_density_kernel(
    logits: wp.array(dtype=float),
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    step: wp.array(dtype=float),
    resolution: int,
    samples: int,
    scale: float,
    sharpness: float,
    density: wp.array(dtype=float),
):
    ray = wp.tid()
    row = resolution
    plane = resolution * resolution
    for s in range(samples):
        if step[ray] <= 0.0:  # the ray misses: no length, no opacity
            density[ray * samples + s] = 0.0
            continue
        point = origins[ray] + directions[ray] * (near[ray] + (float(s) + 0.5) * step[ray])
        at = grid_coordinates(point, resolution)
        x = corner_index(at[0], resolution)
        y = corner_index(at[1], resolution)
        z = corner_index(at[2], resolution)
        fx = at[0] - float(x)
        fy = at[1] - float(y)
        fz = at[2] - float(z)
        i = z * plane + y * row + x
        low0 = logits[i] + fx * (logits[i + 1] - logits[i])
        low1 = logits[i + row] + fx * (logits[i + row + 1] - logits[i + row])
        j = i + plane
        high0 = logits[j] + fx * (logits[j + 1] - logits[j])
        high1 = logits[j + row] + fx * (logits[j + row + 1] - logits[j + row])
        low = low0 + fy * (low1 - low0)
        high = high0 + fy * (high1 - high0)
        value = sharpness * (low + fz * (high - low))
        softplus = value
        if value < LINEAR_FROM:
            softplus = wp.exp(value)
            if value > -LINEAR_FROM:
                softplus = wp.log(1.0 + softplus)
        density[ray * samples + s] = scale * softplus


@wp.kernel(module=module)
def sample_density_backward_kernel(
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    step: wp.array(dtype=float),
    resolution: int,
    samples: int,
    scale: float,
    sharpness: float,
    density: wp.array(dtype=float),
    density_gradient: wp.array(dtype=float),
    logits_gradient: wp.array(dtype=float),
):
    ray = wp.tid()
    row = resolution
    plane = resolution * resolution
    for s in range(samples):
        k = ray * samples + s
        # d softplus(v) / dv = sigmoid(v) = 1 - exp(-softplus(v)); for tiny softplus the difference would cancel.
        softplus = density[k] / scale
        slope = softplus
        if softplus > 1.0e-3:
            slope = 1.0 - wp.exp(-softplus)
        gradient = density_gradient[k] * scale * sharpness * slope
        if gradient != 0.0:
            point = origins[ray] + directions[ray] * (near[ray] + (float(s) + 0.5) * step[ray])
            at = grid_coordinates(point, resolution)
            x = corner_index(at[0], resolution)
            y = corner_index(at[1], resolution)
            z = corner_index(at[2], resolution)
            fx = at[0] - float(x)
            fy = at[1] - float(y)
            fz = at[2] - float(z)
            i = z * plane + y * row + x
            j = i + plane
            low = (1.0 - fz) * gradient
            high = fz * gradient
            wp.atomic_add(logits_gradient, i, low * (1.0 - fy) * (1.0 - fx))
            wp.atomic_add(logits_gradient, i + 1, low * (1.0 - fy) * fx)
            wp.atomic_add(logits_gradient, i + row, low * fy * (1.0 - fx))
            wp.atomic_add(logits_gradient, i + row + 1, low * fy * fx)
            wp.atomic_add(logits_gradient, j, high * (1.0 - fy) * (1.0 - fx))
            wp.atomic_add(logits_gradient, j + 1, high * (1.0 - fy) * fx)
            wp.atomic_add(logits_gradient, j + row, high * fy * (1.0 - fx))
            wp.atomic_add(logits_gradient, j + row + 1, high * fy * fx)


@wp.func
def interpolate(values: wp.array(dtype=wp.vec3), i: int, row: int, plane: int, fx: float, fy: float, fz: float) -> wp.vec3:
    low0 = (1.0 - fx) * values[i] + fx * values[i + 1]
    low1 = (1.0 - fx) * values[i + row] + fx * values[i + row + 1]
    high0 = (1.0 - fx) * values[i + plane] + fx * values[i + plane + 1]
    high1 = (1.0 - fx) * values[i + plane + row] + fx * values[i + plane + row + 1]
    low = (1.0 - fy) * low0 + fy * low1
    high = (1.0 - fy) * high0 + fy * high1
    return (1.0 - fz) * low + fz * high


@wp.func
def scatter(
    values: wp.array(dtype=wp.vec3), i: int, row: int, plane: int, fx: float, fy: float, fz: float, amount: wp.vec3
):
    low = (1.0 - fz) * amount
    high = fz * amount
    wp.atomic_add(values, i, ((1.0 - fy) * (1.0 - fx)) * low)
    wp.atomic_add(values, i + 1, ((1.0 - fy) * fx) * low)
    wp.atomic_add(values, i + row, (fy * (1.0 - fx)) * low)
    wp.atomic_add(values, i + row + 1, (fy * fx) * low)
    wp.atomic_add(values, i + plane, ((1.0 - fy) * (1.0 - fx)) * high)
    wp.atomic_add(values, i + plane + 1, ((1.0 - fy) * fx) * high)
    wp.atomic_add(values, i + plane + row, (fy * (1.0 - fx)) * high)
    wp.atomic_add(values, i + plane + row + 1, (fy * fx) * high)


@wp.kernel(module=module)
def accumulate_kernel(
    normals: wp.array(dtype=wp.vec3),
    colors: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=float),
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    step: wp.array(dtype=float),
    resolution: int,
    samples: int,
    negligible: float,
    normal_image: wp.array(dtype=wp.vec3),
    color_image: wp.array(dtype=wp.vec3),
):
    ray = wp.tid()
    row = resolution
    plane = resolution * resolution
    normal = wp.vec3(0.0, 0.0, 0.0)
    color = wp.vec3(0.0, 0.0, 0.0)
    for s in range(samples):
        weight = weights[ray * samples + s]
        if weight > negligible:
            point = origins[ray] + directions[ray] * (near[ray] + (float(s) + 0.5) * step[ray])
            at = grid_coordinates(point, resolution)
            x = corner_index(at[0], resolution)
            y = corner_index(at[1], resolution)
            z = corner_index(at[2], resolution)
            fx = at[0] - float(x)
            fy = at[1] - float(y)
            fz = at[2] - float(z)
            i = z * plane + y * row + x
            normal += weight * interpolate(normals, i, row, plane, fx, fy, fz)
            color += weight * interpolate(colors, i, row, plane, fx, fy, fz)
    normal_image[ray] = normal
    color_image[ray] = color


@wp.kernel(module=module)
def accumulate_backward_kernel(
    normals: wp.array(dtype=wp.vec3),
    colors: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=float),
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    step: wp.array(dtype=float),
    resolution: int,
    samples: int,
    negligible: float,
    normal_image_gradient: wp.array(dtype=wp.vec3),
    color_image_gradient: wp.array(dtype=wp.vec3),
    normals_gradient: wp.array(dtype=wp.vec3),
    colors_gradient: wp.array(dtype=wp.vec3),
    weights_gradient: wp.array(dtype=float),
):
    ray = wp.tid()
    row = resolution
    plane = resolution * resolution
    of_normal = normal_image_gradient[ray]
    of_color = color_image_gradient[ray]
    for s in range(samples):
        k = ray * samples + s
        weight = weights[k]
        if weight > negligible:
            point = origins[ray] + directions[ray] * (near[ray] + (float(s) + 0.5) * step[ray])
            at = grid_coordinates(point, resolution)
            x = corner_index(at[0], resolution)
            y = corner_index(at[1], resolution)
            z = corner_index(at[2], resolution)
            fx = at[0] - float(x)
            fy = at[1] - float(y)
            fz = at[2] - float(z)
            i = z * plane + y * row + x
            weights_gradient[k] = wp.dot(of_normal, interpolate(normals, i, row, plane, fx, fy, fz)) + wp.dot(
                of_color, interpolate(colors, i, row, plane, fx, fy, fz)
            )
            scatter(normals_gradient, i, row, plane, fx, fy, fz, weight * of_normal)
            scatter(colors_gradient, i, row, plane, fx, fy, fz, weight * of_color)


@wp.kernel(module=module)
def occupied_samples_kernel(
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    near: wp.array(dtype=float),
    step: wp.array(dtype=float),
    bits: wp.array(dtype=int),
    resolution: int,
    samples: int,
    occupied: wp.array(dtype=wp.uint8),
):
    ray = wp.tid()
    half = 0.5 * float(resolution)
    for s in range(samples):
        found = wp.uint8(0)
        if step[ray] > 0.0:
            point = origins[ray] + directions[ray] * (near[ray] + (float(s) + 0.5) * step[ray])
            x = wp.clamp(int((point[0] + 1.0) * half), 0, resolution - 1)
            y = wp.clamp(int((point[1] + 1.0) * half), 0, resolution - 1)
            z = wp.clamp(int((point[2] + 1.0) * half), 0, resolution - 1)
            cell = (z * resolution + y) * resolution + x
            found = wp.uint8((bits[cell >> 5] >> (cell & 31)) & 1)
        occupied[ray * samples + s] = found


class _SampleDensity(torch.autograd.Function):
    """Gradients flow to the logits alone."""

    @staticmethod
    def forward(ctx, logits: Tensor, chords: Chords, scale: float, sharpness: float) -> Tensor:
        density = torch.empty(chords.near.shape[0], chords.samples, device=logits.device)
        resolution = logits.shape[0]
        launch(
            sample_density_kernel,
            chords.near.shape[0],
            [
                logits.detach().contiguous(),
                rows(chords.origins),
                rows(chords.directions),
                chords.near,
                chords.step,
                resolution,
                chords.samples,
                scale,
                sharpness,
                density,
            ],
        )
        ctx.save_for_backward(density)
        ctx.chords, ctx.scale, ctx.sharpness, ctx.resolution = chords, scale, sharpness, resolution
        return density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        (density,) = ctx.saved_tensors
        chords: Chords = ctx.chords
        logits_gradient = torch.zeros((ctx.resolution,) * 3, device=density.device)
        launch(
            sample_density_backward_kernel,
            chords.near.shape[0],
            [
                rows(chords.origins),
                rows(chords.directions),
                chords.near,
                chords.step,
                ctx.resolution,
                chords.samples,
                ctx.scale,
                ctx.sharpness,
                density,
                gradient.contiguous(),
                logits_gradient,
            ],
        )
        return logits_gradient, None, None, None


class _Accumulate(torch.autograd.Function):
    """Gradients flow to normals, colors and weights."""

    @staticmethod
    def forward(ctx, normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> tuple[Tensor, Tensor]:
        normals, colors, weights = normals.detach().contiguous(), colors.detach().contiguous(), weights.contiguous()
        normal = torch.empty(weights.shape[0], 3, device=weights.device)
        color = torch.empty_like(normal)
        launch(
            accumulate_kernel,
            weights.shape[0],
            [*_accumulate_inputs(normals, colors, weights, chords), rows(normal), rows(color)],
        )
        ctx.save_for_backward(normals, colors, weights)
        ctx.chords = chords
        return normal, color

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, normal_gradient: Tensor, color_gradient: Tensor):
        normals, colors, weights = ctx.saved_tensors
        of_normals, of_colors, of_weights = (torch.zeros_like(each) for each in (normals, colors, weights))
        launch(
            accumulate_backward_kernel,
            weights.shape[0],
            [
                *_accumulate_inputs(normals, colors, weights, ctx.chords),
                rows(normal_gradient.contiguous()),
                rows(color_gradient.contiguous()),
                rows(of_normals),
                rows(of_colors),
                of_weights,
            ],
        )
        return of_normals, of_colors, of_weights, None


def _accumulate_inputs(normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> list:
    return [
        rows(normals),
        rows(colors),
        weights,
        rows(chords.origins),
        rows(chords.directions),
        chords.near,
        chords.step,
        normals.shape[0],
        chords.samples,
        constants.NEGLIGIBLE_WEIGHT,
    ]


def sample_density(logits: Tensor, chords: Chords, scale: float, sharpness: float) -> Tensor:
    """`[P, S]` densities at the samples; see `backend.rendering.volume.render_volume`."""
    return _SampleDensity.apply(logits, chords, scale, sharpness)


def accumulate(normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> tuple[Tensor, Tensor]:
    """`[P, 3]` sums of normals and of colors at the samples, weighted by `weights` [P, S]."""
    return _Accumulate.apply(normals, colors, weights, chords)


def occupied_samples(chords: Chords, bits: Tensor, resolution: int) -> Tensor:
    """`[P, S]` bool; see `backend.rendering.volume.occupied_samples`."""
    occupied = torch.empty(len(chords), chords.samples, dtype=torch.bool, device=bits.device)
    launch(
        occupied_samples_kernel,
        len(chords),
        [
            rows(chords.origins),
            rows(chords.directions),
            chords.near,
            chords.step,
            bits,
            resolution,
            chords.samples,
            occupied.view(torch.uint8),
        ],
    )
    return occupied
