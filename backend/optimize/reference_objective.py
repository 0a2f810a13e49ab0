"""Toward reference pictures: the object rendered from where each was taken must look like it.

Compared are colors, silhouette, features of networks (LPIPS, CLIP) and, where a picture has them, depth and normal maps.
Colors are compared in a white light from everywhere, where a render shows the plain color of a surface, or in light that is
learned for each picture: spherical harmonics of degree 2, after Ramamoorthi and Hanrahan 2001, on displayed colors as all of a
job's shading is. Learned light begins as the one that the prior is shown the object in is on average: colors that look right in
the picture's light then look right in the prior's, and are not made darker by being lit twice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.losses.clip import similarity_loss
from backend.losses.picture import color_difference, depth_difference, normal_difference, silhouette_difference
from backend.losses.whiteness import light_color
from backend.optimize.feature_networks import FeatureNetworks
from backend.optimize.inputs import Picture
from backend.optimize.objectives import Job, Objective, Seen
from backend.optimize.reference_pictures import Window, resample, resample_known
from backend.rendering import Rendered
from backend.rendering.depth import surface_depth
from backend.rendering.illumination import harmonics
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import FieldStage, GridStage, LightSettings, MeshStage, ReferenceSettings, Stage, largest, value_at

COLORED = ("reference_color", "reference_perceptual", "reference_clip")
"""The losses that look at colors; the last two compare features of networks."""

SURFACE_SIZES, VOLUME_SIZES = (64, 512), (32, 128)
"""Smallest and largest side of the renders in pixels; between them it is the prior's. Rays through volumes cost more."""

LIGHT_RATE = 0.004
"""Learning rate of the light's coefficients: slower than colors, which would else stay dark in a light that grows."""

LAMBERT = (1.0, *(2.0 / 3.0,) * 3, *(0.25,) * 5)
"""What a white Lambert surface shows of light of degree 0, 1 and 2 (Ramamoorthi and Hanrahan 2001, equation 8, over pi)."""


def make_reference_objective(stage: Stage, job: Job) -> ReferenceObjective | None:
    """None where no picture came with the job or nothing of it weighs anything."""
    pictures, references = job.inputs.pictures, job.settings.references
    if not pictures:
        return None
    device = job.prior.alphas_cumprod.device
    objective = ReferenceObjective(stage, pictures, references, _size(stage, job.prior.image_size), device, job.features)
    return objective if objective.weighs_anything() else None


