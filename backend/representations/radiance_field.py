"""A radiance field inside the unit sphere, optimized by volume rendering.

Like the density grid it can grow what a sphere cannot be deformed into; unlike it, its detail is where a network and
its encoding put it and not at the vertices of a coarse grid. Shading is the mesh renderer's: Lambert under the same
`Light`, with the visibility-weighted normal of each ray. What is asked of the field is kept small: samples in cells
that an occupancy grid knows to be empty are left out, and the normal is looked for only where a sample is seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from backend.errors import InputError
from backend.rendering.lighting import Light, Shading
from backend.rendering.render import Rendered
from backend.rendering.volume import Chords, mean_depth, shade_volume, sum_along, unit_sphere_chords, visibility_weights
from backend.representations.convert import field_surface
from backend.representations.implicit_field import make_field
from backend.representations.mesh_data import MeshData
from backend.representations.occupancy_grid import OccupancyGrid
from backend.representations.representation import OrbitCameras
from backend.representations.volume_regularizers import distortion, opacity_entropy, orientation
from protocol.settings import FieldStage, largest

OCCUPANCY_RESOLUTION = 32
OCCUPANCY_EVERY = 4
"""Renders that learn between two looks at the cells."""

EMPTY_DENSITY = 0.1
"""Cells thinner than this are left out: a ray all through the sphere loses less than a tenth of its opacity by it."""

SEEN_WEIGHT = 2e-2
"""What is seen with less than this weight has no say in the normal of its ray."""

NORMAL_CELLS = 4.0
"""The normal is taken by differences over this many cells of the finest detail, but at most COARSEST_DIFFERENCE.

