"""How much a rough surface reflects, and from where: integrals of the GGX reflection over all light, tabulated once.

Light of spherical-harmonic degree 2 or less is a quadratic polynomial of its direction. Integrated against a GGX lobe
(Walter et al. 2007; height-correlated Smith masking, Heitz 2014) it depends on the normal n, the direction v toward the
viewer and the roughness alone, and so each monomial turns into a short sum with tabulated factors:

    1 -> a0,   w_i -> a1 n_i + a2 v_i,   w_i w_j -> b0 n_i n_j + b1 (n_i v_j + v_i n_j) / 2 + b2 v_i v_j + isotropic

(the isotropic part vanishes for the trace-free quadratic forms of harmonics). Schlick's Fresnel term F0 + (1 - F0) s
splits each factor in two, as in Karis 2013, "Real Shading in Unreal Engine 4": one that goes with F0 and one beside it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_COSINE, SMALLEST_ROUGHNESS

ROUGHNESS_NODES = 32
COSINE_NODES = 32
CHANNELS = 13
"""a0, a1, a2, b0, b1, b2 that go with F0, the same six beside it, and the mean albedo over all directions."""


@cache
def reflectance_table(device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """`[ROUGHNESS_NODES, COSINE_NODES, CHANNELS]`: nodes evenly spaced from the smallest roughness and cosine to 1."""
    return torch.from_numpy(_integrated()).to(device, dtype)


@cache
def _integrated() -> np.ndarray:
    roughness = np.linspace(SMALLEST_ROUGHNESS, 1.0, ROUGHNESS_NODES)
    cosine = np.minimum(np.linspace(SMALLEST_COSINE, 1.0, COSINE_NODES), 1.0 - 1e-3)  # at 1 the plane of n and v is lost
    table = np.stack([integrate_lobe(each, cosine) for each in roughness])
    albedo = table[:, :, 0] + table[:, :, 6]
    # The last node stands for 1, and below the first the albedo hardly matters: the cosine weighs it.
    mean = np.trapezoid(albedo * cosine, cosine, axis=1) / np.trapezoid(cosine, cosine)
    return np.concatenate([table, np.broadcast_to(mean[:, None, None], (*albedo.shape, 1))], axis=2)


def integrate_lobe(roughness: float, cosine: np.ndarray, order: int = 24) -> np.ndarray:
    """The twelve factors `[M, 12]` for one roughness at cosines `[M]` between normal and viewer.

    Quadrature over the distribution of visible normals (Heitz 2018): Gauss-Legendre in the radius of its disk, midpoints
    in half of the angle (the other half mirrors it).
    """
    alpha = roughness * roughness
    nodes, weights = np.polynomial.legendre.leggauss(order)
    polar = 0.25 * np.pi * (nodes + 1.0)
    angle = (np.arange(order) + 0.5) * (np.pi / order) - 0.5 * np.pi
    share = (0.25 * np.pi * weights * 2.0 * np.sin(polar) * np.cos(polar))[:, None] / order * np.ones(order)
    first, second = np.sin(polar)[:, None] * np.cos(angle), np.sin(polar)[:, None] * np.sin(angle)
    first, second, share = (each.reshape(1, -1) for each in (first, second, share))

    mu = cosine[:, None]
    sine = np.sqrt(1.0 - mu * mu)
    length = np.sqrt((alpha * sine) ** 2 + mu**2)
    x, z = alpha * sine / length, mu / length
    blend = 0.5 * (1.0 + z)
    second = (1.0 - blend) * np.sqrt(1.0 - first**2) + blend * second
    third = np.sqrt(np.maximum(1.0 - first**2 - second**2, 0.0))
    half = np.stack([alpha * (third * x - second * z), alpha * first + 0 * mu, np.maximum(third * z + second * x, 0.0)])
    half /= np.linalg.norm(half, axis=0)
    cosine_half = sine * half[0] + mu * half[2]
    lx, ly, lz = 2.0 * cosine_half * half[0] - sine, 2.0 * cosine_half * half[1], 2.0 * cosine_half * half[2] - mu

    above = lz > 0.0
    mask_view, mask_light = _lambda(mu, alpha), _lambda(np.where(above, lz, 1.0), alpha)
    weight = np.where(above, share * (1.0 + mask_view) / (1.0 + mask_view + mask_light), 0.0)
    schlick = (1.0 - cosine_half) ** 5
    factors = []
    for part in (weight * (1.0 - schlick), weight * schlick):
        a0, mx, mz, xx, yy, zz, xz = (
            (part * value).sum(axis=1) for value in (1.0, lx, lz, lx * lx, ly * ly, lz * lz, lx * lz)
        )
        m, s = mu[:, 0], sine[:, 0]
        a2 = mx / s
        b2 = (xx - yy) / s**2
        b1 = 2.0 * (xz / s - b2 * m)
        factors += [a0, mz - a2 * m, a2, zz - yy - b1 * m - b2 * m * m, b1, b2]
    return np.stack(factors, axis=1)


def _lambda(cosine: np.ndarray, alpha: float) -> np.ndarray:
    """Smith's auxiliary function of GGX."""
    return 0.5 * (np.sqrt(1.0 + alpha**2 * (1.0 / cosine**2 - 1.0)) - 1.0)