class ReferenceObjective(Objective):
    """`pictures` are prepared ones, [S, S] each of a size of its own; they are compared at `size` pixels a side."""

    def __init__(
        self,
        stage: Stage,
        pictures: tuple[Picture, ...],
        references: tuple[ReferenceSettings, ...],
        size: int,
        device: torch.device,
        features: FeatureNetworks = FeatureNetworks(),
    ) -> None:
        self._losses, self._features = stage.losses, features
        self._weights = _weights(stage, pictures, features)
        self._size = size
        azimuths, elevations = ([getattr(each, name) for each in references] for name in ("azimuth", "elevation"))
        self._cameras = Cameras.orbit(azimuths, elevations).to(device)
        seen = torch.stack([_premultiplied(each, size) for each in pictures]).to(device)
        self._rgb, self._alpha = seen[..., :3], seen[..., 3:]
        self._depth = _maps([None if each.depth is None else each.depth[..., None] for each in pictures], 1, size).to(device)
        self._with_depth = [number for number, each in enumerate(pictures) if each.depth is not None]
        self._normals = _maps([each.normals for each in pictures], 3, size).to(device)
        learned = self._losses.reference_light == "learned" and bool(self._weights.keys() & COLORED)
        self._light = _usual_light(stage.light, self._cameras).requires_grad_() if learned else None
        self._optimizer = torch.optim.Adam([self._light], lr=LIGHT_RATE, betas=(0.9, 0.99)) if learned else None

    def weighs_anything(self) -> bool:
        return bool(self._weights)

    @property
    def light(self) -> Tensor | None:
        """The light learned for each picture, [P, 9, 3] coefficients of `harmonics`; None in white light."""
        return None if self._light is None else self._light.detach()

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        weights = {name: value_at(weight, seen.progress) for name, weight in self._weights.items()}
        weights = {name: weight for name, weight in weights.items() if weight}
        if not weights:
            return {}
        shape, size = seen.representation, self._size
        colored = bool(weights.keys() & COLORED)
        normal = None
        if "reference_normals" in weights or (colored and self._light is not None):
            normal = shape.render(self._cameras, size, shading="normal")
        flat = shape.render(self._cameras, size, shading="albedo") if colored or normal is None else normal
        terms = {}
        if colored:
            rgb = flat.rgb if self._light is None else flat.rgb * self._shading(normal)
            terms |= self._color_terms(rgb, flat.alpha, seen.look.background[0], weights)
        if "reference_mask" in weights:
            terms["reference_mask"] = silhouette_difference(flat.alpha, self._alpha)
        if "reference_normals" in weights:
            terms["reference_normals"] = self._normal_term(normal)
        if "reference_depth" in weights:
            depth = _surface_depth(shape, self._cameras, size)
            terms["reference_depth"] = self._depth_term(flat.depth if depth is None else depth)
        if "light_whiteness" in weights and self._light is not None:
            terms["light_whiteness"] = torch.stack([light_color(light) for light in self._light]).mean()
        return {name: weights[name] * term for name, term in terms.items()}

    def move(self) -> None:
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        if self._light is None:
            return {}
        return {"light": self._light.detach().clone(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._light is not None:
            with torch.no_grad():
                self._light.copy_(state["light"])
            self._optimizer.load_state_dict(state["optimizer"])

    def _shading(self, normal: Rendered) -> Tensor:
        """What the learned light adds up to on a white surface, [P, R, R, 3], not below 0."""
        facing = torch.nn.functional.normalize(2.0 * normal.rgb - normal.alpha, dim=-1)
        factors = facing.new_tensor(LAMBERT)[:, None]
        return torch.einsum("nhwk,nkc->nhwc", harmonics(facing), factors * self._light).clamp_min(0.0)

    def _color_terms(self, rgb: Tensor, alpha: Tensor, background: Tensor, weights: dict[str, float]) -> dict[str, Tensor]:
        """Those of `COLORED` that weigh something; `rgb` is premultiplied by `alpha`."""
        terms = {}
        if "reference_color" in weights:
            norm = self._losses.reference_norm
            terms["reference_color"] = color_difference(rgb, alpha, self._rgb, self._alpha, background, norm)
        if weights.keys() & set(COLORED[1:]):
            pairs = ((rgb, alpha), (self._rgb, self._alpha))
            own, given = ((color + (1 - cover) * background).permute(0, 3, 1, 2) for color, cover in pairs)
        if "reference_perceptual" in weights:
            terms["reference_perceptual"] = self._features.perceptual(own, given).mean()
        if "reference_clip" in weights:
            clip = self._features.clip
            terms["reference_clip"] = similarity_loss(clip.embed_pictures(own), clip.embed_pictures(given))
        return terms

    def _normal_term(self, normal: Rendered) -> Tensor:
        world = 2.0 * normal.rgb - normal.alpha
        own = torch.einsum("nhwc,ncd->nhwd", world, self._cameras.camera_to_world()[:, :3, :3])
        known = self._normals.isfinite().all(dim=-1)
        weight = (known * self._alpha[..., 0] * normal.alpha[..., 0]).detach()
        return normal_difference(own, torch.where(known[..., None], self._normals, 0.0), weight)

    def _depth_term(self, depth: Tensor) -> Tensor:
        """The mean over the pictures that have a depth map; each has a scale and a shift of its own."""
        terms = []
        for number in self._with_depth:
            target = self._depth[number, ..., 0]
            both = target.isfinite() & depth[number].isfinite()
            weight = both * self._alpha[number, ..., 0]
            terms.append(depth_difference(torch.where(both, depth[number], 0.0), torch.where(both, target, 0.0), weight))
        return torch.stack(terms).mean()


def _size(stage: Stage, own: int) -> int:
    smallest, largest_side = VOLUME_SIZES if isinstance(stage, GridStage | FieldStage) else SURFACE_SIZES
    return min(max(own, smallest), largest_side)


def _weights(stage: Stage, pictures: tuple[Picture, ...], features: FeatureNetworks) -> dict[str, Any]:
    """The weights that are anything at any time of the stage, of terms that the pictures and what it learns have a use for."""
    losses = stage.losses
    useful = {
        "reference_color": not (isinstance(stage, MeshStage) and stage.learns == "geometry"),
        "reference_perceptual": features.perceptual is not None,
        "reference_clip": features.clip is not None,
        "light_whiteness": losses.reference_light == "learned",
        "reference_mask": True,
        "reference_depth": any(picture.depth is not None for picture in pictures),
        "reference_normals": any(picture.normals is not None for picture in pictures),
    }
    if isinstance(stage, MeshStage) and stage.learns == "material":
        useful |= {"reference_mask": False, "reference_depth": False, "reference_normals": False}
    weights = {name: getattr(losses, name) for name, use in useful.items() if use}
    return {name: weight for name, weight in weights.items() if largest(weight) > 0}


def _premultiplied(picture: Picture, size: int) -> Tensor:
    """[size, size, 4] in [0, 1]."""
    pixels = picture.pixels.astype(np.float64) / 255.0
    pixels[..., :3] *= pixels[..., 3:]
    return torch.from_numpy(resample(pixels, Window.around(*pixels.shape[:2]), size).astype(np.float32))


def _maps(maps: list[np.ndarray | None], channels: int, size: int) -> Tensor:
    """[P, size, size, channels], NaN where nothing is known."""
    nothing = np.full((size, size, channels), np.nan, np.float32)
    known = [nothing if each is None else resample_known(each, Window.around(*each.shape[:2]), size) for each in maps]
    return torch.from_numpy(np.stack(known))


def _surface_depth(shape: Representation, cameras: Cameras, size: int) -> Tensor | None:
    """Depth of a surface with gradients; None of a volume, whose renders have it themselves."""
    if isinstance(shape, TriangleMesh | TexturedMesh):
        return surface_depth(shape.vertices(), shape.faces, cameras, size)
    if isinstance(shape, TetrahedralGrid):
        surface = shape.surface()
        return surface_depth(surface.vertices, surface.faces, cameras, size)
    return None


def _usual_light(settings: LightSettings, cameras: Cameras) -> Tensor:
    """What the light that the prior is shown the object in is on average, fixed to each camera: [P, 9, 3] coefficients.

    A lamp of one direction d adds pi Y(d) for each harmonic Y, so that a white surface shows the cosine; ambient light the first
    of them alone.
    """
    ambient = 0.5 * (settings.ambient_min + settings.ambient_max)
    lamp = torch.nn.functional.normalize(cameras.azimuth.new_tensor([0.0, settings.lift, 1.0]), dim=0)
    direction = cameras.camera_to_world()[:, :3, :3] @ lamp
    light = (1.0 - ambient) * math.pi * harmonics(direction)
    light[:, 0] += ambient * math.sqrt(4.0 * math.pi)
    return light[..., None].expand(-1, -1, 3).clone()
