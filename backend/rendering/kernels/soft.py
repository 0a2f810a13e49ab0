"""Soft rasterization (Liu et al. 2019): every face covers pixels near it a little, and all faces are mixed by depth.

A pixel center at squared screen distance d^2 from a face, counted positive inside and negative outside, is covered by it
with D = sigmoid(+-d^2 / sigma). Coverage is 1 - prod (1 - D); attributes and depth are averages with the weights
D exp(-w / gamma), each face's value taken at its point nearest to the pixel center.

One thread walks over the pixels around a face, as far as D matters, and adds to the sums of each pixel: no list of
faces per pixel is kept. A first pass finds the nearest w of a pixel, which keeps the exponentials in range.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("soft")

SMALLEST_W = wp.constant(constants.SMALLEST_W)
SOFT_REACH = wp.constant(constants.SOFT_REACH)
GPU_LANES = 16


@wp.struct
class SoftFace:
    """A face on the screen, in units of half the image's height (y down), with the pixels around it."""

    drawn: bool
    p: wp.vec2
    q: wp.vec2
    r: wp.vec2
    inverse_w: wp.vec3
    area: float
    first_column: int
    end_column: int
    first_row: int
    end_row: int


@wp.func
def on_screen(point: wp.vec4, aspect: float):
    return wp.vec2((point[0] / point[3] + 1.0) * aspect, 1.0 - point[1] / point[3])


@wp.func
def drawable(point: wp.vec4):
    return wp.isfinite(point) and point[3] >= SMALLEST_W and point[2] >= -point[3]


@wp.func
def cross2(a: wp.vec2, b: wp.vec2):
    return a[0] * b[1] - a[1] * b[0]


@wp.func
def soft_face(
    clip: wp.array(dtype=wp.vec4), first: int, face: wp.vec3i, vertex_count: int, height: int, width: int, sigma: float
):
    f = SoftFace()
    f.drawn = False
    if wp.min(face) < 0 or wp.max(face) >= vertex_count:
        return f
    p = clip[first + face[0]]
    q = clip[first + face[1]]
    r = clip[first + face[2]]
    if not (drawable(p) and drawable(q) and drawable(r)):
        return f
    aspect = float(width) / float(height)
    f.p = on_screen(p, aspect)
    f.q = on_screen(q, aspect)
    f.r = on_screen(r, aspect)
    f.inverse_w = wp.vec3(1.0 / p[3], 1.0 / q[3], 1.0 / r[3])
    f.area = cross2(f.q - f.p, f.r - f.p)
    radius = wp.sqrt(SOFT_REACH * sigma)
    low = wp.min(wp.min(f.p, f.q), f.r) - wp.vec2(radius)
    high = wp.max(wp.max(f.p, f.q), f.r) + wp.vec2(radius)
    half = 0.5 * float(height)
    f.first_column = int(wp.clamp(low[0] * half - 0.5, 0.0, float(width)))
    f.end_column = int(wp.ceil(wp.clamp(high[0] * half + 0.5, 0.0, float(width))))
    f.first_row = int(wp.clamp(low[1] * half - 0.5, 0.0, float(height)))
    f.end_row = int(wp.ceil(wp.clamp(high[1] * half + 0.5, 0.0, float(height))))
    f.drawn = f.area != 0.0 and wp.isfinite(f.area)
    return f


@wp.struct
class Nearness:
    """How a face lies to a pixel center x: `depth_in` is +-d^2 / sigma, `weights` the screen barycentrics of its nearest
    point. `side` is the nearest of its edges (0: p q, 1: q r, 2: r p), `along` where on it (0 to 1), `away` from there
    to x."""

    counts: bool
    inside: bool
    depth_in: float
    side: int
    along: float
    away: wp.vec2
    weights: wp.vec3


@wp.func
def corner(f: SoftFace, index: int):
    if index % 3 == 0:
        return f.p
    if index % 3 == 1:
        return f.q
    return f.r


@wp.func
def nearness(f: SoftFace, x: wp.vec2, sigma: float):
    n = Nearness()
    n.weights = wp.vec3(cross2(f.q - x, f.r - x), cross2(f.r - x, f.p - x), cross2(f.p - x, f.q - x)) / f.area
    n.inside = wp.min(n.weights) >= 0.0
    shortest = float(wp.inf)
    for i in range(3):
        start = corner(f, i)
        edge = corner(f, i + 1) - start
        along = wp.clamp(wp.dot(x - start, edge) / wp.max(wp.dot(edge, edge), 1.0e-20), 0.0, 1.0)
        away = x - start - edge * along
        distance = wp.dot(away, away)
        if distance < shortest:
            shortest = distance
            n.side = i
            n.along = along
            n.away = away
    n.depth_in = wp.where(n.inside, shortest, -shortest) / sigma
    n.counts = n.depth_in > -SOFT_REACH
    if not n.inside:
        n.weights = wp.vec3(0.0)
        n.weights[n.side] = 1.0 - n.along
        n.weights[(n.side + 1) % 3] = n.along
    return n


