"""Vertex attributes to pixels, and the gradient back to the attributes and to the barycentrics.

Channels are taken in groups of 4, 3, 2 or 1, whichever is the largest that divides their number: a group is one vector,
and `[V, C]` is seen as `[V * groups]` vectors.
"""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from backend.rendering.kernels.runtime import ROW_TYPES, kernel_module, lanes_per_row, launch, rows

module = kernel_module("interpolation")


class GroupKernels(NamedTuple):
    forward: wp.Kernel
    backward: wp.Kernel


@wp.func
def corners_of(face_id: int, faces: wp.array(dtype=wp.vec3i), face_count: int, vertex_count: int):
    """A face's vertices, all -1 on the background and where `faces` has no such face or no such vertices."""
    if face_id < 0 or face_id >= face_count:
        return wp.vec3i(-1)
    face = faces[face_id]
    if wp.min(face) < 0 or wp.max(face) >= vertex_count:
        return wp.vec3i(-1)
    return face


def kernels_for(length: int) -> GroupKernels:
    """The two kernels for groups of `length` channels."""
    Group = ROW_TYPES[torch.float32, length]

    @wp.kernel(module=module, name=f"interpolate_forward_{length}")
    def forward(
        attributes: wp.array(dtype=Group),
        face_ids: wp.array(dtype=wp.int32),
        barycentrics: wp.array(dtype=wp.vec3),
        faces: wp.array(dtype=wp.vec3i),
        face_count: int,
        vertex_count: int,
        vertices_per_view: int,
        groups: int,
        height: int,
        width: int,
        lanes: int,
        image: wp.array(dtype=Group),
    ):
        thread = wp.tid()
        line = thread // lanes
        column = thread - line * lanes
        vertices = (line // height) * vertices_per_view
        while column < width:
            pixel = line * width + column
            face = corners_of(face_ids[pixel], faces, face_count, vertex_count)
            target = pixel * groups
            if face[0] < 0:
                for group in range(groups):
                    image[target + group] = Group(0.0)
            else:
                b = barycentrics[pixel]
                i = (vertices + face[0]) * groups
                j = (vertices + face[1]) * groups
                k = (vertices + face[2]) * groups
                for group in range(groups):
                    image[target + group] = (
                        attributes[i + group] * b[0] + attributes[j + group] * b[1] + attributes[k + group] * b[2]
                    )
            column += lanes

    @wp.kernel(module=module, name=f"interpolate_backward_{length}")
    def backward(
        grad_image: wp.array(dtype=Group),
        attributes: wp.array(dtype=Group),
        face_ids: wp.array(dtype=wp.int32),
        barycentrics: wp.array(dtype=wp.vec3),
        faces: wp.array(dtype=wp.vec3i),
        face_count: int,
        vertex_count: int,
        vertices_per_view: int,
        groups: int,
        height: int,
        width: int,
        lanes: int,
        with_attributes: int,
        with_barycentrics: int,
        grad_attributes: wp.array(dtype=Group),
        grad_barycentrics: wp.array(dtype=wp.vec3),
    ):
        thread = wp.tid()
        line = thread // lanes
        column = thread - line * lanes
        vertices = (line // height) * vertices_per_view
        while column < width:
            pixel = line * width + column
            face = corners_of(face_ids[pixel], faces, face_count, vertex_count)
            grad = wp.vec3(0.0)
            if face[0] >= 0:
                b = barycentrics[pixel]
                source = pixel * groups
                i = (vertices + face[0]) * groups
                j = (vertices + face[1]) * groups
                k = (vertices + face[2]) * groups
                for group in range(groups):
                    g = grad_image[source + group]
                    if with_attributes != 0:
                        wp.atomic_add(grad_attributes, i + group, g * b[0])
                        wp.atomic_add(grad_attributes, j + group, g * b[1])
                        wp.atomic_add(grad_attributes, k + group, g * b[2])
                    if with_barycentrics != 0:
                        grad += wp.vec3(
                            wp.dot(attributes[i + group], g),
                            wp.dot(attributes[j + group], g),
                            wp.dot(attributes[k + group], g),
                        )
            if with_barycentrics != 0:
                grad_barycentrics[pixel] = grad
            column += lanes

    return GroupKernels(forward, backward)


KERNELS = {length: kernels_for(length) for length in (1, 2, 3, 4)}


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
        attributes, barycentrics, faces = attributes.contiguous(), barycentrics.contiguous(), faces.contiguous()
        (views, height, width), (vertex_count, channels) = face_ids.shape, attributes.shape[-2:]
        length = _group_length(channels)
        lanes = lanes_per_row(attributes.device, width)
        per_view = vertex_count if attributes.dim() == 3 else 0
        sizes = [faces.shape[0], vertex_count, per_view, channels // length, height, width, lanes]
        image = torch.empty((views, height, width, channels), device=attributes.device)
        launch(
            KERNELS[length].forward,
            views * height * lanes,
            [rows(attributes, length), face_ids, rows(barycentrics), rows(faces), *sizes, rows(image, length)],
        )
        ctx.save_for_backward(attributes, barycentrics, face_ids, faces)
        ctx.sizes, ctx.length = sizes, length
        return image

    @staticmethod
    def backward(ctx, grad_image: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        attributes, barycentrics, face_ids, faces = ctx.saved_tensors
        with_attributes, with_barycentrics = ctx.needs_input_grad[:2]
        grad_attributes = torch.zeros_like(attributes) if with_attributes else attributes.new_empty(0, ctx.length)
        grad_barycentrics = torch.empty_like(barycentrics) if with_barycentrics else barycentrics.new_empty(0, 3)
        launch(
            KERNELS[ctx.length].backward,
            face_ids.shape[0] * face_ids.shape[1] * ctx.sizes[-1],
            [rows(grad_image.contiguous(), ctx.length), rows(attributes, ctx.length)]
            + [face_ids, rows(barycentrics), rows(faces), *ctx.sizes]
            + [int(with_attributes), int(with_barycentrics), rows(grad_attributes, ctx.length)]
            + [rows(grad_barycentrics)],
        )
        return (
            grad_attributes if with_attributes else None,
            grad_barycentrics if with_barycentrics else None,
            None,
            None,
        )


def _group_length(channels: int) -> int:
    return next(length for length in (4, 3, 2, 1) if channels % length == 0)


def interpolate(attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
    """`[V, C]` or `[N, V, C]` -> `[N, H, W, C]`; see `backend.rendering.interpolate`."""
    return _Interpolate.apply(attributes, barycentrics, face_ids, faces)
