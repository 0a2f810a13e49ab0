"""A density and color grid over the cube [-1, 1]^3, optimized by volume rendering.

New objects begin here, because a grid can grow handles, legs and holes that a sphere cannot be deformed into. Density
is *post-activated*: logits are interpolated trilinearly and then activated, which lets a coarse grid hold surfaces
sharper than its voxels (Sun et al. 2022, Direct Voxel Grid Optimization, section 4.2). Shading is the mesh renderer's:
Lambert under the same `Light`, here with the visibility-weighted normal of each ray.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from backend.rendering.lighting import CameraPositions, Light, Shading
from backend.rendering.render import Rendered
from backend.rendering.volume import Chords, VolumeImage, mean_depth, render_volume, shade_volume, unit_sphere_chords
from backend.representations.convert import adaptive_surface
from backend.representations.mesh_data import MeshData
from backend.representations.surface_level import SampledField
from backend.representations.volume_regularizers import opacity_entropy
from protocol.settings import GridStage

START_RADIUS = 0.5
START_SLOPE = 10.0
"""The start is a soft ball: logits START_SLOPE * (START_RADIUS - |x|)."""

DENSITY_SCALE = 10.0
"""Density per unit length at softplus(logit) = 1."""

NORMAL_SOFTNESS = 0.25


class RayCameras(CameraPositions, Protocol):
    """What volume rendering needs of the cameras."""

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]: ...


class DensityGrid:
    """Logits of density [R, R, R] and color [R, R, R, 3] at the vertices of a grid over [-1, 1]^3, indexed [z, y, x].

    density = DENSITY_SCALE * softplus(sharpness * logit), color = sigmoid(logit). `sharpness` is 1 at the start; an
    optimization may raise it to press fog into surfaces without moving the level set logit = 0.
    """

    def __init__(self, settings: GridStage, device: torch.device | str = "cpu") -> None:
        axis = torch.linspace(-1.0, 1.0, settings.resolution, device=device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        radius = (x * x + y * y + z * z).sqrt()
        self.settings = settings
        self.sharpness = 1.0
        self.density_logits = (START_SLOPE * (START_RADIUS - radius)).requires_grad_()
        self.color_logits = torch.zeros(*radius.shape, 3, device=device, requires_grad=True)
        self._opacity: Tensor | None = None

    def parameter_groups(self) -> list[dict]:
        """For torch.optim: "density" and "colors"."""
        return [
            {"name": "density", "params": [self.density_logits]},
            {"name": "colors", "params": [self.color_logits]},
        ]

    def render(
        self, cameras: RayCameras, resolution: int, light: Light | None = None, shading: Shading = "lit"
    ) -> Rendered:
        """Volume-render [N, R, R] pixels; `light` and `shading` mean what they mean in `render_mesh`.

        Depth is the mean distance along the viewing axis, differentiable, infinite where less than half of a ray is stopped.
        """
        origins, directions = cameras.rays(resolution, resolution)
        image = self.composite(
            unit_sphere_chords(origins.reshape(-1, 3), directions.reshape(-1, 3), self.settings.samples_per_ray)
        )
        shape = origins.shape[:3]
        alpha = image.opacity.view(*shape, 1)
        if torch.is_grad_enabled():
            self._opacity = alpha
        rgb = shade_volume(image.color.view(*shape, 3), image.normal.view(*shape, 3), alpha, cameras, light, shading)
        depth = mean_depth(image.distance.view(shape), alpha[..., 0], cameras, directions)
        return Rendered(rgb, alpha, depth)

    def regularization(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Unweighted scalars; the first and the last look at the latest render that recorded gradients (0 before it).

        With `names` only those are computed.

        opacity_entropy: mean binary entropy of the rendered opacity, which presses every pixel to see all or nothing.
        total_variation: mean absolute difference of neighboring density logits and colors.
        sparsity: mean rendered opacity, which clears fog (Jain et al. 2022, Dream Fields, section 3.2).
        """
        opacity, zero = self._opacity, self.density_logits.new_zeros(())
        terms = {
            "opacity_entropy": lambda: zero if opacity is None else opacity_entropy(opacity),
            "total_variation": lambda: _total_variation(self.density_logits) + _total_variation(torch.sigmoid(self.color_logits)),
            "sparsity": lambda: zero if opacity is None else opacity.mean(),
        }
        return {name: term() for name, term in terms.items() if names is None or name in names}

    def to_mesh(self) -> MeshData:
        """The grid's surface at a level that suits it now, for previews; empty only if nothing has any density."""
        return adaptive_surface(self)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs."""
        return {
            "density_logits": self.density_logits.detach().clone(),
            "color_logits": self.color_logits.detach().clone(),
            "sharpness": torch.tensor(self.sharpness, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()` into the same parameter tensors."""
        with torch.no_grad():
            self.density_logits.copy_(state["density_logits"])
            self.color_logits.copy_(state["color_logits"])
        self.sharpness = float(state["sharpness"])
        self._opacity = None

    def composite(self, chords: Chords) -> VolumeImage:
        """What rays cut into `chords` see of the grid, unshaded."""
        return render_volume(
            self.density_logits,
            self._normals(),
            torch.sigmoid(self.color_logits),
            chords,
            scale=DENSITY_SCALE,
            sharpness=self.sharpness,
        )

    def sampled(self) -> SampledField:
        """The field at its vertices as it is now, for those who look for its surface."""
        colors = torch.sigmoid(self.color_logits).detach()
        return SampledField(
            self.density_logits.detach(), colors, DENSITY_SCALE, self.sharpness, self.settings.samples_per_ray
        )

    def color_at(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Colors of the field itself at points of the cube."""
        colors = torch.sigmoid(self.color_logits).movedim(-1, 0)[None]
        return functional.grid_sample(colors, points[None, None, None], align_corners=True)[0, :, 0, 0].T

    def _normals(self) -> Float[Tensor, "R R R 3"]:
        """Outward normals at the grid's vertices by central differences, longest near the surface.

        They are taken of a softened occupancy: the logits themselves are noise where nothing is seen, and a sharp
        occupancy would show the grid's steps.
        """
        occupancy = torch.sigmoid(NORMAL_SOFTNESS * self.sharpness * self.density_logits)
        padded = functional.pad(occupancy[None, None], (1, 1, 1, 1, 1, 1), mode="replicate")[0, 0]
        along_x = padded[1:-1, 1:-1, :-2] - padded[1:-1, 1:-1, 2:]
        along_y = padded[1:-1, :-2, 1:-1] - padded[1:-1, 2:, 1:-1]
        along_z = padded[:-2, 1:-1, 1:-1] - padded[2:, 1:-1, 1:-1]
        return torch.stack([along_x, along_y, along_z], dim=-1)


def _total_variation(volume: Tensor) -> Tensor:
    """Mean absolute difference between neighbors along the three axes of [R, R, R, ...]."""
    return sum(torch.diff(volume, dim=axis).abs().mean() for axis in range(3)) / 3.0
