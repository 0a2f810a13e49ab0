"""What shines on a material from afar: spherical harmonics of degree 2, or a latitude-longitude picture.

Both are linear radiance, the same from everywhere in the scene. Spherical harmonics are integrated against the materials'
lobes exactly (`reflectance.py`); they can be optimized, and gradients of a picture's numbers are cheap too. A picture is
split in two: its projection onto the harmonics, and what remains. Only the remainder is blurred beforehand for each
roughness and looked up in the mirror direction (Karis 2013), so that what this neglects touches only fine detail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError

LEVELS = 8
"""Copies of a map for reflections, blurred for roughnesses evenly spaced from 0 to 1; one for diffuse light follows."""

FINEST = 64
"""Rows of the maps that are looked up; larger pictures are averaged down to them (2.8 degrees a row)."""

_LINEAR = math.sqrt(3.0 / (4.0 * math.pi))
_QUADRATIC = math.sqrt(15.0 / (4.0 * math.pi))
_AXIAL = math.sqrt(5.0 / (16.0 * math.pi))


def harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics `[..., 9]` of unit vectors `[..., 3]`.

    Order and signs of Ramamoorthi & Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps",
    equation 3: 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, here in world axes (y is up).
    """
    x, y, z = directions.unbind(dim=-1)
    return monomials(directions) @ _monomials_of_harmonics(x.device, x.dtype)


def monomials(directions: Tensor) -> Tensor:
    """1, x, y, z, xx, yy, zz, xy, yz, xz: `[..., 3]` to `[..., 10]`."""
    x, y, z = directions.unbind(dim=-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, x * z], dim=-1)


@cache
def _monomials_of_harmonics(device: torch.device, dtype: torch.dtype) -> Tensor:
    """`[10, 9]`: harmonics written in monomials, with the quadratic ones free of trace."""
    half = 0.5 * _QUADRATIC
    columns = torch.zeros(9, 10, dtype=torch.float64)
    columns[0, 0] = math.sqrt(1.0 / (4.0 * math.pi))
    columns[1, 2] = columns[2, 3] = columns[3, 1] = _LINEAR
    columns[4, 7] = columns[5, 8] = columns[7, 9] = _QUADRATIC
    columns[6, 4:7] = torch.tensor([-_AXIAL, -_AXIAL, 2.0 * _AXIAL])
    columns[8, 4:6] = torch.tensor([half, -half])
    return columns.T.to(device, dtype)


@dataclass(frozen=True)
class SphericalHarmonics:
    """Radiance as a sum of the nine harmonics of degree 2 or less (see `harmonics`), fixed or optimized.

    Attributes:
        coefficients: `[9, 3]` float32, linear RGB.

    Raises:
        InputError: the coefficients have another shape or type.
    """

    coefficients: Tensor

    def __post_init__(self) -> None:
        given = self.coefficients
        if given.shape != (9, 3) or given.dtype != torch.float32:
            raise InputError(f"coefficients must be float32 of shape [9, 3], not {given.dtype} {list(given.shape)}.")

    @staticmethod
    def uniform(radiance: float = 1.0, device: torch.device | str = "cpu") -> SphericalHarmonics:
        """The same light from everywhere: a white Lambert surface shows `radiance`."""
        coefficients = torch.zeros(9, 3, device=device)
        coefficients[0] = radiance * math.sqrt(4.0 * math.pi)
        return SphericalHarmonics(coefficients)

    def polynomial(self) -> Tensor:
        """Radiance as a polynomial of the direction: factors `[10, 3]` of `monomials`."""
        return _monomials_of_harmonics(self.coefficients.device, self.coefficients.dtype) @ self.coefficients

    def to_image(self, height: int) -> Tensor:
        """The latitude-longitude picture `[height, 2 height, 3]` of this light; it can be negative, as harmonics can."""
        directions = map_directions(height, 2 * height, self.coefficients.device, self.coefficients.dtype)
        return monomials(directions) @ self.polynomial()


