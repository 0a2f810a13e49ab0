"""Metal-rough shading of fragments in one pass, and its gradient to the material, the normal, the viewer and the light.

The twin in `backend/rendering/reference/material.py` says the same in tensor operations. Names here: a and b are the
factors that go with F0 and beside it (`backend/rendering/reflectance.py`), part_a and part_b the light that they gather.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.lobes import (
    Factors,
    Place,
    direction_slope,
    features,
    find_place,
    gather,
    lamp_lobe,
    lamp_slopes,
    look_up_factors,
    look_up_map,
    slopes,
    spread_to_map,
)
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("material")

LAMP = wp.constant(0)
HARMONICS = wp.constant(1)
MAP = wp.constant(2)
SLOTS = wp.constant(64)
"""Sums over all fragments are made in this many parts: fewer collisions on a GPU, less rounding everywhere."""

SMALLEST_ROUGHNESS = wp.constant(constants.SMALLEST_ROUGHNESS)
SMALLEST_COSINE = wp.constant(constants.SMALLEST_COSINE)
SMALLEST_LENGTH = wp.constant(constants.SMALLEST_LENGTH)
F0 = wp.constant(constants.DIELECTRIC_F0)


@wp.func
def lobe_light(
    n: wp.vec3,
    v: wp.vec3,
    mu: float,
    roughness: float,
    f: Factors,
    kind: int,
    view: int,
    polynomial: wp.array(dtype=wp.vec3),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
):
    """Light on the diffuse surface, and what the two parts of the reflecting lobe gather."""
    if kind == LAMP:
        share = ambient[view]
        lobe, schlick, toward = lamp_lobe(n, v, mu, roughness, light[view], 1.0 - share)
        return (
            wp.vec3(share + (1.0 - share) * toward),
            wp.vec3(share * f[0] + lobe * (1.0 - schlick)),
            wp.vec3(share * f[6] + lobe * schlick),
        )
    diffuse = gather(features(1.0, 2.0 / 3.0, 0.0, 0.25, 0.0, 0.0, n, v), polynomial)
    part_a = gather(features(f[0], f[1], f[2], f[3], f[4], f[5], n, v), polynomial)
    part_b = gather(features(f[6], f[7], f[8], f[9], f[10], f[11], n, v), polynomial)
    return diffuse, part_a, part_b


@wp.func
def bounces(f0: float, mean_albedo: float):
    """What the light that a lobe loses to further bounces is multiplied with in them; slopes in both."""
    mean = f0 + (1.0 - f0) / 21.0
    rest = 1.0 - mean * (1.0 - mean_albedo)
    return mean * mean_albedo / rest, mean_albedo / (rest * rest) * (20.0 / 21.0), mean * (1.0 - mean) / (rest * rest)


@wp.kernel(module=module)
def shade_forward(
    albedo: wp.array(dtype=wp.vec3),
    metallic: wp.array(dtype=float),
    roughness: wp.array(dtype=float),
    normal: wp.array(dtype=wp.vec3),
    toward_viewer: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=float),
    polynomial: wp.array(dtype=wp.vec3),
    residual: wp.array(dtype=wp.vec3),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    kind: int,
    per_view: int,
    sizes: wp.vec3i,
    radiance: wp.array(dtype=wp.vec3),
):
    i = wp.tid()
    length = wp.length(normal[i])
    if length == 0.0:
        return
    n = normal[i] / wp.max(length, SMALLEST_LENGTH)
    v = toward_viewer[i] / wp.max(wp.length(toward_viewer[i]), SMALLEST_LENGTH)
    mu = wp.clamp(wp.dot(n, v), SMALLEST_COSINE, 1.0)
    rough = wp.clamp(roughness[i], SMALLEST_ROUGHNESS, 1.0)
    f, _by_roughness, _by_cosine = look_up_factors(table, rough, mu)
    diffuse, part_a, part_b = lobe_light(n, v, mu, rough, f, kind, i // per_view, polynomial, light, ambient)
    if kind == MAP:
        mirror = n * (2.0 * wp.dot(n, v)) - v
        level = rough * float(sizes[0] - 2)
        seen, _seen_by_column, _seen_by_row, _by_level = look_up_map(residual, sizes, find_place(mirror, sizes), level)
        last = float(sizes[0] - 1)
        softened, _by_column, _by_row, _never = look_up_map(residual, sizes, find_place(n, sizes), last)
        diffuse += softened
        part_a += seen * f[0]
        part_b += seen * f[6]
    lost = 1.0 / (f[0] + f[6]) - 1.0
    plain_bounces, _by_f0, _plain_slope = bounces(F0, f[12])
    plain = 1.0 + lost * plain_bounces
    through = 1.0 - (F0 * f[0] + f[6]) * plain
    metal = metallic[i]
    color = albedo[i]
    shown = wp.vec3()
    for c in range(3):
        tint_bounces, _by_color, _by_mean = bounces(color[c], f[12])
        dielectric = through * color[c] * diffuse[c] + plain * (F0 * part_a[c] + part_b[c])
        conductor = (1.0 + lost * tint_bounces) * (color[c] * part_a[c] + part_b[c])
        shown[c] = (1.0 - metal) * dielectric + metal * conductor
    radiance[i] = shown


@wp.kernel(module=module)
def shade_backward(
    grad_radiance: wp.array(dtype=wp.vec3),
    albedo: wp.array(dtype=wp.vec3),
    metallic: wp.array(dtype=float),
    roughness: wp.array(dtype=float),
    normal: wp.array(dtype=wp.vec3),
    toward_viewer: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=float),
    polynomial: wp.array(dtype=wp.vec3),
    residual: wp.array(dtype=wp.vec3),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    kind: int,
    per_view: int,
    sizes: wp.vec3i,
    with_polynomial: int,
    with_residual: int,
    grad_albedo: wp.array(dtype=wp.vec3),
    grad_metallic: wp.array(dtype=float),
    grad_roughness: wp.array(dtype=float),
    grad_normal: wp.array(dtype=wp.vec3),
    grad_viewer: wp.array(dtype=wp.vec3),
    grad_polynomial: wp.array(dtype=wp.vec3),
    grad_residual: wp.array(dtype=wp.vec3),
):
    i = wp.tid()
    length = wp.length(normal[i])
    if length == 0.0:
        return
    length = wp.max(length, SMALLEST_LENGTH)
    n = normal[i] / length
    distance = wp.max(wp.length(toward_viewer[i]), SMALLEST_LENGTH)
    v = toward_viewer[i] / distance
    facing = wp.dot(n, v)
    mu = wp.clamp(facing, SMALLEST_COSINE, 1.0)
    rough = wp.clamp(roughness[i], SMALLEST_ROUGHNESS, 1.0)
    view = i // per_view
    f, rising, along = look_up_factors(table, rough, mu)
    diffuse, part_a, part_b = lobe_light(n, v, mu, rough, f, kind, view, polynomial, light, ambient)
    mirror = n * (2.0 * facing) - v
    mirror_place = Place()
    normal_place = Place()
    level = rough * float(sizes[0] - 2)
    last = float(sizes[0] - 1)
    seen = wp.vec3(0.0)
    softened = wp.vec3(0.0)
    seen_by_column = wp.vec3(0.0)
    seen_by_row = wp.vec3(0.0)
    seen_by_level = wp.vec3(0.0)
    softened_by_column = wp.vec3(0.0)
    softened_by_row = wp.vec3(0.0)
    if kind == MAP:
        mirror_place = find_place(mirror, sizes)
        normal_place = find_place(n, sizes)
        seen, seen_by_column, seen_by_row, seen_by_level = look_up_map(residual, sizes, mirror_place, level)
        softened, softened_by_column, softened_by_row, _never = look_up_map(residual, sizes, normal_place, last)
        diffuse += softened
        part_a += seen * f[0]
        part_b += seen * f[6]

    # From the radiance to the light on each lobe and to the factors
    total = f[0] + f[6]
    lost = 1.0 / total - 1.0
    plain_bounces, _by_f0, plain_slope = bounces(F0, f[12])
    plain = 1.0 + lost * plain_bounces
    coating = F0 * f[0] + f[6]
    through = 1.0 - coating * plain
    metal = metallic[i]
    color = albedo[i]
    g = grad_radiance[i]
    to_color = wp.vec3()
    to_diffuse = wp.vec3()
    to_a = wp.vec3()
    to_b = wp.vec3()
    to_metal = float(0.0)
    to_through = float(0.0)
    to_plain = float(0.0)
    to_lost = float(0.0)
    to_mean = float(0.0)
    for c in range(3):
        tint_bounces, by_color, by_mean = bounces(color[c], f[12])
        tint = 1.0 + lost * tint_bounces
        reflected = F0 * part_a[c] + part_b[c]
        tinted = color[c] * part_a[c] + part_b[c]
        to_metal += g[c] * (tint * tinted - through * color[c] * diffuse[c] - plain * reflected)
        base = g[c] * (1.0 - metal)
        shine = g[c] * metal
        to_color[c] = base * through * diffuse[c] + shine * (tint * part_a[c] + tinted * lost * by_color)
        to_diffuse[c] = base * through * color[c]
        to_a[c] = base * plain * F0 + shine * tint * color[c]
        to_b[c] = base * plain + shine * tint
        to_through += base * color[c] * diffuse[c]
        to_plain += base * reflected
        to_lost += shine * tinted * tint_bounces
        to_mean += shine * tinted * lost * by_mean
    to_plain -= to_through * coating
    to_lost += to_plain * plain_bounces
    to_mean += to_plain * lost * plain_slope
    by_factor = f * 0.0
    by_factor[0] = -to_through * plain * F0 - to_lost / (total * total)
    by_factor[6] = -to_through * plain - to_lost / (total * total)
    by_factor[12] = to_mean

    # From the light on each lobe to directions, factors and the light itself
    to_n = wp.vec3(0.0)
    to_v = wp.vec3(0.0)
    to_mu = float(0.0)
    to_rough = float(0.0)
    if kind == LAMP:
        share = ambient[view]
        lobe, schlick, toward = lamp_lobe(n, v, mu, rough, light[view], 1.0 - share)
        grad_a = to_a[0] + to_a[1] + to_a[2]
        grad_b = to_b[0] + to_b[1] + to_b[2]
        by_factor[0] += share * grad_a
        by_factor[6] += share * grad_b
        if toward > 0.0:
            to_n, to_v, to_mu, to_rough = lamp_slopes(
                n,
                v,
                mu,
                rough,
                light[view],
                lobe,
                grad_a * (1.0 - schlick) + grad_b * schlick,
                lobe * (grad_b - grad_a),
                (1.0 - share) * (to_diffuse[0] + to_diffuse[1] + to_diffuse[2]),
            )
    else:
        _d0, d1, d2 = slopes(to_diffuse, polynomial)
        a0, a1, a2 = slopes(to_a, polynomial)
        b0, b1, b2 = slopes(to_b, polynomial)
        an = a2 * n
        av = a2 * v
        bn = b2 * n
        bv = b2 * v
        to_n = d1 * (2.0 / 3.0) + (d2 * n) * 0.5 + a1 * f[1] + an * (2.0 * f[3]) + av * f[4]
        to_n += b1 * f[7] + bn * (2.0 * f[9]) + bv * f[10]
        to_v = a1 * f[2] + an * f[4] + av * (2.0 * f[5]) + b1 * f[8] + bn * f[10] + bv * (2.0 * f[11])
        by_factor[0] += a0
        by_factor[1] = wp.dot(a1, n)
        by_factor[2] = wp.dot(a1, v)
        by_factor[3] = wp.dot(n, an)
        by_factor[4] = wp.dot(n, av)
        by_factor[5] = wp.dot(v, av)
        by_factor[6] += b0
        by_factor[7] = wp.dot(b1, n)
        by_factor[8] = wp.dot(b1, v)
        by_factor[9] = wp.dot(n, bn)
        by_factor[10] = wp.dot(n, bv)
        by_factor[11] = wp.dot(v, bv)
        if with_polynomial != 0:
            lambert = features(1.0, 2.0 / 3.0, 0.0, 0.25, 0.0, 0.0, n, v)
            lobe_a = features(f[0], f[1], f[2], f[3], f[4], f[5], n, v)
            lobe_b = features(f[6], f[7], f[8], f[9], f[10], f[11], n, v)
            slot = (i % SLOTS) * 10
            for k in range(10):
                wp.atomic_add(grad_polynomial, slot + k, to_diffuse * lambert[k] + to_a * lobe_a[k] + to_b * lobe_b[k])
    if kind == MAP:
        to_seen = to_a * f[0] + to_b * f[6]
        by_factor[0] += wp.dot(to_a, seen)
        by_factor[6] += wp.dot(to_b, seen)
        to_rough += wp.dot(to_seen, seen_by_level) * float(sizes[0] - 2)
        to_mirror = direction_slope(
            mirror, mirror_place, sizes, wp.dot(to_seen, seen_by_column), wp.dot(to_seen, seen_by_row)
        )
        onto = 2.0 * wp.dot(n, to_mirror)
        to_n += to_mirror * (2.0 * facing) + v * onto
        to_v += n * onto - to_mirror
        to_n += direction_slope(
            n, normal_place, sizes, wp.dot(to_diffuse, softened_by_column), wp.dot(to_diffuse, softened_by_row)
        )
        if with_residual != 0:
            spread_to_map(grad_residual, sizes, mirror_place, level, to_seen)
            spread_to_map(grad_residual, sizes, normal_place, last, to_diffuse)

    to_rough += wp.dot(by_factor, rising)
    to_mu += wp.dot(by_factor, along)
    if facing >= SMALLEST_COSINE and facing <= 1.0:
        to_n += v * to_mu
        to_v += n * to_mu
    grad_albedo[i] = to_color
    grad_metallic[i] = to_metal
    if roughness[i] >= SMALLEST_ROUGHNESS and roughness[i] <= 1.0:
        grad_roughness[i] = to_rough
    grad_normal[i] = (to_n - n * wp.dot(n, to_n)) / length
    grad_viewer[i] = (to_v - v * wp.dot(v, to_v)) / distance


class _ShadeMaterial(torch.autograd.Function):
    @staticmethod
    def forward(ctx, albedo, metallic, roughness, normal, toward_viewer, table, polynomial, residual, light, ambient):
        kind = LAMP if polynomial is None else HARMONICS if residual is None else MAP
        nothing = albedo.new_zeros(1, 3)
        sizes = (1, 1, 1) if residual is None else tuple(residual.shape[:3])
        given = [albedo, metallic, roughness, normal, toward_viewer, table, polynomial, residual, light, ambient]
        tensors = [nothing if tensor is None else tensor.contiguous() for tensor in given]
        count = albedo.shape[0]
        ctx.numbers = [int(kind), max(1, count // tensors[9].shape[0]) if kind == LAMP else count, wp.vec3i(*sizes)]
        radiance = torch.zeros_like(tensors[0])
        launch(shade_forward, count, [*_arguments(tensors), *ctx.numbers, rows(radiance)])
        ctx.save_for_backward(*tensors)
        return radiance

    @staticmethod
    def backward(ctx, grad_radiance: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        with_polynomial, with_residual = ctx.needs_input_grad[6:8]
        grads = [torch.zeros_like(tensor) for tensor in tensors[:5]]
        parts = tensors[0].new_zeros((int(SLOTS) if with_polynomial else 1, 10, 3))
        grad_residual = torch.zeros_like(tensors[7]) if with_residual else tensors[0].new_zeros(1, 3)
        launch(
            shade_backward,
            tensors[0].shape[0],
            [rows(grad_radiance.contiguous()), *_arguments(tensors), *ctx.numbers]
            + [int(with_polynomial), int(with_residual), rows(grads[0]), grads[1], grads[2], rows(grads[3])]
            + [rows(grads[4]), rows(parts), rows(grad_residual)],
        )
        return (
            *(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad)),
            None,
            parts.sum(dim=0) if with_polynomial else None,
            grad_residual if with_residual else None,
            None,
            None,
        )


def _arguments(tensors: list[Tensor]) -> list:
    albedo, metallic, roughness, normal, viewer, table, polynomial, residual, light, ambient = tensors
    return [rows(albedo), metallic, roughness, rows(normal), rows(viewer), table] + [
        *(rows(polynomial), rows(residual), rows(light), ambient)
    ]


def shade_material(
    albedo: Tensor,
    metallic: Tensor,
    roughness: Tensor,
    normal: Tensor,
    toward_viewer: Tensor,
    table: Tensor,
    polynomial: Tensor | None,
    residual: Tensor | None,
    light: Tensor | None,
    ambient: Tensor | None,
) -> Tensor:
    """Linear radiance `[P, 3]` of fragments; see `backend.rendering.shade_material`."""
    return _ShadeMaterial.apply(
        albedo, metallic, roughness, normal, toward_viewer, table, polynomial, residual, light, ambient
    )
