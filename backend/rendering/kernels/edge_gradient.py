"""Rasterized edge gradients (Pidhorskyi et al. 2024): values stay as they are, the gradient treats edges as if they moved.

Where two neighboring pixels see different surfaces, the edge between them is thought to move with the fragment that
ends there: the only pixel of the two that is covered, else the nearer one. For a pair (a, b) the force on that
fragment along the pair is g = -sum_c (I_b - I_a) (G_a + G_b) / 2, handed to its three vertices by its barycentrics.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, lanes_per_row, launch, rows

module = kernel_module("edge_gradient")

W_SLACK = wp.constant(constants.W_SLACK)
SLOPE_SLACK = wp.constant(constants.SLOPE_SLACK)


@wp.func
def share_vertex(one: wp.vec3i, other: wp.vec3i):
    for i in range(3):
        if one[i] == other[0] or one[i] == other[1] or one[i] == other[2]:
            return True
    return False


@wp.func
def w_of_plane(
    clip: wp.array(dtype=wp.vec4), first: int, face: wp.vec3i, column: int, row: int, height: int, width: int
):
    """w where the ray through a pixel center meets the plane of a face, inside of it or not."""
    fx = (float(column) + 0.5) / (0.5 * float(width)) - 1.0
    fy = 1.0 - (float(row) + 0.5) / (0.5 * float(height))
    p = clip[first + face[0]]
    q = clip[first + face[1]]
    r = clip[first + face[2]]
    a = wp.vec2(p[0] - fx * p[3], p[1] - fy * p[3])
    b = wp.vec2(q[0] - fx * q[3], q[1] - fy * q[3])
    c = wp.vec2(r[0] - fx * r[3], r[1] - fy * r[3])
    weights = wp.vec3(b[0] * c[1] - b[1] * c[0], c[0] * a[1] - c[1] * a[0], a[0] * b[1] - a[1] * b[0])
    return wp.dot(weights, wp.vec3(p[3], q[3], r[3])) / (weights[0] + weights[1] + weights[2])


@wp.kernel(module=module)
def edge_gradient_backward(
    image: wp.array(dtype=float),
    grad_image: wp.array(dtype=float),
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    w: wp.array(dtype=float),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    channels: int,
    lanes: int,
    grad_clip: wp.array(dtype=wp.vec4),
):
    line = wp.tid() // lanes
    view = line // height
    row = line - view * height
    first = view * vertex_count
    for column in range(wp.tid() - line * lanes, width, lanes):
        a = line * width + column
        for direction in range(2):
            vertical = direction == 1
            b = a + wp.where(vertical, width, 1)
            inside = (vertical and row + 1 < height) or (not vertical and column + 1 < width)
            if inside:
                if face_ids[a] != face_ids[b]:
                    owner = wp.where(w[a] <= w[b], a, b)
                    continuous = bool(False)
                    if face_ids[a] >= 0 and face_ids[b] >= 0:
                        face_a = faces[face_ids[a]]
                        face_b = faces[face_ids[b]]
                        continuous = share_vertex(face_a, face_b)
                        if not continuous:
                            next_column = column + wp.where(vertical, 0, 1)
                            next_row = row + wp.where(vertical, 1, 0)
                            slope_a = wp.abs(w_of_plane(clip, first, face_a, next_column, next_row, height, width) - w[a])
                            slope_b = wp.abs(w_of_plane(clip, first, face_b, column, row, height, width) - w[b])
                            slope = wp.max(slope_a, slope_b)
                            continuous = wp.abs(w[a] - w[b]) <= SLOPE_SLACK * slope + W_SLACK * w[owner]
                    if not continuous:
                        force = float(0.0)
                        for c in range(channels):
                            step = image[b * channels + c] - image[a * channels + c]
                            force -= 0.5 * step * (grad_image[a * channels + c] + grad_image[b * channels + c])
                        face = faces[face_ids[owner]]
                        weights = barycentrics[owner]
                        at = (
                            weights[0] * clip[first + face[0]]
                            + weights[1] * clip[first + face[1]]
                            + weights[2] * clip[first + face[2]]
                        )
                        grad_x = wp.where(vertical, 0.0, force) * 0.5 * float(width) / at[3]
                        grad_y = -wp.where(vertical, force, 0.0) * 0.5 * float(height) / at[3]
                        grad = wp.vec4(grad_x, grad_y, 0.0, -(grad_x * at[0] + grad_y * at[1]) / at[3])
                        for i in range(3):
                            wp.atomic_add(grad_clip, first + face[i], grad * weights[i])


class _EdgeGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, image: Tensor, clip: Tensor, face_ids: Tensor, barycentrics: Tensor, w: Tensor, faces: Tensor
    ) -> Tensor:
        saved = (image, clip, face_ids, barycentrics, w, faces)
        ctx.save_for_backward(*(tensor.contiguous() for tensor in saved))
        return image.view_as(image)

    @staticmethod
    def backward(ctx, grad_image: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        if not ctx.needs_input_grad[1]:
            return grad_image, None, None, None, None, None
        image, clip, face_ids, barycentrics, w, faces = ctx.saved_tensors
        views, height, width, channels = image.shape
        lanes = lanes_per_row(image.device, width)
        grad_clip = torch.zeros_like(clip)
        launch(
            edge_gradient_backward,
            views * height * lanes,
            [image, grad_image.contiguous(), face_ids, rows(barycentrics), w, rows(clip), rows(faces)]
            + [clip.shape[1], height, width, channels, lanes, rows(grad_clip)],
        )
        return grad_image, grad_clip, None, None, None, None


def edge_gradient(
    image: Tensor, clip: Tensor, face_ids: Tensor, barycentrics: Tensor, w: Tensor, faces: Tensor
) -> Tensor:
    """`image` unchanged, with gradients of its edges; see `backend.rendering.edge_gradient`."""
    return _EdgeGradient.apply(image, clip, face_ids, barycentrics, w, faces)