class EnvironmentMap:
    """A latitude-longitude picture of linear radiance, laid out as Blender's Environment Texture shows it.

    Row 0 looks up (+y). The column in the middle looks along +x, and columns further to the right turn toward +z: the
    picture, given to Blender's world unchanged, surrounds the object as Blender's import of glTF places it.
    Blurred copies are made at once and kept, unless the picture asks for gradients: then each use makes them anew.
    """

    def __init__(self, image: Tensor) -> None:
        """`image`: `[H, W, 3]` float32; of any size, but only 64 rows of detail are used.

        Raises:
            InputError: the picture has another shape or type, or is smaller than 4 x 8.
        """
        if image.dim() != 3 or image.shape[2] != 3 or image.dtype != torch.float32:
            raise InputError(f"image must be float32 of shape [H, W, 3], not {image.dtype} {list(image.shape)}.")
        if image.shape[0] < 4 or image.shape[1] < 8:
            raise InputError(f"An environment map needs 4 x 8 pixels or more, not {image.shape[0]} x {image.shape[1]}.")
        self.image = image
        self._kept: tuple[Tensor, Tensor] | None = None

    def split(self) -> tuple[Tensor, Tensor]:
        """The harmonic part as a polynomial `[10, 3]`, and the remainder's copies `[LEVELS + 1, h, w, 3]`."""
        if self.image.requires_grad:
            return split_map(self.image)
        if self._kept is None:
            self._kept = split_map(self.image)
        return self._kept


def map_directions(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Unit vectors `[height, width, 3]` through the pixel centers of a latitude-longitude picture."""
    latitude = (0.5 - (torch.arange(height, device=device, dtype=dtype) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, device=device, dtype=dtype) + 0.5) / width - 0.5) * (2.0 * math.pi)
    around = torch.stack([longitude.cos(), torch.zeros_like(longitude), longitude.sin()], dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], device=device, dtype=dtype)
    return latitude.cos()[:, None, None] * around + latitude.sin()[:, None, None] * up


def split_map(image: Tensor) -> tuple[Tensor, Tensor]:
    """See `EnvironmentMap.split`; differentiable in `image` `[H, W, 3]` of any float type."""
    height = min(image.shape[0], FINEST)
    width = min(image.shape[1], 2 * FINEST)
    if image.shape[:2] != (height, width):
        image = torch.nn.functional.adaptive_avg_pool2d(image.permute(2, 0, 1), (height, width)).permute(1, 2, 0)
    basis, projection = _projection(height, width, image.device, image.dtype)
    coefficients = torch.einsum("hwk,hwc->kc", projection, image)
    rest = image - basis @ coefficients
    # Every blur is a circular convolution along the rows' pixels: one matrix over the rows for each frequency.
    frequencies = torch.fft.rfft(rest, dim=1)
    lobes = _lobes(height, width, image.device, image.dtype).to(frequencies.dtype)
    blurred = torch.fft.irfft(torch.einsum("loif,ifc->lofc", lobes, frequencies), n=width, dim=2)
    return _monomials_of_harmonics(image.device, image.dtype) @ coefficients, torch.cat([rest[None], blurred])


@cache
def _projection(height: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The harmonics at the pixels of a map `[h, w, 9]`, and what to weigh pixels with for their coefficients.

    The coefficients are those of least squares over the sphere: of a picture of harmonics they are its own.
    """
    basis = harmonics(map_directions(height, width, torch.device("cpu"), torch.float64))
    edges = torch.linspace(0.5, -0.5, height + 1, dtype=torch.float64).mul(math.pi).sin()
    weighted = basis * (edges[:-1] - edges[1:])[:, None, None]
    projection = weighted @ torch.linalg.inv(torch.einsum("hwk,hwl->kl", weighted, basis))
    return basis.to(device, dtype), projection.to(device, dtype)


@cache
def _lobes(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Blurs for all copies but the first: `[LEVELS, row out, row in, frequency]`, real since lobes are even.

    For reflections the lobe is GGX's, weighted by the cosine, of a surface whose normal, viewer and mirror direction are
    one; for diffuse light it is the cosine.
    """
    latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    longitude = np.arange(width) * (2.0 * np.pi / width)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    aligned = sine[:, None, None] * sine[:, None] + cosine[:, None, None] * cosine[:, None] * np.cos(longitude)
    lit = aligned.clip(0.0) * cosine[:, None]
    lobes = []
    for roughness in np.arange(1, LEVELS) / (LEVELS - 1):
        # squared sine and cosine of the half vector's angle, without cancellation
        lobes.append(lit / (0.5 * (1.0 - aligned) + roughness**4 * 0.5 * (1.0 + aligned)) ** 2)
    lobes = np.stack([*lobes, lit])
    lobes /= lobes.sum(axis=(2, 3), keepdims=True)
    lobes = np.fft.rfft(lobes, axis=3).real
    return torch.from_numpy(lobes).to(device, dtype)