@wp.func
def softplus(x: float):
    return wp.max(x, 0.0) + wp.log(1.0 + wp.exp(-wp.abs(x)))


@wp.func
def sigmoid(x: float):
    return 1.0 / (1.0 + wp.exp(-x))


@wp.func
def center(column: int, row: int, height: int):
    return wp.vec2((float(column) + 0.5) / (0.5 * float(height)), (float(row) + 0.5) / (0.5 * float(height)))


@wp.kernel(module=module)
def find_nearest_w(
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    face_count: int,
    height: int,
    width: int,
    sigma: float,
    lanes: int,
    nearest: wp.array(dtype=float),
):
    index = wp.tid() // lanes
    view = index // face_count
    face = faces[index - view * face_count]
    f = soft_face(clip, view * vertex_count, face, vertex_count, height, width, sigma)
    if f.drawn:
        for row in range(f.first_row + wp.tid() - index * lanes, f.end_row, lanes):
            for column in range(f.first_column, f.end_column):
                n = nearness(f, center(column, row, height), sigma)
                if n.counts:
                    wp.atomic_min(nearest, (view * height + row) * width + column, 1.0 / wp.dot(n.weights, f.inverse_w))


@wp.kernel(module=module)
def add_faces(
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    attributes: wp.array(dtype=float),
    vertex_count: int,
    face_count: int,
    height: int,
    width: int,
    sigma: float,
    lanes: int,
    gamma: float,
    channels: int,
    nearest: wp.array(dtype=float),
    miss: wp.array(dtype=float),
    sums: wp.array(dtype=float),
):
    """`miss` is log prod (1 - D); a pixel's `sums` are those of weights, weighted w and weighted attributes."""
    index = wp.tid() // lanes
    view = index // face_count
    face = faces[index - view * face_count]
    f = soft_face(clip, view * vertex_count, face, vertex_count, height, width, sigma)
    if f.drawn:
        for row in range(f.first_row + wp.tid() - index * lanes, f.end_row, lanes):
            for column in range(f.first_column, f.end_column):
                n = nearness(f, center(column, row, height), sigma)
                if n.counts:
                    pixel = (view * height + row) * width + column
                    shares = wp.cw_mul(n.weights, f.inverse_w)
                    w = 1.0 / (shares[0] + shares[1] + shares[2])
                    share = sigmoid(n.depth_in) * wp.exp((nearest[pixel] - w) / gamma)
                    wp.atomic_add(miss, pixel, -softplus(n.depth_in))
                    target = pixel * (channels + 2)
                    wp.atomic_add(sums, target, share)
                    wp.atomic_add(sums, target + 1, share * w)
                    for c in range(channels):
                        value = float(0.0)
                        for i in range(3):
                            value += shares[i] * attributes[(view * vertex_count + face[i]) * channels + c]
                        wp.atomic_add(sums, target + 2 + c, share * w * value)


