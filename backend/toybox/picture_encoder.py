"""What the prior learns from pictures of an object: a change of its 3D guess, and of what the denoiser is told.

A small convolutional network looks at each picture. From the whole of it comes a vector that moves the mix of the template's
learned volumes (kind, size and stance, also of what no picture shows) and its part colors; from every pixel come features that
are carried along the pixel's ray into the volume (as in pixelNeRF, Yu et al. 2021, section 4.1) and correct it there, with the
visual hull of the silhouettes (Laurentini 1994) among them. All pictures of an object are treated alike, so their order does
not matter. Untrained it changes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from backend.cameras import Cameras
from backend.toybox.template import PARTS, Volume, VolumeTemplate

PICTURE_CHANNELS = 4
LOCAL = 8
"""Features of a pixel that are carried to the density's own, finer grid."""

COVERED = 0.95
COLOR_RIDGE = 0.005
"""Squared error of a color that weighs as much as the same error in this share of an object's pixels."""


class PictureEncoder(ModelMixin, ConfigMixin):
    """Pictures of one object and their cameras -> a volume that shows it, and a correction of the pooled caption."""

    @register_to_config
    def __init__(self, text_width: int = 64, latent: int = 128, basis: int = 64, features: int = 16, width: int = 16) -> None:
        super().__init__()
        self.looks = PictureFeatures(features)
        self.describe = nn.Sequential(
            nn.Linear(self.looks.deepest + 4, 2 * latent), nn.SiLU(), nn.Linear(2 * latent, latent)
        )
        self.join = nn.Sequential(nn.Linear(latent + text_width, latent), nn.SiLU(), nn.Linear(latent, latent), nn.LayerNorm(latent))
        self.mix = nn.Linear(latent, basis)
        self.color_scores = nn.Conv2d(features, PARTS, 1)
        self.color = nn.Sequential(nn.Linear(latent + 6 * PARTS, 96), nn.SiLU(), nn.Linear(96, 4 * PARTS))
        self.local = nn.Conv2d(features, LOCAL, 1)
        self.correct = VolumeCorrection(features + PICTURE_CHANNELS + PARTS, width, LOCAL + 1)
        self.tell = nn.Linear(latent, text_width)
        for last in (self.mix, self.color[-1], self.tell):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        pictures: Float[Tensor, "B R 4 H W"],
        cameras: Cameras,
        template: VolumeTemplate,
        volume: Volume,
        pooled: Float[Tensor, "B E"],
    ) -> tuple[Volume, Float[Tensor, "B L"]]:
        """Premultiplied RGBA `pictures` by B * R `cameras` -> the template's `volume` corrected, and what `tell` takes."""
        count, views = pictures.shape[:2]
        features, deepest = self.looks(pictures.flatten(0, 1))
        angles = torch.deg2rad(torch.stack([cameras.azimuth, cameras.elevation], -1))
        seen = self.describe(torch.cat([deepest, angles.sin(), angles.cos()], -1))
        latent = self.join(torch.cat([seen.unflatten(0, (count, views)).mean(1), pooled], -1))

        density, parts, colors = (a + b for a, b in zip(volume, (*template.mixture(self.mix(latent) / 8.0), 0.0)))
        colors = self._recolor(colors, features.unflatten(0, (count, views)), pictures, latent)
        parts_size, density_size = parts.shape[-1], density.shape[-1]

        planes = torch.cat([features, pictures.flatten(0, 1)], 1)
        coarse = unproject(planes, cameras, parts_size).unflatten(0, (count, views))
        mean, hull = coarse.mean(1), coarse[:, :, -1:].amin(1)
        straight = mean[:, -4:-1] / mean[:, -1:].clamp_min(0.05)
        unlike = (straight[:, None] - colors[..., None, None, None]).square().sum(2)
        fine = unproject(torch.cat([self.local(features), pictures.flatten(0, 1)[:, 3:]], 1), cameras, density_size)
        fine = fine.unflatten(0, (count, views))
        fine = torch.cat([fine[:, :, :-1].mean(1), fine[:, :, -1:].amin(1)], 1)
        more_density, more_parts = self.correct(torch.cat([mean[:, :-1], hull, unlike], 1), fine, density, parts)
        return (density + more_density, parts + more_parts, colors), latent

    def _recolor(self, colors: Tensor, features: Tensor, pictures: Tensor, latent: Tensor) -> Tensor:
        """Part colors [B, P, 3] moved by what the pictures show where each part is looked for."""
        scores = self.color_scores(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        scores = scores.permute(0, 2, 1, 3, 4).flatten(2)
        pixels = pictures.permute(0, 1, 3, 4, 2).flatten(1, 3)
        weighted = scores.softmax(-1) @ pixels
        found = weighted[..., :3] / weighted[..., 3:].clamp_min(1e-3)
        logits = torch.logit(colors.clamp(0.02, 0.98))
        answer = self.color(torch.cat([latent, logits.flatten(1), 2 * found.flatten(1)], -1))
        change, taken = answer.split([3 * PARTS, PARTS], -1)
        seen = torch.logit(found.clamp(0.02, 0.98))
        return torch.sigmoid(logits + change.view_as(logits) + taken[..., None] * (seen - logits))


class PictureFeatures(nn.Module):
    """[N, 4, 32, 32] -> features of each pixel [N, C, 32, 32] and of the whole [N, `deepest`]: a small U-shaped network."""

    deepest = 1024

    def __init__(self, features: int) -> None:
        super().__init__()
        self.enter = _block(PICTURE_CHANNELS + 2, 24, 1)
        self.down = nn.ModuleList([_block(24, 40, 2), _block(40, 64, 2), _block(64, 64, 2)])
        self.up = nn.ModuleList([_block(64 + 64, 64, 1), _block(64 + 40, 40, 1), _block(40 + 24, features, 1)])

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        axis = torch.linspace(-1, 1, pictures.shape[-1], device=pictures.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(pictures), -1, -1, -1)
        x = self.enter(torch.cat([pictures * 2 - 1, place], 1))
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        whole = x.flatten(1)
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], 1))
        return x, whole


