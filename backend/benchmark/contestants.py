"""Who is timed: our kernels, their plain-torch twins, and every other differentiable rasterizer that can be imported.

Each draws the same thing: `[N, H, W, 4]`, three attributes of the vertices and a mask whose silhouettes are
differentiable, with gradients to the clip-space positions and the attributes. None of the others is a dependency; what
their calls mean is told by their documentation, and how much of our picture they agree with is part of the table.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from backend.benchmark.scene import Scene
from backend.rendering import Light, antialias, rasterize, reference, shade

Draw = Callable[[Tensor, Tensor], Tensor]
"""Clip positions [N, V, 4] and attributes [V, 3] to an image [N, H, W, 4], row 0 on top."""

SOFT_SIGMA = 1e-4
"""PyTorch3D's silhouettes are sigmoids of the squared distance over this; its tutorials' value."""


@dataclass(frozen=True)
class Contestant:
    """name; how: what it does at silhouettes; most_work: faces x views x pixels beyond which it is left out as too slow."""

    name: str
    how: str
    draw: Callable[[Scene, int], Draw]
    most_work: float = math.inf


def contestants(device: torch.device) -> tuple[list[Contestant], dict[str, str]]:
    """Those that can draw on `device`, ours first, and why the others cannot."""
    present = [
        Contestant("galatea", "edge-driven antialiasing, Warp kernels", _galatea),
        Contestant("plain torch", "the same in plain torch", _plain_torch, most_work=4e8),
    ]
    absent = {}
    for name, load in (("nvdiffrast", _nvdiffrast), ("DRTK", _drtk), ("PyTorch3D", _pytorch3d)):
        try:
            present.append(load(device))
        except Unavailable as reason:
            absent[name] = str(reason)
    return present, absent


class Unavailable(Exception):
    """A sentence on why a contestant cannot take part."""


def _galatea(scene: Scene, size: int) -> Draw:
    dark = Light(torch.zeros(1, 3, device=scene.vertices.device), torch.ones(1, device=scene.vertices.device))

    def draw(clip: Tensor, attributes: Tensor) -> Tensor:
        fragments = rasterize(clip, scene.faces, size, size)
        light = Light(dark.direction.expand(len(clip), 3).contiguous(), dark.ambient.expand(len(clip)).contiguous())
        image = shade(attributes, attributes, fragments, scene.faces, light, "albedo")
        return antialias(image, fragments, clip, scene.faces, scene.topology)

    return draw


def _plain_torch(scene: Scene, size: int) -> Draw:
    def draw(clip: Tensor, attributes: Tensor) -> Tensor:
        face_ids, barycentrics, _, w = reference.rasterize(clip, scene.faces, size, size)
        rgb = reference.interpolate(attributes, barycentrics, face_ids, scene.faces)
        image = torch.cat([rgb, (face_ids >= 0)[..., None].float()], dim=-1)
        return reference.antialias(image, clip, face_ids, w.detach(), scene.topology.edges, scene.topology.opposite)

    return draw


def _nvdiffrast(device: torch.device) -> Contestant:
    if device.type != "cuda":
        raise Unavailable("needs a CUDA device")
    library = _imported("nvdiffrast.torch", "RasterizeCudaContext")
    context = library.RasterizeCudaContext(device=device)

    def prepare(scene: Scene, size: int) -> Draw:
        def draw(clip: Tensor, attributes: Tensor) -> Tensor:
            fragments, _ = library.rasterize(context, clip, scene.faces, (size, size))
            rgb, _ = library.interpolate(attributes, fragments, scene.faces)
            image = torch.cat([rgb, (fragments[..., 3:] > 0).float()], dim=-1)
            return library.antialias(image, fragments, clip, scene.faces).flip(1)  # its row 0 is at the bottom

        return draw

    return Contestant("nvdiffrast", "antialiasing by visible triangle", prepare)


def _drtk(device: torch.device) -> Contestant:
    # The package of that name on PyPI is another one: what counts is whether these functions are there.
    library = _imported("drtk", "rasterize", "render", "interpolate", "edge_grad_estimator")

    def prepare(scene: Scene, size: int) -> Draw:
        def draw(clip: Tensor, attributes: Tensor) -> Tensor:
            pixels = _pixels(clip, size)
            ids = library.rasterize(pixels, scene.faces, height=size, width=size)
            _, barycentrics = library.render(pixels, scene.faces, ids)
            rgb = library.interpolate(attributes.expand(len(clip), -1, -1), scene.faces, ids, barycentrics)
            covered = (ids != -1)[:, None].float()
            image = library.edge_grad_estimator(
                v_pix=pixels,
                vi=scene.faces,
                bary_img=barycentrics,
                img=torch.cat([rgb * covered, covered], dim=1),
                index_img=ids,
            )
            return image.permute(0, 2, 3, 1)

        return draw

    return Contestant("DRTK", "rasterized edge gradients", prepare)


def _pytorch3d(device: torch.device) -> Contestant:
    library = _imported("pytorch3d.renderer.mesh.rasterize_meshes", "rasterize_meshes")
    structures = _imported("pytorch3d.structures", "Meshes")
    operators = _imported("pytorch3d.ops", "interpolate_face_attributes")
    blur = math.log(1.0 / 1e-4 - 1.0) * SOFT_SIGMA

    def prepare(scene: Scene, size: int) -> Draw:
        faces = scene.faces.long()

        def draw(clip: Tensor, attributes: Tensor) -> Tensor:
            # Its x grows to the left; z is the distance along the viewing axis.
            points = torch.stack(
                [-clip[..., 0] / clip[..., 3], clip[..., 1] / clip[..., 3], clip[..., 3]], dim=-1
            )
            meshes = structures.Meshes(verts=list(points), faces=[faces] * len(clip))
            ids, _, barycentrics, distances = library.rasterize_meshes(
                meshes, size, blur_radius=blur, faces_per_pixel=1, perspective_correct=True
            )
            corners = attributes[faces].repeat(len(clip), 1, 1)
            rgb = operators.interpolate_face_attributes(ids, barycentrics, corners)[..., 0, :]
            covered = (ids >= 0).float()
            return torch.cat([rgb, torch.sigmoid(-distances / SOFT_SIGMA) * covered], dim=-1)

        return draw

    return Contestant("PyTorch3D", "soft silhouettes, one face a pixel", prepare, most_work=4e9 if device.type == "cpu" else math.inf)


def _pixels(clip: Tensor, size: int) -> Tensor:
    """[N, V, 3]: columns and rows, integers at pixel centers, and the distance along the viewing axis."""
    column = (clip[..., 0] / clip[..., 3] + 1.0) * (0.5 * size) - 0.5
    row = (1.0 - clip[..., 1] / clip[..., 3]) * (0.5 * size) - 0.5
    return torch.stack([column, row, clip[..., 3]], dim=-1)


def _imported(name: str, *functions: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"cannot be imported ({error})") from error
    except Exception as error:  # extensions built for another torch raise anything
        raise Unavailable(f"fails while it is imported ({type(error).__name__}: {error})") from error
    missing = [function for function in functions if not hasattr(module, function)]
    if missing:
        raise Unavailable(f"the {name} that is installed has no {missing[0]}: it is another package of that name")
    return module
