"""Interpolation of colors and normals with Lambert shading in one pass over the pixels, and its gradient.

One fused kernel in place of an interpolation and a dozen small tensor operations: those cost more than everything else
in a render of the sizes that score distillation uses.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("shading")

LIT = wp.constant(0)
ALBEDO = wp.constant(1)
TEXTURELESS = wp.constant(2)
NORMAL = wp.constant(3)

MODES = {"lit": LIT, "albedo": ALBEDO, "textureless": TEXTURELESS, "normal": NORMAL}
SMALLEST_LENGTH = wp.constant(constants.SMALLEST_LENGTH)


@wp.func
def blend(values: wp.array(dtype=wp.vec3), face: wp.vec3i, b: wp.vec3):
    return values[face[0]] * b[0] + values[face[1]] * b[1] + values[face[2]] * b[2]


@wp.kernel(module=module)
def shade_forward(
    colors: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    mode: int,
    pixels_per_view: int,
    image: wp.array(dtype=wp.vec4),
):
    pixel = wp.tid()
    face_id = face_ids[pixel]
    if face_id < 0:
        return
    face = faces[face_id]
    b = barycentrics[pixel]
    rgb = wp.vec3(1.0)
    if mode == LIT or mode == ALBEDO:
        rgb = blend(colors, face, b)
    if mode != ALBEDO:
        normal = blend(normals, face, b)
        normal = normal / wp.max(wp.length(normal), SMALLEST_LENGTH)
        if mode == NORMAL:
            rgb = normal * 0.5 + wp.vec3(0.5)
        else:
            view = pixel // pixels_per_view
            share = ambient[view]
            rgb = rgb * (share + (1.0 - share) * wp.max(0.0, wp.dot(normal, light[view])))
    image[pixel] = wp.vec4(rgb[0], rgb[1], rgb[2], 1.0)


@wp.kernel(module=module)
def shade_backward(
    grad_image: wp.array(dtype=wp.vec4),
    colors: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    mode: int,
    pixels_per_view: int,
    with_colors: int,
    with_geometry: int,
    grad_colors: wp.array(dtype=wp.vec3),
    grad_normals: wp.array(dtype=wp.vec3),
    grad_barycentrics: wp.array(dtype=wp.vec3),
):
    pixel = wp.tid()
    face_id = face_ids[pixel]
    if face_id < 0:
        return
    face = faces[face_id]
    b = barycentrics[pixel]
    g = grad_image[pixel]
    grad_rgb = wp.vec3(g[0], g[1], g[2])
    rgb = wp.vec3(1.0)
    if mode == LIT or mode == ALBEDO:
        rgb = blend(colors, face, b)
    grad_b = wp.vec3(0.0)
    factor = float(1.0)
    if mode != ALBEDO:
        raw = blend(normals, face, b)
        length = wp.max(wp.length(raw), SMALLEST_LENGTH)
        normal = raw / length
        grad_normal = grad_rgb * 0.5
        if mode != NORMAL:
            view = pixel // pixels_per_view
            share = ambient[view]
            cosine = wp.dot(normal, light[view])
            factor = share + (1.0 - share) * wp.max(0.0, cosine)
            grad_normal = wp.vec3(0.0)
            if cosine > 0.0:
                grad_normal = light[view] * ((1.0 - share) * wp.dot(grad_rgb, rgb))
        if with_geometry != 0:
            grad_raw = (grad_normal - normal * wp.dot(normal, grad_normal)) / length
            wp.atomic_add(grad_normals, face[0], grad_raw * b[0])
            wp.atomic_add(grad_normals, face[1], grad_raw * b[1])
            wp.atomic_add(grad_normals, face[2], grad_raw * b[2])
            grad_b = wp.vec3(
                wp.dot(normals[face[0]], grad_raw),
                wp.dot(normals[face[1]], grad_raw),
                wp.dot(normals[face[2]], grad_raw),
            )
    if mode == LIT or mode == ALBEDO:
        grad_color = grad_rgb * factor
        if with_colors != 0:
            wp.atomic_add(grad_colors, face[0], grad_color * b[0])
            wp.atomic_add(grad_colors, face[1], grad_color * b[1])
            wp.atomic_add(grad_colors, face[2], grad_color * b[2])
        grad_b += wp.vec3(
            wp.dot(colors[face[0]], grad_color),
            wp.dot(colors[face[1]], grad_color),
            wp.dot(colors[face[2]], grad_color),
        )
    if with_geometry != 0:
        grad_barycentrics[pixel] = grad_b


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx, colors, normals, barycentrics, face_ids, faces, light, ambient, mode: int) -> Tensor:
        tensors = [t.contiguous() for t in (colors, normals, face_ids, barycentrics, faces, light, ambient)]
        image = torch.zeros((*face_ids.shape, 4), device=face_ids.device)
        launch(
            shade_forward,
            face_ids.numel(),
            [*_arguments(tensors), mode, face_ids.shape[1] * face_ids.shape[2], rows(image)],
        )
        ctx.save_for_backward(*tensors)
        ctx.mode = mode
        return image

    @staticmethod
    def backward(ctx, grad_image: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        colors, normals, face_ids, barycentrics = tensors[:4]
        with_colors = ctx.needs_input_grad[0]
        with_geometry = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        unused = barycentrics.new_zeros(1, 3)
        grad_colors = torch.zeros_like(colors) if with_colors else unused
        grad_normals = torch.zeros_like(normals) if with_geometry else unused
        grad_barycentrics = torch.zeros_like(barycentrics) if with_geometry else unused
        launch(
            shade_backward,
            face_ids.numel(),
            [rows(grad_image.contiguous()), *_arguments(tensors), ctx.mode, face_ids.shape[1] * face_ids.shape[2]]
            + [int(with_colors), int(with_geometry), rows(grad_colors), rows(grad_normals), rows(grad_barycentrics)],
        )
        grads = [grad_colors, grad_normals, grad_barycentrics]
        return (*(grad if grad is not unused else None for grad in grads), None, None, None, None, None)


def _arguments(tensors: list[Tensor]) -> list:
    colors, normals, face_ids, barycentrics, faces, light, ambient = tensors
    return [rows(colors), rows(normals), face_ids, rows(barycentrics), rows(faces), rows(light), ambient]


def shade(
    colors: Tensor,
    normals: Tensor,
    barycentrics: Tensor,
    face_ids: Tensor,
    faces: Tensor,
    light: Tensor,
    ambient: Tensor,
    shading: str,
) -> Tensor:
    """`[N, H, W, 4]` premultiplied color and coverage; see `backend.rendering.shade`."""
    return _Shade.apply(colors, normals, barycentrics, face_ids, faces, light, ambient, int(MODES[shading]))
