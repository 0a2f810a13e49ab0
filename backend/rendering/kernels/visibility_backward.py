"""From the gradients of barycentrics, depth and w back to the clip-space vertices of the faces that are seen."""

import warp as wp

from backend.rendering.kernels.edges import center_x, center_y, face_from_center
from backend.rendering.kernels.runtime import kernel_module

module = kernel_module("visibility_backward")


@wp.func
def to_vertex(x: wp.float64, y: wp.float64, z: wp.float64, w: wp.float64, fx: wp.float64, fy: wp.float64):
    """From the gradients of X = x - fx w, Y = y - fy w, z and w to the gradient of (x, y, z, w)."""
    return wp.vec4(float(x), float(y), float(z), float(w - fx * x - fy * y))


@wp.kernel(module=module)
def rasterize_backward(
    face_ids: wp.array(dtype=wp.int32),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    lanes: int,
    grad_barycentrics: wp.array(dtype=wp.vec3),
    with_barycentrics: int,
    grad_depth: wp.array(dtype=float),
    with_depth: int,
    grad_w: wp.array(dtype=float),
    with_w: int,
    grad_clip: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    line = thread // lanes
    column = thread - line * lanes
    view = line // height
    vertices = view * vertex_count
    fy = center_y(line - view * height, height)
    while column < width:
        pixel = line * width + column
        face_id = face_ids[pixel]
        if face_id >= 0:
            face = faces[face_id]
            p = clip[vertices + face[0]]
            q = clip[vertices + face[1]]
            r = clip[vertices + face[2]]
            fx = center_x(column, width)
            local = face_from_center(p, q, r, fx, fy)
            total = local.a[0] + local.a[1] + local.a[2]
            if total != wp.float64(0.0):
                inverse = wp.float64(1.0) / total
                b = local.a * inverse
                g = wp.vec3d(wp.float64(0.0))
                grad_z = wp.float64(0.0)
                grad_view_w = wp.float64(0.0)
                if with_barycentrics != 0:
                    given = grad_barycentrics[pixel]
                    g = wp.vec3d(wp.float64(given[0]), wp.float64(given[1]), wp.float64(given[2]))
                if with_depth + with_w != 0:
                    # depth = Z / W and w = W with Z = sum b_i z_i and W = sum b_i w_i.
                    z = wp.vec3d(wp.float64(p[2]), wp.float64(q[2]), wp.float64(r[2]))
                    w = wp.vec3d(wp.float64(p[3]), wp.float64(q[3]), wp.float64(r[3]))
                    if with_w != 0:
                        grad_view_w = wp.float64(grad_w[pixel])
                    if with_depth != 0:
                        view_w = wp.dot(b, w)
                        grad_z = wp.float64(grad_depth[pixel]) / view_w
                        grad_view_w -= grad_z * (wp.dot(b, z) / view_w)
                    g += z * grad_z + w * grad_view_w
                # b_i = a_i / sum a, hence dL/da_i = (g_i - sum_j g_j b_j) / sum a.
                mean = wp.dot(g, b)
                a = wp.vec3d((g[0] - mean) * inverse, (g[1] - mean) * inverse, (g[2] - mean) * inverse)
                p_x = a[2] * local.q[1] - a[1] * local.r[1]
                p_y = a[1] * local.r[0] - a[2] * local.q[0]
                q_x = a[0] * local.r[1] - a[2] * local.p[1]
                q_y = a[2] * local.p[0] - a[0] * local.r[0]
                r_x = a[1] * local.p[1] - a[0] * local.q[1]
                r_y = a[0] * local.q[0] - a[1] * local.p[0]
                at_p = to_vertex(p_x, p_y, b[0] * grad_z, b[0] * grad_view_w, fx, fy)
                at_q = to_vertex(q_x, q_y, b[1] * grad_z, b[1] * grad_view_w, fx, fy)
                at_r = to_vertex(r_x, r_y, b[2] * grad_z, b[2] * grad_view_w, fx, fy)
                wp.atomic_add(grad_clip, vertices + face[0], at_p)
                wp.atomic_add(grad_clip, vertices + face[1], at_q)
                wp.atomic_add(grad_clip, vertices + face[2], at_r)
        column += lanes
