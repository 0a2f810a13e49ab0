"""Vertex attributes to pixels, and the gradient back to the attributes and to the barycentrics."""

import torch
import warp as wp
from torch import Tensor

from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("interpolation")


@wp.kernel(module=module)
def interpolate_forward(
    attributes: wp.array(dtype=float),
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    channels: int,
    pixels_per_view: int,
    numbers_per_view: int,
    image: wp.array(dtype=float),
):
    pixel = wp.tid()
    face_id = face_ids[pixel]
    if face_id < 0:
        return
    face = faces[face_id]
    b = barycentrics[pixel]
    first = (pixel // pixels_per_view) * numbers_per_view
    i = first + face[0] * channels
    j = first + face[1] * channels
    k = first + face[2] * channels
    target = pixel * channels
    for c in range(channels):
        image[target + c] = b[0] * attributes[i + c] + b[1] * attributes[j + c] + b[2] * attributes[k + c]


@wp.kernel(module=module)
def interpolate_backward(
    grad_image: wp.array(dtype=float),
    attributes: wp.array(dtype=float),
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    channels: int,
    pixels_per_view: int,
    numbers_per_view: int,
    with_attributes: int,
    with_barycentrics: int,
    grad_attributes: wp.array(dtype=float),
    grad_barycentrics: wp.array(dtype=wp.vec3),
):
    pixel = wp.tid()
    face_id = face_ids[pixel]
    if face_id < 0:
        return
    face = faces[face_id]
    b = barycentrics[pixel]
    first = (pixel // pixels_per_view) * numbers_per_view
    i = first + face[0] * channels
    j = first + face[1] * channels
    k = first + face[2] * channels
    source = pixel * channels
    if with_attributes != 0:
        for c in range(channels):
            g = grad_image[source + c]
            wp.atomic_add(grad_attributes, i + c, b[0] * g)
            wp.atomic_add(grad_attributes, j + c, b[1] * g)
            wp.atomic_add(grad_attributes, k + c, b[2] * g)
    if with_barycentrics != 0:
        grad = wp.vec3(0.0)
        for c in range(channels):
            grad += wp.vec3(attributes[i + c], attributes[j + c], attributes[k + c]) * grad_image[source + c]
        grad_barycentrics[pixel] = grad


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
        attributes, barycentrics, faces = attributes.contiguous(), barycentrics.contiguous(), faces.contiguous()
        channels = attributes.shape[-1]
        image = torch.zeros((*face_ids.shape, channels), device=attributes.device)
        sizes = [channels, face_ids.shape[1] * face_ids.shape[2], attributes[0].numel() if attributes.dim() == 3 else 0]
        launch(
            interpolate_forward,
            face_ids.numel(),
            [attributes, face_ids, rows(barycentrics), rows(faces), *sizes, image],
        )
        ctx.save_for_backward(attributes, barycentrics, face_ids, faces)
        ctx.sizes = sizes
        return image

    @staticmethod
    def backward(ctx, grad_image: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        attributes, barycentrics, face_ids, faces = ctx.saved_tensors
        with_attributes, with_barycentrics = ctx.needs_input_grad[:2]
        grad_attributes = torch.zeros_like(attributes) if with_attributes else attributes.new_zeros(1)
        grad_barycentrics = torch.zeros_like(barycentrics) if with_barycentrics else barycentrics.new_zeros(1, 3)
        launch(
            interpolate_backward,
            face_ids.numel(),
            [grad_image.contiguous(), attributes, face_ids, rows(barycentrics), rows(faces), *ctx.sizes]
            + [int(with_attributes), int(with_barycentrics), grad_attributes, rows(grad_barycentrics)],
        )
        return (
            grad_attributes if with_attributes else None,
            grad_barycentrics if with_barycentrics else None,
            None,
            None,
        )


def interpolate(attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
    """`[V, C]` or `[N, V, C]` -> `[N, H, W, C]`; see `backend.rendering.interpolate`."""
    return _Interpolate.apply(attributes, barycentrics, face_ids, faces)
