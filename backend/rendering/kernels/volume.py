"""Warp kernels that sample a grid over [-1, 1]^3 along rays; the plain-torch twins are in `backend.rendering.volume`.

One thread walks one ray, sample after sample, so that neighboring reads share cache lines. Grids are indexed [z, y, x]
and flattened; points are clamped to the cube, where the field is continued as a constant.
"""

from __future__ import annotations

import warp as wp

from backend.rendering.kernels.runtime import kernel_module

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