@wp.kernel(module=module)
def add_faces_backward(
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    attributes: wp.array(dtype=float),
    vertex_count: int,
    face_count: int,
    height: int,
    width: int,
    sigma: float,
    lanes: int,
    gamma: float,
    channels: int,
    nearest: wp.array(dtype=float),
    miss: wp.array(dtype=float),
    sums: wp.array(dtype=float),
    grad_coverage: wp.array(dtype=float),
    grad_depth: wp.array(dtype=float),
    grad_mixed: wp.array(dtype=float),
    grad_clip: wp.array(dtype=wp.vec4),
    grad_attributes: wp.array(dtype=float),
):
    index = wp.tid() // lanes
    view = index // face_count
    face = faces[index - view * face_count]
    first = view * vertex_count
    f = soft_face(clip, first, face, vertex_count, height, width, sigma)
    if f.drawn:
        for row in range(f.first_row + wp.tid() - index * lanes, f.end_row, lanes):
            for column in range(f.first_column, f.end_column):
                x = center(column, row, height)
                n = nearness(f, x, sigma)
                if n.counts:
                    pixel = (view * height + row) * width + column
                    target = pixel * (channels + 2)
                    shares = wp.cw_mul(n.weights, f.inverse_w)
                    w = 1.0 / (shares[0] + shares[1] + shares[2])
                    covered = sigmoid(n.depth_in)
                    share = covered * wp.exp((nearest[pixel] - w) / gamma) / sums[target]
                    # A face's value is w sum_i s_i A_i / w_i; gathered here: its gradient with respect to w, s_i / w_i.
                    grad_w = share * grad_depth[pixel]
                    grad_log_share = grad_depth[pixel] * (w - sums[target + 1] / sums[target])
                    grad_shares = wp.vec3(0.0)
                    for c in range(channels):
                        g = grad_mixed[pixel * channels + c]
                        value = float(0.0)
                        for i in range(3):
                            slot = (first + face[i]) * channels + c
                            value += w * shares[i] * attributes[slot]
                            grad_shares[i] += share * g * w * attributes[slot]
                            wp.atomic_add(grad_attributes, slot, share * g * w * shares[i])
                        grad_w += share * g * value / w
                        grad_log_share += g * (value - sums[target + 2 + c] / sums[target])
                    grad_log_share = grad_log_share * share
                    grad_w -= grad_log_share / gamma
                    grad_shares -= wp.vec3(grad_w * w * w)
                    grad_signed = grad_log_share * (1.0 - covered)
                    grad_signed += grad_coverage[pixel] * wp.exp(miss[pixel]) * covered
                    grad_weights = wp.cw_mul(grad_shares, f.inverse_w)
                    grad_p = wp.matrix(shape=(3, 2), dtype=float)
                    # The nearest point slides along its edge without changing the distance, to first order.
                    pull = n.away * (-2.0 * grad_signed * wp.where(n.inside, 1.0, -1.0) / sigma)
                    i = n.side
                    j = (n.side + 1) % 3
                    grad_p[i] += pull * (1.0 - n.along)
                    grad_p[j] += pull * n.along
                    if n.inside:
                        # A corner moving by m shifts the weights at a fixed center by -s_corner grad(s) . m
                        slope = wp.vec2(0.0)
                        for k in range(3):
                            opposite = corner(f, k + 2) - corner(f, k + 1)
                            slope += wp.vec2(-opposite[1], opposite[0]) * (grad_weights[k] / f.area)
                        for k in range(3):
                            grad_p[k] -= slope * n.weights[k]
                    elif n.along > 0.0 and n.along < 1.0:
                        start = corner(f, i)
                        edge = corner(f, j) - start
                        grad_along = (grad_weights[j] - grad_weights[i]) / wp.dot(edge, edge)
                        turn = x - start - 2.0 * n.along * edge
                        grad_p[i] -= (edge + turn) * grad_along
                        grad_p[j] += turn * grad_along
                    for k in range(3):
                        point = clip[first + face[k]]
                        grad_x = grad_p[k][0] * f.inverse_w[k] * float(width) / float(height)
                        grad_y = -grad_p[k][1] * f.inverse_w[k]
                        along_w = (grad_x * point[0] + grad_y * point[1]) * f.inverse_w[k]
                        along_w += grad_shares[k] * n.weights[k] * f.inverse_w[k] * f.inverse_w[k]
                        wp.atomic_add(grad_clip, first + face[k], wp.vec4(grad_x, grad_y, 0.0, -along_w))


class _SoftRasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, clip: Tensor, attributes: Tensor, faces: Tensor, height: int, width: int, sigma: float, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        clip, attributes, faces = clip.contiguous(), attributes.contiguous(), faces.contiguous()
        (views, vertex_count, channels), face_count, device = attributes.shape, faces.shape[0], clip.device
        lanes = 1 if device.type == "cpu" else GPU_LANES
        sizes = [vertex_count, face_count, height, width, sigma, lanes]
        nearest = torch.full((views, height, width), torch.inf, device=device)
        miss = torch.zeros((views, height, width), device=device)
        sums = torch.zeros((views, height, width, channels + 2), device=device)
        threads = views * face_count * lanes
        launch(find_nearest_w, threads, [rows(clip), rows(faces), *sizes, nearest])
        launch(
            add_faces, threads, [rows(clip), rows(faces), attributes, *sizes, gamma, channels, nearest, miss, sums]
        )
        ctx.save_for_backward(clip, attributes, faces, nearest, miss, sums)
        ctx.sizes, ctx.gamma = sizes, gamma
        touched = sums[..., 0] > 0
        mixed = torch.where(touched[..., None], sums[..., 2:] / sums[..., :1], 0.0)
        depth = torch.where(touched, sums[..., 1] / sums[..., 0], torch.inf)
        return -torch.expm1(miss), depth, mixed

    @staticmethod
    def backward(ctx, grad_coverage: Tensor, grad_depth: Tensor, grad_mixed: Tensor):
        clip, attributes, faces, nearest, miss, sums = ctx.saved_tensors
        views, _, channels = attributes.shape
        grad_clip, grad_attributes = torch.zeros_like(clip), torch.zeros_like(attributes)
        launch(
            add_faces_backward,
            views * faces.shape[0] * ctx.sizes[-1],
            [rows(clip), rows(faces), attributes, *ctx.sizes, ctx.gamma, channels, nearest, miss, sums]
            + [grad.contiguous() for grad in (grad_coverage, grad_depth, grad_mixed)]
            + [rows(grad_clip), grad_attributes],
        )
        return grad_clip, grad_attributes, None, None, None, None, None


def soft_rasterize(
    clip: Tensor, attributes: Tensor, faces: Tensor, height: int, width: int, sigma: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage, depth `[N, H, W]` and mixed attributes `[N, H, W, C]`; see `backend.rendering.soft_rasterize`."""
    return _SoftRasterize.apply(clip, attributes, faces, height, width, sigma, gamma)
