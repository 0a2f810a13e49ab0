"""Shading of materials: Lambert under a GGX coat, or GGX metal, as glTF and Blender's Principled BSDF have it."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.illumination import EnvironmentMap, SphericalHarmonics
from backend.rendering.implementation import implementation
from backend.rendering.lighting import Light
from backend.rendering.reflectance import reflectance_table

Illumination = SphericalHarmonics | EnvironmentMap | Light


def shade_material(
    albedo: Tensor,
    metallic: Tensor,
    roughness: Tensor,
    normal: Tensor,
    toward_viewer: Tensor,
    illumination: Illumination,
) -> Tensor:
    """Linear radiance `[..., 3]` that fragments of a metal-rough material send to the viewer.

    A surface that is no metal is Lambert's under a coat of GGX with F0 = 0.04 (index of refraction 1.5), and what the
    coat reflects does not reach the base; a metal is GGX with its albedo as F0; `metallic` blends the two (Burley 2012;
    glTF 2.0, appendix B). Light that bounces between the facets is not lost: the lobe is scaled by its albedo's lack, as
    in Cycles (Turquin 2019). alpha is roughness squared; roughness below 0.05 is shaded as 0.05.

    Under `SphericalHarmonics` these integrals are exact up to a table's resolution. An `EnvironmentMap` is its harmonics
    plus split-sum reflections of the rest (Karis 2013). A `Light`'s lamp has the irradiance `pi * (1 - ambient)`, so that
    white Lambert surfaces show `ambient + (1 - ambient) * max(0, n . l)`, and its ambient part comes from everywhere. No
    light is blocked: there are no shadows and no light from one surface on another.

    The gradient flows to all tensors, and to the harmonics' coefficients or the map's picture, but not to a `Light`.

    Args:
        albedo: `[..., 3]` linear base color in [0, 1].
        metallic: `[..., 1]` in [0, 1], or `[1]`.
        roughness: `[..., 1]` in [0, 1], or `[1]`.
        normal: `[..., 3]`, of any length; where it is 0 the radiance is 0 (background).
        toward_viewer: `[..., 3]` from the surface to the camera, of any length.
        illumination: the light. Under a `Light` of N views the fragments must be `[N, ..., 3]`.

    Raises:
        InputError: shapes or types do not fit, or there are other numbers of views and lights.
    """
    _check(albedo, metallic, roughness, normal, toward_viewer)
    shape, numbers = normal.shape, (*normal.shape[:-1], 1)
    polynomial = residual = light = ambient = None
    if isinstance(illumination, SphericalHarmonics):
        polynomial = illumination.polynomial()
    elif isinstance(illumination, EnvironmentMap):
        polynomial, residual = illumination.split()
    else:
        light, ambient = illumination.direction, illumination.ambient
        if normal.dim() < 2 or len(light) != shape[0]:
            raise InputError(f"A light of {len(light)} views cannot light fragments of shape {list(shape)}.")
    shaded = implementation.shade_material(
        albedo.expand(shape).reshape(-1, 3),
        metallic.expand(numbers).reshape(-1),
        roughness.expand(numbers).reshape(-1),
        normal.reshape(-1, 3),
        toward_viewer.reshape(-1, 3),
        reflectance_table(normal.device),
        polynomial,
        residual,
        light,
        ambient,
    )
    return shaded.view(shape)


def _check(albedo: Tensor, metallic: Tensor, roughness: Tensor, normal: Tensor, toward_viewer: Tensor) -> None:
    given = {"albedo": albedo, "metallic": metallic, "roughness": roughness}
    given |= {"normal": normal, "toward_viewer": toward_viewer}
    for name, values in given.items():
        channels = 1 if name in ("metallic", "roughness") else 3
        fits = values.shape == (*normal.shape[:-1], channels)
        if name not in ("normal", "toward_viewer"):
            fits = fits or values.shape == (channels,)
        if not fits or values.dtype != torch.float32 or normal.dim() == 0:
            expected = [*normal.shape[:-1], channels]
            raise InputError(f"{name} must be float32 of shape {expected}, not {values.dtype} {list(values.shape)}.")
        if values.device != normal.device:
            raise InputError(f"{name} is on {values.device}, but the normals are on {normal.device}; use one device.")
