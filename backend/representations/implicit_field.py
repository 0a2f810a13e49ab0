"""A field of density and color over the cube [-1, 1]^3: an encoding of points, and a small network that reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from backend.errors import InputError
from backend.representations.field_encodings import (
    Encoding,
    FrequencyEncoding,
    HashGridEncoding,
    TriPlaneEncoding,
    spherical_harmonics,
)

START_RADIUS = 0.5
START_SLOPE = 10.0
"""The bias of the density's logit is START_SLOPE * (START_RADIUS - |x|): the field begins as a soft ball."""

DENSITY_SCALE = 10.0
"""Density per unit length at softplus(logit) = 1."""

COLOR_BANDS = 8
"""Coefficients a color channel has beside its mean: spherical harmonics of degrees 1 and 2."""

START_SEED = 0
"""Networks and tables begin alike in every job: a job's seed is for what is drawn while it runs."""


class ImplicitField(nn.Module):
    """density = DENSITY_SCALE * softplus(network + bias), color = sigmoid(network), at points [P, 3].

    Softplus, as Magic3D has it (Lin et al. 2023, section 4.1), rather than an exponential: its slope is bounded, so that
    density that is there already does not grow fastest, and a step of Adam means the same at any density. The bias
    stays while the field learns: the empty corners begin empty, and a field without it would begin as fog that hides
    everything behind it.

    A view-dependent color adds to its logits spherical harmonics of degrees 1 and 2 of the viewing direction, whose mean
    over all directions is 0; without a direction the color is that mean, the one that a mesh is given.
    """

    def __init__(self, encoding: Encoding, hidden: tuple[int, ...], view_dependent: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.encoding = encoding
        self.view_dependent = view_dependent
        outputs = 1 + 3 * (1 + COLOR_BANDS * view_dependent)
        sizes = (encoding.width, *hidden, outputs)
        self.layers = nn.ModuleList(_linear(a, b, generator) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Density per unit length at points of the cube."""
        return self._activated_density(self._read(points)[:, 0], points)

    def density_logit(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """The density before its activation: its slope tells the normal also where the density is nearly 0."""
        return self._read(points)[:, 0] + start_bias(points)

    def forward(
        self, points: Float[Tensor, "P 3"], directions: Float[Tensor, "P 3"] | None = None
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P 3"]]:
        """Density and color; `directions` (unit, from the viewer into the scene) matter to a view-dependent color."""
        values = self._read(points)
        color = values[:, 1:4]
        if self.view_dependent and directions is not None:
            bands = values[:, 4:].view(-1, 3, COLOR_BANDS)
            color = color + torch.einsum("pcb,pb->pc", bands, spherical_harmonics(directions))
        return self._activated_density(values[:, 0], points), torch.sigmoid(color)

    def _read(self, points: Tensor) -> Tensor:
        values = self.encoding(points)
        for layer in self.layers[:-1]:
            values = functional.relu(layer(values))
        return self.layers[-1](values)

    @staticmethod
    def _activated_density(logit: Tensor, points: Tensor) -> Tensor:
        return DENSITY_SCALE * functional.softplus(logit + start_bias(points))


def start_bias(points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
    """What the density's logit is at the start; without slope at the very center, where the distance has none."""
    distance = points.square().sum(dim=1).clamp_min(1e-12).sqrt()
    return START_SLOPE * (START_RADIUS - distance)


def make_field(encoding: str, resolution: int, view_dependent: bool) -> ImplicitField:
    """The field that a stage's settings name: "hash grid", "tri-plane" or "mlp".

    Raises:
        InputError: there is no such encoding.
    """
    generator = torch.Generator().manual_seed(START_SEED)
    if encoding == "hash grid":
        return ImplicitField(HashGridEncoding(resolution, generator), (32,), view_dependent, generator)
    if encoding == "tri-plane":
        return ImplicitField(TriPlaneEncoding(resolution, generator), (32,), view_dependent, generator)
    if encoding == "mlp":
        return ImplicitField(FrequencyEncoding(resolution), (64, 64, 64), view_dependent, generator)
    raise InputError(f'The encoding is "{encoding}"; use "hash grid", "tri-plane" or "mlp".')


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer that begins uniform, as torch's own does (He et al. 2015), without torch's global generator."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_((2.0 * torch.rand(outputs, inputs, generator=generator) - 1.0) * inputs**-0.5)
        layer.bias.zero_()
    return layer
