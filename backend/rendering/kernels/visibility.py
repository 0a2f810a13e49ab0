"""Which face each pixel sees, with perspective-correct barycentrics, and the way back to the clip-space vertices.

Homogeneous edge functions (Olano and Greer 1997): with X_i = x_i - fx w_i and Y_i = y_i - fy w_i at a pixel center
(fx, fy) in NDC, a_0 = X_1 Y_2 - Y_1 X_2 and cyclic; b_i = a_i / sum a are the perspective-correct barycentrics, and
depth z/w = sum b_i z_i / sum b_i w_i. Visibility is one 64-bit minimum per pixel over (depth, face), which gives the
same faces in any order of execution.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("visibility")

SMALLEST_W = wp.constant(constants.SMALLEST_W)
PIXEL_SLACK = wp.constant(1.0e-3)
NO_FACE = wp.constant(wp.int64(0x7FFFFFFFFFFFFFFF))


@wp.func
def canonical_order(face: wp.vec3i):
    """The face's vertices by increasing index: a shared edge is then evaluated identically by both of its faces."""
    low = wp.min(wp.min(face[0], face[1]), face[2])
    high = wp.max(wp.max(face[0], face[1]), face[2])
    return wp.vec3i(low, face[0] + face[1] + face[2] - low - high, high)


@wp.func
def edge_values(p: wp.vec4, q: wp.vec4, r: wp.vec4, fx: float, fy: float):
    """The three homogeneous edge functions (a_p, a_q, a_r); p, q and r must be in canonical order."""
    px = p[0] - fx * p[3]
    py = p[1] - fy * p[3]
    qx = q[0] - fx * q[3]
    qy = q[1] - fy * q[3]
    rx = r[0] - fx * r[3]
    ry = r[1] - fy * r[3]
    # a_q is -(p x r), not r x p: should multiply-adds be fused, the two differ in the last bit and edges would leak.
    return wp.vec3(qx * ry - qy * rx, -(px * ry - py * rx), px * qy - py * qx)


@wp.func
def weight_of(vertex: int, order: wp.vec3i, weights: wp.vec3):
    """The weight of one of a face's vertices, where `weights` belong to the vertices in canonical order."""
    if vertex == order[0]:
        return weights[0]
    if vertex == order[1]:
        return weights[1]
    return weights[2]


@wp.func
def sortable(depth: float):
    """The bits of a float as an integer of the same order."""
    bits = wp.cast(depth, wp.int32)
    if bits < 0:
        bits = bits ^ 0x7FFFFFFF
    return wp.int64(bits)


@wp.func
def center_x(column: int, width: int):
    """A pixel center's x in NDC."""
    return (float(column) + 0.5) / (0.5 * float(width)) - 1.0


@wp.func
def center_y(row: int, height: int):
    """A pixel center's y in NDC, upward."""
    return 1.0 - (float(row) + 0.5) / (0.5 * float(height))


@wp.kernel(module=module)
def project_to_pixels(clip: wp.array(dtype=wp.vec4), height: int, width: int, points: wp.array(dtype=wp.vec3)):
    """(column, row, 1/w) in pixels, integers at pixels' upper left corners; 1/w is 0 for unseen vertices."""
    vertex = wp.tid()
    p = clip[vertex]
    if wp.isfinite(p) and p[3] >= SMALLEST_W and p[2] >= -p[3]:
        scale = 1.0 / p[3]
        column = (p[0] * scale + 1.0) * 0.5 * float(width)
        row = (1.0 - p[1] * scale) * 0.5 * float(height)
        if wp.isfinite(column) and wp.isfinite(row):
            points[vertex] = wp.vec3(column, row, scale)


