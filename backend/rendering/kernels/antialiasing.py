"""Edge-driven analytic antialiasing: pixel pairs that a silhouette edge crosses are blended by where it crosses.

After Laine et al. 2020 (section 3.5), but started from the mesh's silhouette edges instead of from the triangles that
pixels happen to see: with small triangles most silhouette edges belong to a triangle that no pixel center hits, and
their gradients would be lost. Each edge works in one direction: horizontal pixel pairs if it is steep, vertical if
flat. For a pair (A, B = A + 1) crossed at t in [0, 1) from A's center, alpha = 1/2 - t; if it is positive A receives
alpha (C_B - C_A), else B does. The nearest edge of a pair wins.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows
from backend.rendering.kernels.visibility import NO_FACE, project_to_pixels, sortable

module = kernel_module("antialiasing")

W_SLACK = wp.constant(constants.W_SLACK)


@wp.func
def side_of(p: wp.vec3, q: wp.vec3, point: wp.vec3):
    """Positive on one side of the screen line p q, negative on the other."""
    return (q[0] - p[0]) * (point[1] - p[1]) - (q[1] - p[1]) * (point[0] - p[0])


@wp.func
def swapped(p: wp.vec3, flip: bool):
    """Rows and columns exchanged, so that a flat edge is handled as a steep one."""
    if flip:
        return wp.vec3(p[1], p[0], p[2])
    return p


@wp.kernel(module=module)
def find_crossed_pairs(
    points: wp.array(dtype=wp.vec3),
    edges: wp.array(dtype=wp.vec2i),
    opposite: wp.array(dtype=wp.vec2i),
    face_ids: wp.array(dtype=wp.int32),
    w: wp.array(dtype=float),
    vertex_count: int,
    edge_count: int,
    height: int,
    width: int,
    pairs: wp.array(dtype=wp.int64),
):
    thread = wp.tid()
    edge_id = thread % edge_count
    view = thread // edge_count
    first = view * vertex_count
    edge = edges[edge_id]
    p = points[first + edge[0]]
    q = points[first + edge[1]]
    if p[2] == 0.0 or q[2] == 0.0:
        return
    others = opposite[edge_id]
    near_point = points[first + others[0]]
    if near_point[2] == 0.0:
        return
    near_side = side_of(p, q, near_point)
    if others[1] >= 0:
        far_point = points[first + others[1]]
        if far_point[2] != 0.0 and near_side * side_of(p, q, far_point) <= 0.0:
            return
    if near_side == 0.0:
        return
    flip = wp.abs(q[1] - p[1]) < wp.abs(q[0] - p[0])
    p = swapped(p, flip)
    q = swapped(q, flip)
    near_point = swapped(near_point, flip)
    lines = height
    length = width
    if flip:
        lines = width
        length = height
    low = wp.clamp(wp.min(p[1], q[1]) - 0.5, 0.0, float(lines))
    high = wp.clamp(wp.max(p[1], q[1]) - 0.5, 0.0, float(lines))
    slope = (q[0] - p[0]) / (q[1] - p[1])
    # Which side the face lies on, at equal height: +1 if it is toward larger coordinates.
    toward = near_point[0] - (p[0] + (near_point[1] - p[1]) * slope)
    for line in range(int(wp.ceil(low)), int(wp.ceil(high))):
        r = (float(line) + 0.5 - p[1]) / (q[1] - p[1])
        crossing = p[0] + r * (q[0] - p[0])
        if crossing >= 0.5 and crossing < float(length) - 0.5:
            a = int(crossing - 0.5)
            base = view * height * width
            index_a = base + line * width + a
            index_b = index_a + 1
            if flip:
                index_a = base + a * width + line
                index_b = index_a + width
            near = index_a
            far = index_b
            if toward > 0.0:
                near = index_b
                far = index_a
            inverse_w = (1.0 - r) * p[2] + r * q[2]
            visible = face_ids[near] >= 0 and face_ids[near] != face_ids[far]
            if visible and w[far] * inverse_w > 1.0 - W_SLACK:
                key = (sortable(1.0 / inverse_w) << wp.int64(32)) | wp.int64(edge_id)
                slot = 2 * index_a
                if flip:
                    slot += 1
                wp.atomic_min(pairs, slot, key)


@wp.func
def crossing_of(
    key: wp.int64,
    pixel: int,
    pixels: int,
    vertical: bool,
    width: int,
    vertex_count: int,
    edges: wp.array(dtype=wp.vec2i),
    points: wp.array(dtype=wp.vec3),
):
    """(alpha, r, slope) of the pair whose first pixel is `pixel`; r is where along its edge the crossing lies."""
    first = (pixel // pixels) * vertex_count
    edge = edges[wp.int32(key & wp.int64(0xFFFFFFFF))]
    p = swapped(points[first + edge[0]], vertical)
    q = swapped(points[first + edge[1]], vertical)
    line = (pixel % pixels) // width
    a = pixel % width
    if vertical:
        line = pixel % width
        a = (pixel % pixels) // width
    r = (float(line) + 0.5 - p[1]) / (q[1] - p[1])
    alpha = float(a) + 1.0 - (p[0] + r * (q[0] - p[0]))
    return wp.vec3(alpha, r, (q[0] - p[0]) / (q[1] - p[1]))


@wp.kernel(module=module)
def blend_pairs(
    pairs: wp.array(dtype=wp.int64),
    points: wp.array(dtype=wp.vec3),
    edges: wp.array(dtype=wp.vec2i),
    image: wp.array(dtype=float),
    vertex_count: int,
    height: int,
    width: int,
    channels: int,
    result: wp.array(dtype=float),
):
    """Each pixel gathers from its (up to four) pairs: no two threads write the same pixel, whatever the device."""
    pixel = wp.tid()
    pixels = height * width
    for side in range(4):
        vertical = side >= 2
        step = 1
        if vertical:
            step = width
        first = pixel
        other = pixel + step
        if side % 2 == 1:
            first = pixel - step
            other = first
        if first >= 0:  # a pair that would leave its row or its image is never marked
            slot = 2 * first
            if vertical:
                slot += 1
            key = pairs[slot]
            if key != NO_FACE:
                alpha = crossing_of(key, first, pixels, vertical, width, vertex_count, edges, points)[0]
                if (alpha > 0.0) == (first == pixel):
                    for c in range(channels):
                        difference = image[other * channels + c] - image[pixel * channels + c]
                        result[pixel * channels + c] += wp.abs(alpha) * difference


@wp.kernel(module=module)
def blend_pairs_backward(
    pairs: wp.array(dtype=wp.int64),
    points: wp.array(dtype=wp.vec3),
    edges: wp.array(dtype=wp.vec2i),
    image: wp.array(dtype=float),
    grad_result: wp.array(dtype=float),
    vertex_count: int,
    height: int,
    width: int,
    channels: int,
    with_points: int,
    grad_image: wp.array(dtype=float),
    grad_points: wp.array(dtype=wp.vec3),
):
    pixel = wp.tid()
    pixels = height * width
    for side in range(4):
        vertical = side >= 2
        step = 1
        if vertical:
            step = width
        first = pixel
        other = pixel + step
        if side % 2 == 1:
            first = pixel - step
            other = first
        if first >= 0:  # a pair that would leave its row or its image is never marked
            slot = 2 * first
            if vertical:
                slot += 1
            key = pairs[slot]
            if key != NO_FACE:
                found = crossing_of(key, first, pixels, vertical, width, vertex_count, edges, points)
                alpha = found[0]
                receiver = other
                sign = float(1.0)
                if (alpha > 0.0) == (first == pixel):
                    receiver = pixel
                    sign = float(-1.0)
                grad_alpha = float(0.0)
                for c in range(channels):
                    g = grad_result[receiver * channels + c]
                    grad_image[pixel * channels + c] += sign * wp.abs(alpha) * g
                    grad_alpha += g * (image[other * channels + c] - image[pixel * channels + c])
                if first == pixel and with_points != 0:
                    # dL/dalpha = G . (C_B - C_A), and alpha falls by as much as the crossing moves toward B.
                    edge = edges[wp.int32(key & wp.int64(0xFFFFFFFF))]
                    base = (pixel // pixels) * vertex_count
                    r = found[1]
                    grad = wp.vec3(-grad_alpha, grad_alpha * found[2], 0.0)
                    wp.atomic_add(grad_points, base + edge[0], swapped(grad, vertical) * (1.0 - r))
                    wp.atomic_add(grad_points, base + edge[1], swapped(grad, vertical) * r)


@wp.kernel(module=module)
def project_to_pixels_backward(
    clip: wp.array(dtype=wp.vec4),
    points: wp.array(dtype=wp.vec3),
    grad_points: wp.array(dtype=wp.vec3),
    height: int,
    width: int,
    grad_clip: wp.array(dtype=wp.vec4),
):
    vertex = wp.tid()
    grad = grad_points[vertex]
    scale = points[vertex][2]
    if grad[0] != 0.0 or grad[1] != 0.0:
        grad_x = grad[0] * 0.5 * float(width) * scale
        grad_y = -grad[1] * 0.5 * float(height) * scale
        p = clip[vertex]
        grad_clip[vertex] = wp.vec4(grad_x, grad_y, 0.0, -(grad_x * p[0] + grad_y * p[1]) * scale)


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor
    ) -> Tensor:
        image, clip = image.contiguous(), clip.contiguous()
        views, height, width, channels = image.shape
        vertex_count, edge_count = clip.shape[1], edges.shape[0]
        points = torch.zeros((views, vertex_count, 3), device=clip.device)
        pairs = torch.full((views, height, width, 2), int(NO_FACE), dtype=torch.int64, device=clip.device)
        launch(project_to_pixels, views * vertex_count, [rows(clip), height, width, rows(points)])
        launch(
            find_crossed_pairs,
            views * edge_count,
            [rows(points), rows(edges), rows(opposite), face_ids, w, vertex_count, edge_count, height, width, pairs],
        )
        result = image.clone()
        launch(
            blend_pairs,
            views * height * width,
            [pairs, rows(points), rows(edges), image, vertex_count, height, width, channels, result],
        )
        ctx.save_for_backward(image, clip, edges, points, pairs)
        return result

    @staticmethod
    def backward(ctx, grad_result: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        image, clip, edges, points, pairs = ctx.saved_tensors
        views, height, width, channels = image.shape
        with_points = ctx.needs_input_grad[1]
        grad_result = grad_result.contiguous()
        grad_image = grad_result.clone()
        grad_points = torch.zeros_like(points) if with_points else points.new_zeros(1, 3)
        launch(
            blend_pairs_backward,
            views * height * width,
            [pairs, rows(points), rows(edges), image, grad_result, clip.shape[1], height, width, channels]
            + [int(with_points), grad_image, rows(grad_points)],
        )
        if not with_points:
            return grad_image, None, None, None, None, None
        grad_clip = torch.zeros_like(clip)
        launch(
            project_to_pixels_backward,
            views * clip.shape[1],
            [rows(clip), rows(points), rows(grad_points), height, width, rows(grad_clip)],
        )
        return grad_image, grad_clip, None, None, None, None


def antialias(image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor) -> Tensor:
    """`image` with its silhouettes blended, `[N, H, W, C]`; see `backend.rendering.antialias`."""
    return _Antialias.apply(image, clip, face_ids, w, edges, opposite)