On a fitted toy object they came 21 degrees from the true normals at .06, 27 at one cell of 128, and the field's own
analytic slope 32: the finest level's cells have slopes of their own.
"""

COARSEST_DIFFERENCE = 0.06

SAMPLES_AT_ONCE = 2**19
"""Of all rays together, where something may be; more are rendered in parts, forward again for the backward pass."""

SLAB = 4
"""Samples of a ray that are asked for at once."""

OPAQUE = 6.0
"""Optical depth from which nothing behind is seen: a share of exp(-6) = 0.0025."""

TETRAHEDRON = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


@dataclass(frozen=True)
class RaysSeen:
    """What P rays see: opacity, distance, orientation, distortion [P]; color and normal [P, 3], weighted by visibility."""

    opacity: Tensor
    color: Tensor
    normal: Tensor
    distance: Tensor
    orientation: Tensor
    distortion: Tensor


class RadianceField:
    """A field as the settings name it, behind the interface of all representations."""

    def __init__(self, settings: FieldStage, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.field = make_field(settings.encoding, settings.resolution, settings.view_dependent).to(device)
        self.occupancy = OccupancyGrid(OCCUPANCY_RESOLUTION, EMPTY_DENSITY, device=device)
        self._renders = 0
        self._seen: RaysSeen | None = None

    def parameter_groups(self) -> list[dict]:
        """For torch.optim: "field", everything that is learned."""
        return [{"name": "field", "params": list(self.field.parameters())}]

    def render(
        self, cameras: OrbitCameras, resolution: int, light: Light | None = None, shading: Shading = "lit"
    ) -> Rendered:
        """Volume-render [N, R, R] pixels; `light` and `shading` mean what they mean in `render_mesh`.

        Depth is the mean distance along the viewing axis, differentiable, infinite where less than half of a ray is stopped.
        Renders that record gradients also look anew, now and then, at which cells are empty.

        Raises:
            InputError: the shading is unknown, or a camera's numbers are not finite.
        """
        if shading not in ("lit", "albedo", "textureless", "normal"):
            raise InputError(f'shading is "{shading}"; use "lit", "albedo", "textureless" or "normal".')
        origins, directions = cameras.rays(resolution, resolution)
        if not (torch.isfinite(origins).all() and torch.isfinite(directions).all()):
            raise InputError("A camera has a position or an angle that is not finite; give every camera finite numbers.")
        learning = torch.is_grad_enabled()
        if learning:
            if self._renders % OCCUPANCY_EVERY == 0:
                self.occupancy.update(self.density_at)
            self._renders += 1
        chords = unit_sphere_chords(origins.reshape(-1, 3), directions.reshape(-1, 3), self.settings.samples_per_ray)
        seen = self.composite(chords, normals=shading != "albedo")
        if learning:
            self._seen = seen
        shape = origins.shape[:3]
        alpha = seen.opacity.view(*shape, 1)
        rgb = shade_volume(seen.color.view(*shape, 3), seen.normal.view(*shape, 3), alpha, cameras, light, shading)
        depth = mean_depth(seen.distance.view(shape), alpha[..., 0], cameras, directions)
        return Rendered(rgb, alpha, depth)

    def regularization(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Unweighted scalars of the latest render that recorded gradients (0 before it); means over its rays.

        opacity_entropy: binary entropy of the opacity, which presses every pixel to see all or nothing.
        orientation: normals that face away from the camera (see `volume_regularizers.orientation`).
        distortion: how far a ray's weight is spread (see `volume_regularizers.distortion`).
        sparsity: mean opacity, which clears fog (Jain et al. 2022, Dream Fields, section 3.2).

        Distortion costs time, and orientation does where the shading needs no normals: without a weight in the settings
        they are 0 there. With `names` only those are computed.
        """
        terms = {
            "opacity_entropy": lambda seen: opacity_entropy(seen.opacity),
            "orientation": lambda seen: seen.orientation.mean(),
            "distortion": lambda seen: seen.distortion.mean(),
            "sparsity": lambda seen: seen.opacity.mean(),
        }
        zero = next(self.field.parameters()).new_zeros(())
        wanted = {name: term for name, term in terms.items() if names is None or name in names}
        return {name: zero if self._seen is None else term(self._seen) for name, term in wanted.items()}

    def to_mesh(self) -> MeshData:
        """The field's surface as it is now, quickly, for previews; `field_to_mesh` makes the clean one."""
        return field_surface(self.density_at, self.color_at, device=self.occupancy.density.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs."""
        state = {f"field.{name}": value.detach().clone() for name, value in self.field.state_dict().items()}
        state |= {f"occupancy.{name}": value for name, value in self.occupancy.state_dict().items()}
        return state | {"renders": torch.tensor(self._renders)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()` into the same parameter tensors."""
        self.field.load_state_dict(_under("field.", state))
        self.occupancy.load_state_dict(_under("occupancy.", state))
        self._renders = int(state["renders"])
        self._seen = None

    @torch.no_grad()
    def density_at(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        """Density per unit length at points of the cube, without gradients, in parts if they are many.

        Raises:
            InputError: a point is not finite.
        """
        _check_points(points)
        return torch.cat([self.field.density(part) for part in points.split(SAMPLES_AT_ONCE)])

    @torch.no_grad()
    def color_at(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Color at points of the cube, without gradients; where it depends on the view, its mean over all of them.

        Raises:
            InputError: a point is not finite.
        """
        _check_points(points)
        return torch.cat([self.field(part)[1] for part in points.split(SAMPLES_AT_ONCE)])

    def composite(self, chords: Chords, normals: bool) -> RaysSeen:
        """What rays cut into `chords` see of the field, unshaded; normals are 0 if they are not asked for."""
        occupied = self.occupancy.samples(chords)
        bounds = _parts(occupied.sum(dim=1))
        if len(bounds) == 2:
            return RaysSeen(*self._composite_part(chords, occupied, normals))
        parts = []
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            arguments = chords[first:last], occupied[first:last], normals
            if torch.is_grad_enabled():
                parts.append(
                    checkpoint(self._composite_part, *arguments, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(self._composite_part(*arguments))
        return RaysSeen(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _composite_part(self, chords: Chords, occupied: Tensor, normals: bool) -> tuple[Tensor, ...]:
        """The fields of `RaysSeen`, in order."""
        count = len(chords)
        density, colors, points, rays, samples = self._march(chords, occupied)
        weights = visibility_weights(density, chords)
        visible = weights[rays, samples]
        color = sum_along(visible, colors, rays, count)
        normal, facing_away = torch.zeros_like(color), torch.zeros_like(color[:, 0])
        weighs_orientation = torch.is_grad_enabled() and largest(self.settings.orientation) > 0.0
        if normals or weighs_orientation:
            share, rays, points = self._seen_points(weights, chords)
            outward = self._normals(points)
            normal = sum_along(share, outward, rays, count)
            facing_away = orientation(share, outward, chords.directions[rays], rays, count)
        spread = torch.zeros_like(facing_away)
        if torch.is_grad_enabled() and largest(self.settings.distortion) > 0.0:
            spread = distortion(weights, chords.step)
        distance = (weights * chords.middles()).sum(1)
        return weights.sum(1), color, normal, distance, facing_away, spread

    def _march(self, chords: Chords, occupied: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Densities [P, S]; colors [M, 3] and points [M, 3] of the samples asked for, and their rays and numbers [M].

        From front to back in slabs, so that what lies behind something opaque is not asked for.
        """
        depth = torch.zeros(len(chords), device=chords.near.device)
        slabs, found = [], []
        for first in range(0, chords.samples, SLAB):
            wanted = occupied[:, first : first + SLAB] & (depth < OPAQUE)[:, None]
            rays, samples = wanted.nonzero(as_tuple=True)
            points = chords.points_at(rays, samples + first)
            density, colors = self.field(points, chords.directions[rays] if self.settings.view_dependent else None)
            slab = torch.zeros(wanted.shape, dtype=density.dtype, device=density.device).masked_scatter(wanted, density)
            depth = depth + slab.detach().sum(dim=1) * chords.step
            slabs.append(slab)
            found.append((colors, points, rays, samples + first))
        return torch.cat(slabs, dim=1), *(torch.cat(each) for each in zip(*found, strict=True))

    def _seen_points(self, weights: Tensor, chords: Chords) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, rays and places [M] at which normals are looked for: in the middle of what is seen of neighbors.

        As many samples of a ray share a normal as lie within the reach of its differences, which cannot tell them apart.
        """
        together = max(1, round(0.5 * self._reach() * chords.samples))
        padded = functional.pad(weights, (0, -chords.samples % together)).view(len(chords), -1, together)
        shares = padded.sum(dim=2)
        rays, groups = (shares.detach() > SEEN_WEIGHT).nonzero(as_tuple=True)
        inside = padded.detach()[rays, groups]
        middle = (inside * torch.arange(together, device=inside.device)).sum(dim=1) / inside.sum(dim=1)
        return shares[rays, groups], rays, chords.points_at(rays, groups * together + middle)

    def _normals(self, points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 3"]:
        """Outward unit normals: the slope of the density's logit, by differences at a tetrahedron's corners."""
        corners = torch.tensor(TETRAHEDRON, dtype=points.dtype, device=points.device)
        around = points[None] + self._reach() * corners[:, None]
        logits = self.field.density_logit(around.view(-1, 3)).view(4, -1)
        return functional.normalize(-torch.einsum("km,kc->mc", logits, corners), dim=-1, eps=1e-6)

    def _reach(self) -> float:
        return min(NORMAL_CELLS * 2.0 / self.settings.resolution, COARSEST_DIFFERENCE)


def _check_points(points: Tensor) -> None:
    if not torch.isfinite(points).all():
        raise InputError("A field was asked for points that are not finite; leave them out.")


def _parts(counts: Tensor) -> list[int]:
    """Bounds that cut rays with so many samples each into parts of about SAMPLES_AT_ONCE together."""
    part = (counts.cumsum(0) - counts) // SAMPLES_AT_ONCE
    sizes = torch.bincount(part, minlength=1)
    return [0, *sizes[sizes > 0].cumsum(0).tolist()] if len(counts) else [0, 0]


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