@wp.kernel(module=module)
def find_nearest_faces(
    points: wp.array(dtype=wp.vec3),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    face_count: int,
    height: int,
    width: int,
    lanes: int,
    nearest: wp.array(dtype=wp.int64),
):
    """`lanes`^2 threads share a face's bounding box, so that on a GPU no single thread walks over a huge one."""
    thread = wp.tid()
    face_id = thread
    lane = int(0)
    if lanes > 1:
        lane = thread % (lanes * lanes)
        face_id = thread // (lanes * lanes)
    view = face_id // face_count
    face_id -= view * face_count
    first = view * vertex_count
    order = canonical_order(faces[face_id])
    if order[0] < 0 or order[2] >= vertex_count or order[0] == order[1] or order[1] == order[2]:
        return
    i = points[first + order[0]]
    j = points[first + order[1]]
    k = points[first + order[2]]
    if wp.min(wp.min(i[2], j[2]), k[2]) == 0.0:
        return
    # Bounding box in pixel centers, a little too large so that rounding loses no pixel; the edge functions decide.
    low_x = wp.max(wp.min(wp.min(i[0], j[0]), k[0]) - PIXEL_SLACK, 0.0)
    low_y = wp.max(wp.min(wp.min(i[1], j[1]), k[1]) - PIXEL_SLACK, 0.0)
    high_x = wp.min(wp.max(wp.max(i[0], j[0]), k[0]) + PIXEL_SLACK, float(width))
    high_y = wp.min(wp.max(wp.max(i[1], j[1]), k[1]) + PIXEL_SLACK, float(height))
    if low_x > high_x or low_y > high_y:
        return
    # Adding 1/2 and truncating gives the first center at or beyond a coordinate, without a call to ceil or floor.
    first_column = int(low_x + 0.5)
    first_row = int(low_y + 0.5)
    end_column = int(high_x + 0.5)
    end_row = int(high_y + 0.5)
    if first_column >= end_column or first_row >= end_row:
        return
    p = clip[first + order[0]]
    q = clip[first + order[1]]
    r = clip[first + order[2]]
    for row in range(first_row + lane // lanes, end_row, lanes):
        fy = center_y(row, height)
        for column in range(first_column + lane % lanes, end_column, lanes):
            a = edge_values(p, q, r, center_x(column, width), fy)
            if wp.min(a) >= 0.0 or wp.max(a) <= 0.0:
                total = a[0] + a[1] + a[2]
                depth = (a[0] * p[2] + a[1] * q[2] + a[2] * r[2]) / (a[0] * p[3] + a[1] * q[3] + a[2] * r[3])
                # A face without area, or so large that its products overflow, has no barycentrics here.
                if total != 0.0 and wp.isfinite(total) and wp.isfinite(depth):
                    key = (sortable(depth) << wp.int64(32)) | wp.int64(face_id)
                    wp.atomic_min(nearest, (view * height + row) * width + column, key)


@wp.kernel(module=module)
def resolve_fragments(
    nearest: wp.array(dtype=wp.int64),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    depth: wp.array(dtype=float),
    w: wp.array(dtype=float),
):
    pixel = wp.tid()
    key = nearest[pixel]
    if key == NO_FACE:
        face_ids[pixel] = -1
        barycentrics[pixel] = wp.vec3(0.0)
        depth[pixel] = 1.0
        w[pixel] = wp.inf
        return
    face_id = wp.int32(key & wp.int64(0xFFFFFFFF))
    face = faces[face_id]
    first = (pixel // (height * width)) * vertex_count
    order = canonical_order(face)
    p = clip[first + order[0]]
    q = clip[first + order[1]]
    r = clip[first + order[2]]
    fx = center_x(pixel % width, width)
    fy = center_y((pixel // width) % height, height)
    # The same arithmetic as the visibility test, so the three weights have one sign and b lies in [0, 1].
    a = edge_values(p, q, r, fx, fy)
    b = a / (a[0] + a[1] + a[2])
    view_w = b[0] * p[3] + b[1] * q[3] + b[2] * r[3]
    face_ids[pixel] = face_id
    barycentrics[pixel] = wp.vec3(
        weight_of(face[0], order, b), weight_of(face[1], order, b), weight_of(face[2], order, b)
    )
    depth[pixel] = (b[0] * p[2] + b[1] * q[2] + b[2] * r[2]) / view_w
    w[pixel] = view_w


@wp.kernel(module=module)
def rasterize_backward(
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    grad_barycentrics: wp.array(dtype=wp.vec3),
    grad_depth: wp.array(dtype=float),
    grad_w: wp.array(dtype=float),
    with_depth: int,
    grad_clip: wp.array(dtype=wp.vec4),
):
    pixel = wp.tid()
    face_id = face_ids[pixel]
    if face_id < 0:
        return
    face = faces[face_id]
    first = (pixel // (height * width)) * vertex_count
    p = clip[first + face[0]]
    q = clip[first + face[1]]
    r = clip[first + face[2]]
    b = barycentrics[pixel]
    g = grad_barycentrics[pixel]
    grad_p = wp.vec4(0.0)
    grad_q = wp.vec4(0.0)
    grad_r = wp.vec4(0.0)
    if with_depth != 0:
        # depth = Z / W and w = W with Z = sum b_i z_i and W = sum b_i w_i.
        view_w = b[0] * p[3] + b[1] * q[3] + b[2] * r[3]
        depth = (b[0] * p[2] + b[1] * q[2] + b[2] * r[2]) / view_w
        grad_z = grad_depth[pixel] / view_w
        grad_view_w = grad_w[pixel] - grad_z * depth
        g += wp.vec3(p[2], q[2], r[2]) * grad_z + wp.vec3(p[3], q[3], r[3]) * grad_view_w
        along = wp.vec4(0.0, 0.0, grad_z, grad_view_w)
        grad_p = along * b[0]
        grad_q = along * b[1]
        grad_r = along * b[2]
    fx = center_x(pixel % width, width)
    fy = center_y((pixel // width) % height, height)
    px = p[0] - fx * p[3]
    py = p[1] - fy * p[3]
    qx = q[0] - fx * q[3]
    qy = q[1] - fy * q[3]
    rx = r[0] - fx * r[3]
    ry = r[1] - fy * r[3]
    total = (qx * ry - qy * rx) + (rx * py - ry * px) + (px * qy - py * qx)
    if total == 0.0:
        return
    # b_i = a_i / sum a, hence dL/da_i = (g_i - sum_j g_j b_j) / sum a.
    a = (g - wp.vec3(wp.dot(g, b))) / total
    grad_p += local_gradient(a[2] * qy - a[1] * ry, a[1] * rx - a[2] * qx, fx, fy)
    grad_q += local_gradient(a[0] * ry - a[2] * py, a[2] * px - a[0] * rx, fx, fy)
    grad_r += local_gradient(a[1] * py - a[0] * qy, a[0] * qx - a[1] * px, fx, fy)
    wp.atomic_add(grad_clip, first + face[0], grad_p)
    wp.atomic_add(grad_clip, first + face[1], grad_q)
    wp.atomic_add(grad_clip, first + face[2], grad_r)


@wp.func
def local_gradient(grad_x: float, grad_y: float, fx: float, fy: float):
    """From the gradient of X = x - fx w and Y = y - fy w to the gradient of (x, y, z, w)."""
    return wp.vec4(grad_x, grad_y, 0.0, -fx * grad_x - fy * grad_y)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        views, vertex_count = clip.shape[:2]
        face_count = faces.shape[0]
        clip, faces, device = clip.contiguous(), faces.contiguous(), clip.device
        nearest = torch.full((views, height, width), int(NO_FACE), dtype=torch.int64, device=device)
        face_ids = torch.empty((views, height, width), dtype=torch.int32, device=device)
        barycentrics = torch.empty((views, height, width, 3), device=device)
        depth = torch.empty((views, height, width), device=device)
        w = torch.empty((views, height, width), device=device)
        points = torch.zeros((views, vertex_count, 3), device=device)
        launch(project_to_pixels, views * vertex_count, [rows(clip), height, width, rows(points)])
        lanes = _lanes(device, face_count, height * width)
        launch(
            find_nearest_faces,
            views * face_count * lanes * lanes,
            [rows(points), rows(clip), rows(faces), vertex_count, face_count, height, width, lanes, nearest],
        )
        launch(
            resolve_fragments,
            views * height * width,
            [nearest, rows(clip), rows(faces), vertex_count, height, width, face_ids, rows(barycentrics), depth, w],
        )
        ctx.save_for_backward(clip, faces, face_ids, barycentrics)
        ctx.mark_non_differentiable(face_ids)
        ctx.set_materialize_grads(False)
        return face_ids, barycentrics, depth, w

    @staticmethod
    def backward(ctx, _ids: None, grad_barycentrics: Tensor | None, grad_depth: Tensor | None, grad_w: Tensor | None):
        clip, faces, face_ids, barycentrics = ctx.saved_tensors
        views, height, width = face_ids.shape
        with_depth = grad_depth is not None or grad_w is not None
        if grad_barycentrics is None:
            grad_barycentrics = torch.zeros_like(barycentrics)
        unused = barycentrics.new_zeros(face_ids.shape if with_depth else (1,))
        grad_clip = torch.zeros_like(clip)
        launch(
            rasterize_backward,
            face_ids.numel(),
            [face_ids, rows(barycentrics), rows(clip), rows(faces), clip.shape[1], height, width]
            + [rows(grad_barycentrics.contiguous())]
            + [unused if grad is None else grad.contiguous() for grad in (grad_depth, grad_w)]
            + [int(with_depth), rows(grad_clip)],
        )
        return grad_clip, None, None, None


def _lanes(device: torch.device, face_count: int, pixels: int) -> int:
    """Side of the block of threads that share a face: 1 on the CPU, more on a GPU if faces are few and hence large."""
    if device.type == "cpu" or face_count == 0:
        return 1
    return max(1, min(16, int((4 * pixels / face_count) ** 0.5)))


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Face ids, barycentrics, depth and w of each pixel; see `backend.rendering.rasterize`."""
    return _Rasterize.apply(clip, faces, height, width)
