"""Metal-rough shading of fragments, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backend.rendering.constants import DIELECTRIC_F0, SMALLEST_COSINE, SMALLEST_LENGTH, SMALLEST_ROUGHNESS


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
    """Linear radiance `[P, 3]` of fragments; see `backend.rendering.shade_material`.

    Vectors are `[P, 3]`, metallic and roughness `[P]`. Either `polynomial` `[10, 3]` describes the light, with
    `residual` `[L, H, W, 3]` for what it lacks of an environment map (see `EnvironmentMap.split`) or None; or `light`
    and `ambient`, `[N, 3]` and `[N]`, do, each for P / N fragments.
    """
    lit = (normal.detach() != 0).any(dim=-1)
    n = _unit(torch.where(lit[:, None], normal, torch.ones_like(normal)))
    v = _unit(toward_viewer)
    facing = (n * v).sum(dim=-1)
    mu = facing.clamp(SMALLEST_COSINE, 1.0)
    roughness = roughness.clamp(SMALLEST_ROUGHNESS, 1.0)
    factors = _look_up_table(table, roughness, mu)
    with_f0, beside, mean_albedo = factors[:, :6], factors[:, 6:12], factors[:, 12]
    a, b = with_f0[:, 0], beside[:, 0]
    if polynomial is None:
        each = len(n) // max(1, len(ambient))
        light, ambient = light.repeat_interleave(each, dim=0), ambient.repeat_interleave(each)
        diffuse, part_a, part_b = _under_lamp(n, v, mu, roughness, a, b, light, ambient)
    else:
        lambert = factors.new_tensor([1.0, 2.0 / 3.0, 0.0, 0.25, 0.0, 0.0]).expand(len(n), 6)
        diffuse, part_a, part_b = (_features(lobe, n, v) @ polynomial for lobe in (lambert, with_f0, beside))
        if residual is not None:
            last = len(residual) - 1
            diffuse = diffuse + _look_up_map(residual, n, torch.full_like(roughness, last))
            mirrored = _look_up_map(residual, 2.0 * facing[:, None] * n - v, roughness * (last - 1))
            part_a, part_b = part_a + a[:, None] * mirrored, part_b + b[:, None] * mirrored

    lost = (1.0 / (a + b) - 1.0)[:, None]
    a, b, mean_albedo, metallic = (value[:, None] for value in (a, b, mean_albedo, metallic))
    plain_f0 = torch.full_like(lost, DIELECTRIC_F0)
    plain, tinted = (1.0 + lost * _multiple_bounces(f0, mean_albedo) for f0 in (plain_f0, albedo))
    coating = (plain_f0 * a + b) * plain
    dielectric = (1.0 - coating) * albedo * diffuse + plain * (plain_f0 * part_a + part_b)
    metal = tinted * (albedo * part_a + part_b)
    return ((1.0 - metallic) * dielectric + metallic * metal) * lit[:, None]


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(SMALLEST_LENGTH)


def _multiple_bounces(f0: Tensor, mean_albedo: Tensor) -> Tensor:
    """What the light that a lobe loses to further bounces is multiplied with in them (Fdez-Agüera 2019)."""
    mean_fresnel = f0 + (1.0 - f0) / 21.0
    return mean_fresnel * mean_albedo / (1.0 - mean_fresnel * (1.0 - mean_albedo))


def _look_up_table(table: Tensor, roughness: Tensor, mu: Tensor) -> Tensor:
    rows, columns = table.shape[:2]
    x = (roughness - SMALLEST_ROUGHNESS) * ((rows - 1) / (1.0 - SMALLEST_ROUGHNESS))
    y = (mu - SMALLEST_COSINE) * ((columns - 1) / (1.0 - SMALLEST_COSINE))
    i, j = x.detach().long().clamp(0, rows - 2), y.detach().long().clamp(0, columns - 2)
    s, t = (x - i)[:, None], (y - j)[:, None]
    lower = table[i, j] * (1.0 - t) + table[i, j + 1] * t
    upper = table[i + 1, j] * (1.0 - t) + table[i + 1, j + 1] * t
    return lower * (1.0 - s) + upper * s


def _features(lobe: Tensor, n: Tensor, v: Tensor) -> Tensor:
    """The integrals `[P, 10]` of 1, x, y, z, xx, yy, zz, xy, yz, xz over lobes given by their factors `[P, 6]`."""
    a0, a1, a2, b0, b1, b2 = (value[:, None] for value in lobe.unbind(dim=1))
    mixed = 0.5 * (n * v.roll(-1, 1) + v * n.roll(-1, 1))
    return torch.cat(
        [
            a0,
            a1 * n + a2 * v,
            b0 * n * n + b1 * n * v + b2 * v * v,
            b0 * n * n.roll(-1, 1) + b1 * mixed + b2 * v * v.roll(-1, 1),
        ],
        dim=1,
    )


def _look_up_map(levels: Tensor, direction: Tensor, level: Tensor) -> Tensor:
    """Trilinear lookup `[P, 3]` of latitude-longitude maps `[L, H, W, 3]` in `direction` `[P, 3]` at `level` `[P]`."""
    count, height, width = levels.shape[:3]
    x, y, z = direction.unbind(dim=1)
    across = x * x + z * z
    away = across.detach() > SMALLEST_LENGTH**2  # at the poles no longitude is right
    x, z = torch.where(away, x, 1.0), torch.where(away, z, 0.0)
    horizontal = torch.where(away, torch.where(away, across, 1.0).sqrt(), 0.0)
    column = (0.5 + torch.atan2(z, x) / (2.0 * math.pi)) * width - 0.5
    row = ((0.5 - torch.atan2(y, horizontal) / math.pi) * height - 0.5).clamp(0.0, height - 1.0)
    left, top, first = column.detach().floor(), row.detach().floor(), level.detach().floor().clamp_max(count - 2)
    s, t, u = (column - left)[:, None], (row - top)[:, None], (level - first)[:, None]
    left, right = left.long() % width, (left.long() + 1) % width
    top, bottom = top.long(), (top.long() + 1).clamp_max(height - 1)
    first = first.long()

    def at(level: Tensor) -> Tensor:
        upper = levels[level, top, left] * (1.0 - s) + levels[level, top, right] * s
        lower = levels[level, bottom, left] * (1.0 - s) + levels[level, bottom, right] * s
        return upper * (1.0 - t) + lower * t

    return at(first) * (1.0 - u) + at(first + 1) * u


def _under_lamp(
    n: Tensor, v: Tensor, mu: Tensor, roughness: Tensor, a: Tensor, b: Tensor, light: Tensor, ambient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Diffuse light and the two parts of the reflected one, each `[P, 1]`, under a distant lamp and ambient light."""
    toward = (n * light).sum(dim=-1)
    lit = toward.detach() > 0.0
    toward = toward.clamp_min(0.0)
    half = _unit(light + v)
    squared = roughness**4
    aligned = (n * half).sum(dim=-1)
    # 1 - aligned^2 without the cancellation that would spoil narrow highlights
    spread = squared * aligned**2 + (torch.linalg.cross(n, half, dim=-1) ** 2).sum(dim=-1)
    mask = toward * (mu**2 * (1.0 - squared) + squared).sqrt() + mu * (toward**2 * (1.0 - squared) + squared).sqrt()
    lobe = torch.where(lit, (1.0 - ambient) * squared * toward / (2.0 * spread**2 * mask), 0.0)
    schlick = (1.0 - (v * half).sum(dim=-1).clamp(0.0, 1.0)) ** 5
    diffuse = ambient + (1.0 - ambient) * toward
    return (
        diffuse[:, None],
        (ambient * a + lobe * (1.0 - schlick))[:, None],
        (ambient * b + lobe * schlick)[:, None],
    )
