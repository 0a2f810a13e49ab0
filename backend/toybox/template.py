"""The prior's coarse 3D guess: caption -> a small colored density volume -> its picture from a camera.

A denoiser that only sees additive embeddings learns color quickly but not which way an object faces. This network is
three-dimensional by construction: the caption's pooled embedding mixes a learned linear basis of volumes (density,
shade and part membership), part colors are read from the caption's words by attention, and the volume is rendered at
the requested camera by quadrature (Max 1995). Every view of one caption therefore shows one object. The denoiser is
preconditioned on that picture (``model.py``); the guess is blurred, a mean over instances, and knows no lights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn


DENSITY_SCALE = 12.0
"""Density per unit length where softplus(logit) is 1."""


class VolumeTemplate(ModelMixin, ConfigMixin):
    """Caption embeddings -> volume -> premultiplied RGBA pictures.

    `basis` volumes are mixed linearly; density lives on a grid of `density_size`, part membership and shade on one of
    `part_size`; both span [-1, 1]^3. `parts` is the number of colors an object may have.
    """

    @register_to_config
    def __init__(
        self, text_width: int = 64, basis: int = 64, density_size: int = 24, part_size: int = 16, parts: int = 3
    ) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(text_width, 160), nn.SiLU(), nn.Linear(160, basis), nn.LayerNorm(basis))
        # Small basis volumes and a ball as the common start: from a random start the density dies to zero.
        self.density_basis = nn.Parameter(0.02 * torch.randn(basis, density_size**3))
        self.part_basis = nn.Parameter(0.02 * torch.randn(basis, (parts + 1) * part_size**3))
        self.density_mean = nn.Parameter(_ball(density_size).reshape(-1))
        self.part_mean = nn.Parameter(torch.zeros((parts + 1) * part_size**3))
        self.part_queries = nn.Parameter(torch.randn(parts, text_width))
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
        parts = (self.part_mean + 4.0 * mix @ self.part_basis).view(-1, c.parts + 1, *(c.part_size,) * 3)
        scores = self.part_queries @ self.word_keys(tokens).transpose(1, 2) / c.text_width**0.5
        weights = scores.masked_fill(mask[:, None] == 0, float("-inf")).softmax(-1)
        read = weights @ self.word_values(tokens)
        context = pooled[:, None].expand_as(read)
        return density, parts, torch.sigmoid(self.color(torch.cat([read, context], -1)))

    def march(
        self,
        volume: tuple[Tensor, Tensor, Tensor],
        origins: Float[Tensor, "B R 3"],
        directions: Float[Tensor, "B R 3"],
        samples: int = 24,
    ) -> Float[Tensor, "B R 4"]:
        """Premultiplied RGBA along rays [B, R] that look at the unit sphere from outside it."""
        density, parts, colors = volume
        b, r, _ = origins.shape
        # Rays are sampled where they cross the unit sphere, which holds every finished object.
        middle = -(origins * directions).sum(-1)
        half = (1 - (origins.square().sum(-1) - middle.square())).clamp_min(0).sqrt()
        fraction = (torch.arange(samples, device=origins.device) + 0.5) / samples * 2 - 1
        depth = middle[..., None] + half[..., None] * fraction
        points = (origins[:, :, None] + depth[..., None] * directions[:, :, None]).view(b, 1, r, samples, 3)
        sigma = F.softplus(F.grid_sample(density, points, align_corners=True)[:, 0, 0])
        optical = sigma * DENSITY_SCALE * (2 * half / samples)[..., None]
        alpha = 1 - torch.exp(-optical)
        through = torch.exp(-(optical.cumsum(-1) - optical))
        weight = alpha * through
        if torch.is_grad_enabled():
            logits = F.grid_sample(parts, points, align_corners=True)[:, :, 0].permute(0, 2, 3, 1)
            color = self.sample_colors(logits, colors[:, None, None])
            return torch.cat([(weight[..., None] * color).sum(2), weight.sum(-1, keepdim=True)], -1)
        # Most samples are empty: without gradients, parts are looked up only where something is seen.
        rgb = torch.zeros(b, r, 3, device=origins.device)
        for i in range(b):
            ray, sample = torch.nonzero(weight[i] > 1e-3, as_tuple=True)
            logits = F.grid_sample(parts[i : i + 1], points[i : i + 1, :, ray, sample][:, None], align_corners=True)
            color = self.sample_colors(logits[0, :, 0, 0].T, colors[i])
            rgb[i].index_add_(0, ray, weight[i, ray, sample, None] * color)
        return torch.cat([rgb, weight.sum(-1, keepdim=True)], -1)

    @staticmethod
    def sample_colors(logits: Float[Tensor, "... K"], colors: Float[Tensor, "... P 3"]) -> Float[Tensor, "... 3"]:
        """Shaded colors of samples; membership is decided for each sample, so that part borders stay sharp."""
        shade = 0.8 + 0.3 * torch.tanh(logits[..., :1])
        return shade * (logits[..., 1:].softmax(-1)[..., None, :] @ colors)[..., 0, :]


def _ball(size: int) -> Tensor:
    """Logits of a soft ball of radius 0.55 on a grid over [-1, 1]^3."""
    axis = torch.linspace(-1, 1, size)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return 8.0 * (0.55 - radius)
