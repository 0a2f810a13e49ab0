"""Whether another device computes what the CPU computes: every operator, values and gradients, on the same random scene.

Ids must be equal everywhere but at ties; other numbers may differ in rounding, and gradients of a GPU also in the order
of their sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from backend.benchmark.scene import orbit
from backend.rendering import (
    Fragments,
    Material,
    SphericalHarmonics,
    antialias,
    build_topology,
    edge_gradient,
    headlight,
    interpolate,
    rasterize,
    render_material,
    render_mesh,
    screen_derivatives,
    shade,
    soft_rasterize,
    texture,
    to_clip_space,
    vertex_normals,
)

SIZE = 96
VIEWS = 3


class Inputs(NamedTuple):
    """A soup of intersecting triangles, from the same random numbers on every device."""

    vertices: Tensor
    faces: Tensor
    colors: Tensor

    def to(self, device: torch.device) -> Inputs:
        return Inputs(*(each.detach().to(device) for each in self))


def soup(triangles: int = 400, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(triangles, 1, 3, generator=generator) * 1.4 - 0.7
    sizes = torch.rand(triangles, 1, 1, generator=generator) ** 3 + 0.03
    vertices = (centers + 0.4 * sizes * torch.randn(triangles, 3, 3, generator=generator)).reshape(-1, 3)
    faces = torch.arange(3 * triangles, dtype=torch.int32).view(-1, 3)
    return Inputs(vertices, faces, torch.rand(3 * triangles, 3, generator=generator))


def disagreement(device: torch.device) -> dict[str, dict[str, float]]:
    """For each operator the largest difference of a value and of a gradient between `device` and the CPU.

    Differences are relative to the largest absolute value of the same tensor; "ids" is the share of pixels that see
    another face.
    """
    inputs = soup()
    table = {}
    for name, operator in OPERATORS.items():
        here, there = (_values_and_gradients(operator, inputs.to(each)) for each in (torch.device("cpu"), device))
        table[name] = {
            "values": max(_difference(a, b) for a, b in zip(here[0], there[0], strict=True)),
            "gradients": max((_difference(a, b) for a, b in zip(here[1], there[1], strict=True)), default=0.0),
        }
    ids = [_fragments(inputs.to(each)).face_id.cpu() for each in (torch.device("cpu"), device)]
    table["rasterize"]["ids"] = float((ids[0] != ids[1]).float().mean())
    return table


def _values_and_gradients(operator: Callable[[Inputs], Tensor], inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    leaves = inputs._replace(vertices=inputs.vertices.requires_grad_(), colors=inputs.colors.requires_grad_())
    result = operator(leaves)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.device)
    gradients = torch.autograd.grad((result * weights).sum(), [leaves.vertices, leaves.colors], allow_unused=True)
    return [result.detach().cpu()], [gradient.cpu() for gradient in gradients if gradient is not None]


def _difference(here: Tensor, there: Tensor) -> float:
    scale = here[here.isfinite()].abs().max().clamp_min(1e-20)
    same = (here == there) | (here.isnan() & there.isnan())
    return float(torch.where(same, 0.0, (here - there).abs() / scale).max())


def _clip(inputs: Inputs) -> Tensor:
    return to_clip_space(inputs.vertices, orbit(VIEWS, inputs.vertices.device).clip_matrix())


def _fragments(inputs: Inputs) -> Fragments:
    return rasterize(_clip(inputs), inputs.faces, SIZE, SIZE)


def _antialiased(inputs: Inputs) -> Tensor:
    clip, topology = _clip(inputs), build_topology(inputs.faces)
    fragments = rasterize(clip, inputs.faces, SIZE, SIZE)
    return antialias(interpolate(inputs.colors, fragments, inputs.faces), fragments, clip, inputs.faces, topology)


def _shaded(inputs: Inputs) -> Tensor:
    normals = vertex_normals(inputs.vertices, inputs.faces)
    light = headlight(orbit(VIEWS, inputs.vertices.device))
    return shade(inputs.colors, normals, _fragments(inputs), inputs.faces, light, "lit")


def _edge_gradient(inputs: Inputs) -> Tensor:
    clip = _clip(inputs)
    fragments = rasterize(clip, inputs.faces, SIZE, SIZE)
    return edge_gradient(interpolate(inputs.colors, fragments, inputs.faces), fragments, clip, inputs.faces)


def _soft(inputs: Inputs) -> Tensor:
    soft = soft_rasterize(_clip(inputs), inputs.faces, SIZE, SIZE, sigma=1e-4, gamma=0.1, attributes=inputs.colors)
    return torch.cat([soft.coverage[..., None], soft.attributes], dim=-1)


def _textured(inputs: Inputs) -> Tensor:
    """The colors serve as a picture and, in part, as where it is looked up: both gradients arrive at them."""
    fragments, uvs = _fragments(inputs), inputs.colors[:, :2].contiguous()
    picture = inputs.colors[:1024].reshape(32, 32, 3)
    derivatives = screen_derivatives(uvs, fragments, _clip(inputs).detach(), inputs.faces)
    return texture(picture, interpolate(uvs, fragments, inputs.faces), derivatives, filter="trilinear", wrap="mirror")


def _rendered(inputs: Inputs) -> Tensor:
    rendered = render_mesh(inputs.vertices, inputs.faces, inputs.colors, orbit(VIEWS, inputs.vertices.device), SIZE)
    return torch.cat([rendered.rgb, rendered.alpha], dim=-1)


def _rendered_material(inputs: Inputs) -> Tensor:
    device = inputs.vertices.device
    material = Material(inputs.colors, 0.5 * inputs.colors[:, :1], 0.3 + 0.6 * inputs.colors[:, 1:2])
    light = SphericalHarmonics(torch.linspace(1.5, -0.3, 27).view(9, 3).to(device))
    cameras = orbit(VIEWS, device)
    rendered = render_material(
        inputs.vertices, inputs.faces, None, None, material, cameras, SIZE, illumination=light
    )
    return torch.cat([rendered.rgb, rendered.alpha], dim=-1)


OPERATORS: dict[str, Callable[[Inputs], Tensor]] = {
    "rasterize": lambda inputs: _fragments(inputs).barycentrics,
    "interpolate": lambda inputs: interpolate(inputs.colors, _fragments(inputs), inputs.faces),
    "vertex_normals": lambda inputs: vertex_normals(inputs.vertices, inputs.faces),
    "shade": _shaded,
    "antialias": _antialiased,
    "edge_gradient": _edge_gradient,
    "soft_rasterize": _soft,
    "texture": _textured,
    "render_mesh": _rendered,
    "render_material": _rendered_material,
}
