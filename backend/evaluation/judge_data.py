"""Pictures that the judge learns from: its own random objects, lights, cameras and backgrounds.

Everything is drawn wider than what the prior is trained on and from seeds that it never uses; held-out combinations of
kind and color are drawn like all others, since the judge must read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.evaluation.degrade import degraded
from backend.rendering import Light, render_mesh, vertex_normals
from backend.representations.mesh_data import MeshData
from backend.toybox.objects import KINDS, SIZES, ObjectSpec, build_object
from backend.toybox.palette import COLORS

IMAGE_SIZE = 64
SEED_SPACE = 0x6A756467
"""Mixed into every seed here, so that no object is one of the prior's."""


@dataclass(frozen=True)
class JudgeData:
    """images [N, 4, 64, 64] u8 premultiplied RGBA; labels [N, 3] i64 (kind, main, second); azimuth [N] in degrees."""

    images: Tensor
    labels: Tensor
    azimuth: Tensor


def make_judge_data(seed: int, objects: int, views: int, degraded_share: float) -> JudgeData:
    """`objects` random objects from `views` random cameras each; a share of them is degraded as optimization would."""
    images, labels, azimuths = [], [], []
    for number in range(objects):
        rng = np.random.default_rng([SEED_SPACE, seed, number])
        spec = draw_any_spec(rng)
        mesh = true_mesh(spec, rng)
        if rng.random() < degraded_share:
            mesh = degraded(mesh, rng)
        cameras = wide_cameras(views, rng)
        images.append(lit_images(mesh, cameras, rng))
        color = [COLORS.index(spec.main), COLORS.index(spec.second)]
        labels.append(torch.tensor([[KINDS.index(spec.kind), *color]]).expand(views, 3))
        azimuths.append(cameras.azimuth)
        if number % 1000 == 999:
            print(f"{number + 1} of {objects} objects rendered", flush=True)
    return JudgeData(torch.cat(images), torch.cat(labels), torch.cat(azimuths))


def draw_any_spec(rng: np.random.Generator) -> ObjectSpec:
    """Any kind, any two different colors, any size, all alike."""
    main, second = rng.choice(len(COLORS), 2, replace=False)
    return ObjectSpec(KINDS[int(rng.integers(len(KINDS)))], COLORS[main], COLORS[second], SIZES[int(rng.integers(3))])


def true_mesh(spec: ObjectSpec, rng: np.random.Generator) -> MeshData:
    """A random instance of `spec` as a mesh."""
    toy = build_object(spec.kind, spec.main, spec.second, spec.size, rng)
    return MeshData(toy.positions, toy.faces, toy.colors)


def wide_cameras(views: int, rng: np.random.Generator) -> Cameras:
    """Any azimuth, elevation -15 to 50, different lenses; the unit sphere fills 0.85 to 1.02 of the picture."""
    fov = rng.uniform(25.0, 55.0, views)
    distance = 1.0 / (np.sin(np.radians(fov / 2.0)) * rng.uniform(0.85, 1.02, views))
    drawn = (rng.uniform(0.0, 360.0, views), rng.uniform(-15.0, 50.0, views), distance, fov)
    return Cameras(*(torch.tensor(values, dtype=torch.float32) for values in drawn))


def lit_images(mesh: MeshData, cameras: Cameras, rng: np.random.Generator) -> Tensor:
    """[N, 4, 64, 64] u8 premultiplied RGBA under a wide random light and a faint tint from sky and ground.

    The light comes from within about 80 degrees of the first camera, so that what is seen is seldom all in shadow.
    """
    positions, faces = torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces)
    toward = torch.nn.functional.normalize(cameras.position(), dim=1)
    toward = toward + torch.from_numpy(rng.normal(0.0, 0.6, (1, 3)) + [0.0, rng.uniform(-0.2, 0.9), 0.0]).float()
    ambient = torch.full((len(cameras),), float(rng.uniform(0.35, 0.8)))
    light = Light(torch.nn.functional.normalize(toward, dim=1), ambient)
    up = vertex_normals(positions, faces)[:, 1:2]
    tint = torch.from_numpy(rng.normal(0.0, 0.05, 3)).float()
    colors = (torch.from_numpy(mesh.colors) * (1.0 + up * tint)).clamp(0.0, 1.0)
    with torch.no_grad():
        rendered = render_mesh(positions, faces, colors, cameras, IMAGE_SIZE, light=light, supersample=2)
    rgba = torch.cat([rendered.rgb, rendered.alpha], -1).permute(0, 3, 1, 2)
    return (rgba.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def on_backgrounds(images: Tensor, generator: torch.Generator) -> Tensor:
    """u8 RGBA [N, 4, H, W] -> RGB in [0, 1] on random plain or vertically graded backgrounds, with faint noise."""
    rgba = images.float() / 255.0
    top = torch.rand(len(rgba), 3, 1, 1, generator=generator)
    gray = torch.rand(len(rgba), 1, 1, 1, generator=generator).expand_as(top)
    top = torch.where(torch.rand(len(rgba), 1, 1, 1, generator=generator) < 0.5, top, gray)
    slope = 0.15 * torch.randn(len(rgba), 3, 1, 1, generator=generator)
    object_color = rgba[:, :3].sum((2, 3), keepdim=True) / rgba[:, 3:].sum((2, 3), keepdim=True).clamp_min(1.0)
    hidden = (object_color - top).norm(dim=1, keepdim=True) < 0.35
    top = torch.where(hidden, (top + 0.5) % 1.0, top)  # an object of its background's color cannot be read by anyone
    background = (top + slope * torch.linspace(-1.0, 1.0, IMAGE_SIZE)[:, None]).clamp(0.0, 1.0)
    noise = 0.01 * torch.randn(rgba[:, :3].shape, generator=generator)
    return rgba[:, :3] + (1.0 - rgba[:, 3:]) * background + noise
