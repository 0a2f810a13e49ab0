"""The prior's coarse 3D guess: caption -> a small colored density volume -> its picture from a camera.

A denoiser that only sees additive embeddings learns color quickly but not which way an object faces. This network is
three-dimensional by construction: the caption's pooled embedding mixes a learned linear basis of volumes (density,
shade and part membership), part colors are read from the caption's words by attention, and the volume is rendered at
the requested camera by quadrature (Max 1995). Every view of one caption therefore shows one object. The denoiser is
preconditioned on that picture (``model.py``); the guess is blurred, a mean over instances, and knows no lights.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from backend.rendering.volume import render_parts, unit_sphere_chords

PARTS = 3
"""Colors that an object may have: as many as `render_parts` mixes."""

DENSITY_SCALE = 12.0
"""Density per unit length where softplus(logit) is 1."""


Volume = tuple[Tensor, Tensor, Tensor]
"""Density before softplus [B, 1, D, D, D], shade and part logits [B, K, S, S, S], part colors [B, P, 3] in [0, 1]."""


class VolumeTemplate(ModelMixin, ConfigMixin):
    """Caption embeddings -> volume -> premultiplied RGBA pictures.

    `basis` volumes are mixed linearly; density lives on a grid of `density_size`, part membership and shade on one of
    `part_size`; both span [-1, 1]^3. An object has up to `PARTS` colors.
    """

    @register_to_config
    def __init__(
        self, text_width: int = 64, basis: int = 64, density_size: int = 24, part_size: int = 16
    ) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(text_width, 160), nn.SiLU(), nn.Linear(160, basis), nn.LayerNorm(basis))
        # Small basis volumes and a ball as the common start: from a random start the density dies to zero.
        self.density_basis = nn.Parameter(0.02 * torch.randn(basis, density_size**3))
        self.part_basis = nn.Parameter(0.02 * torch.randn(basis, (PARTS + 1) * part_size**3))
        self.density_mean = nn.Parameter(_ball(density_size).reshape(-1))
        self.part_mean = nn.Parameter(torch.zeros((PARTS + 1) * part_size**3))
        self.part_queries = nn.Parameter(torch.randn(PARTS, text_width))
        self.word_keys = nn.Linear(text_width, text_width)
        self.word_values = nn.Sequential(nn.Linear(text_width, 96), nn.SiLU(), nn.Linear(96, text_width))
        self.color = nn.Sequential(nn.Linear(2 * text_width, 96), nn.SiLU(), nn.Linear(96, 3))

    def volume(
        self, tokens: Float[Tensor, "B L E"], mask: Float[Tensor, "B L"], pooled: Float[Tensor, "B E"]
    ) -> tuple[Float[Tensor, "B 1 D D D"], Float[Tensor, "B K S S S"], Float[Tensor, "B P 3"]]:
        """Density before softplus, shade and part logits, and part colors in [0, 1]; grids are indexed [z, y, x]."""
        c = self.config
        mix = self.mix(pooled) / c.basis**0.5
        density = (self.density_mean + 4.0 * mix @ self.density_basis).view(-1, 1, *(c.density_size,) * 3)
        parts = (self.part_mean + 4.0 * mix @ self.part_basis).view(-1, PARTS + 1, *(c.part_size,) * 3)
        scores = self.part_queries @ self.word_keys(tokens).transpose(1, 2) / c.text_width**0.5
        weights = scores.masked_fill(mask[:, None] == 0, float("-inf")).softmax(-1)
        read = weights @ self.word_values(tokens)
        context = pooled[:, None].expand_as(read)
        return density, parts, torch.sigmoid(self.color(torch.cat([read, context], -1)))

    def mixture(self, mix: Float[Tensor, "B M"]) -> tuple[Float[Tensor, "B 1 D D D"], Float[Tensor, "B K S S S"]]:
        """What a change of the mix adds to density and to shade and part logits."""
        c = self.config
        density = (4.0 * mix @ self.density_basis).view(-1, 1, *(c.density_size,) * 3)
        return density, (4.0 * mix @ self.part_basis).view(-1, PARTS + 1, *(c.part_size,) * 3)

    def march(
        self,
        volume: Volume,
        origins: Float[Tensor, "B R 3"],
        directions: Float[Tensor, "B R 3"],
        samples: int = 24,
    ) -> Float[Tensor, "B R 4"]:
        """Premultiplied RGBA along rays [B, R] that look at the unit sphere from outside it."""
        density, parts, colors = volume
        chords = unit_sphere_chords(origins.reshape(-1, 3), directions.reshape(-1, 3), samples)
        # Most samples are empty: in pictures without gradients, colors are looked up only where something is seen.
        negligible = 0.0 if torch.is_grad_enabled() else 1e-3
        return render_parts(density[:, 0], parts, colors, chords, scale=DENSITY_SCALE, negligible=negligible)

    @staticmethod
    def sample_colors(logits: Float[Tensor, "... K"], colors: Float[Tensor, "... P 3"]) -> Float[Tensor, "... 3"]:
        """Shaded colors of points where the volume's shade and part logits are `logits`, as `render_parts` mixes them."""
        shade = 0.8 + 0.3 * torch.tanh(logits[..., :1])
        return shade * (logits[..., 1:].softmax(-1)[..., None, :] @ colors)[..., 0, :]


def _ball(size: int) -> Tensor:
    """Logits of a soft ball of radius 0.55 on a grid over [-1, 1]^3."""
    axis = torch.linspace(-1, 1, size)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return 8.0 * (0.55 - radius)