class VolumeCorrection(nn.Module):
    """What pictures say about places -> additions to density logits [B, 1, D, D, D] and to shade and part logits."""

    def __init__(self, seen: int, width: int, fine: int) -> None:
        super().__init__()
        self.enter = nn.Conv3d(seen + 1 + PARTS + 1 + 3, width, 1)
        self.near = _block(width, width, 1, nn.Conv3d)
        self.far = nn.Sequential(_block(width, 2 * width, 2, nn.Conv3d), _block(2 * width, 2 * width, 1, nn.Conv3d))
        self.join = nn.Sequential(nn.Conv3d(4 * width, 2 * width, 1), nn.SiLU())
        self.parts = nn.Conv3d(2 * width, PARTS + 1, 1)
        self.context = nn.Conv3d(2 * width, width // 2, 1)
        self.density = nn.Sequential(nn.Conv3d(width // 2 + fine + 1, 24, 1), nn.SiLU(), nn.Conv3d(24, 1, 1))
        for last in (self.parts, self.density[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, seen: Tensor, fine: Tensor, density: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        size = parts.shape[-3:]
        guess = torch.cat([_resample(density, size), parts], 1)
        place = grid_points(size[0], seen.device).T.reshape(1, 3, *size).expand(len(seen), -1, -1, -1, -1)
        x = self.enter(torch.cat([seen, torch.tanh(guess / 4), place], 1))
        near = self.near(x)
        x = self.join(torch.cat([x, near, _resample(self.far(near), size)], 1))
        context = _resample(self.context(x), density.shape[-3:])
        return self.density(torch.cat([context, fine, torch.tanh(density / 4)], 1)), self.parts(x)


def fit_part_colors(
    membership: Float[Tensor, "G R P H W"], pictures: Float[Tensor, "G R 4 H W"], colors: Float[Tensor, "G P 3"]
) -> Float[Tensor, "G P 3"]:
    """The part colors in [0, 1] that explain premultiplied `pictures` best, in the least-squares sense, but stay near `colors`.

    `membership` is the rendered share of each part in each pixel: with colors c the guess shows sum_p membership_p c_p. Only what
    the object covers whole counts. Ridge regression toward `colors` (Hoerl and Kennard 1970): a part that is not seen keeps its own.
    """
    covered = (pictures[:, :, 3:] > COVERED).float()
    shares = (membership * covered).movedim(2, -1).flatten(1, 3)
    seen = (pictures[:, :, :3] * covered).movedim(2, -1).flatten(1, 3)
    ridge = COLOR_RIDGE * covered.flatten(1).sum(1).clamp_min(1.0)[:, None, None]
    normal = shares.transpose(1, 2) @ shares + ridge * torch.eye(shares.shape[-1], device=shares.device)
    return torch.linalg.solve(normal, shares.transpose(1, 2) @ seen + ridge * colors).clamp(0.0, 1.0)


def grid_points(size: int, device: torch.device | str) -> Float[Tensor, "V 3"]:
    """World positions (x, y, z) of a volume's samples over [-1, 1]^3, in the order of a grid indexed [z, y, x]."""
    axis = torch.linspace(-1, 1, size, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).flip(-1)


def unproject(planes: Float[Tensor, "N C H W"], cameras: Cameras, size: int) -> Float[Tensor, "N C S S S"]:
    """What each of N pictures shows, bilinearly, at the projection of each sample of a volume; zero outside of the picture."""
    points = grid_points(size, planes.device)
    view = cameras.view_matrix()
    local = points @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
    tangent = torch.tan(torch.deg2rad(cameras.fov / 2))[:, None, None]
    # Rows of a picture run downward, and cameras look along -z.
    place = local[..., :2] * local.new_tensor([1.0, -1.0]) / (-local[..., 2:] * tangent)
    sampled = F.grid_sample(planes, place[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.unflatten(2, (size, size, size))[..., 0]


def _block(channels: int, width: int, stride: int, convolution: type[nn.Module] = nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution(channels, width, 3, stride, 1), nn.GroupNorm(8, width), nn.SiLU())


def _resample(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(grid, tuple(size), mode="trilinear", align_corners=True)
