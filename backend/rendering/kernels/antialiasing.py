"""Edge-driven analytic antialiasing: pixel pairs that a silhouette edge crosses are blended by where it crosses.

After Laine et al. 2020 (section 3.5), but started from the mesh's silhouette edges instead of from the triangles that
pixels happen to see: with small triangles most silhouette edges belong to a triangle that no pixel center hits, and
their gradients would be lost. Each edge acts in one direction: on horizontal pixel pairs if it is steep, on vertical
ones if it is flat. For a pair (A, B = A + 1) crossed at t in [0, 1) from A's center, alpha = 1/2 - t; if it is positive
A receives alpha (C_B - C_A), else B does.

A pair belongs to the crossing next to its far pixel, that is to the first thing in front of what the far pixel sees:
everything further in is hidden behind it or lies upon it. Edges therefore claim pairs of *both* directions, and a pair
claimed by an edge that acts in the other direction is left alone: what changes there is that edge's doing.

The gradient needs the step of the color at the crossing, and the near pixel's center lies up to a pixel inside the near
surface. The near color is therefore continued from the two pixels inside, linearly in the distance along the surface
in space (on a round limb most of it is depth). Values are not changed by this.

Three passes: silhouettes are listed, they claim pairs (a 64-bit minimum over crossing and edge), and they act on the
pairs that they have won. The work is that of the silhouettes, not of the pixels.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows
from backend.rendering.kernels.silhouette_edges import crossing_at, segment_of, silhouette_side, walk_of
from backend.rendering.kernels.visibility import NO_FACE, sortable

module = kernel_module("antialiasing")

W_SLACK = wp.constant(constants.W_SLACK)
FURTHEST_REACH = wp.constant(constants.FURTHEST_REACH)
NO_EDGE = NO_FACE

GPU_THREADS = 1 << 16


@wp.kernel(module=module)
def list_silhouettes(
    clip: wp.array(dtype=wp.vec4),
    edges: wp.array(dtype=wp.vec2i),
    opposite: wp.array(dtype=wp.vec2i),
    vertex_count: int,
    edge_count: int,
    lanes: int,
    silhouettes: wp.array(dtype=wp.int32),
    count: wp.array(dtype=wp.int32),
):
    """`lanes` threads share a view."""
    view = wp.tid() // lanes
    first = view * vertex_count
    for edge_id in range(wp.tid() - view * lanes, edge_count, lanes):
        edge = edges[edge_id]
        others = opposite[edge_id]
        p = clip[first + edge[0]]
        q = clip[first + edge[1]]
        other = clip[first + others[0]]
        second = clip[first + wp.max(others[1], 0)]
        side = silhouette_side(p, q, other, second, others[1] >= 0)
        if side != 0.0:
            slot = wp.atomic_add(count, 0, 1)
            index = view * edge_count + edge_id
            silhouettes[slot] = wp.where(side > 0.0, index, -1 - index)


@wp.kernel(module=module)
def claim_pairs(
    silhouettes: wp.array(dtype=wp.int32),
    count: wp.array(dtype=wp.int32),
    clip: wp.array(dtype=wp.vec4),
    edges: wp.array(dtype=wp.vec2i),
    face_ids: wp.array(dtype=wp.int32),
    w: wp.array(dtype=float),
    vertex_count: int,
    edge_count: int,
    height: int,
    width: int,
    threads: int,
    pairs: wp.array(dtype=wp.int64),
):
    for index in range(wp.tid(), count[0], threads):
        segment = segment_of(silhouettes[index], clip, edges, vertex_count, edge_count, height, width)
        if segment.seen:
            for direction in range(2):
                walk = walk_of(segment, direction, height, width)
                for line in range(walk.first_line, walk.end_line):
                    x = crossing_at(walk, line, width)
                    if x.inside:
                        near = wp.where(walk.toward > 0.0, x.second, x.first)
                        far = wp.where(walk.toward > 0.0, x.first, x.second)
                        visible = face_ids[near] >= 0 and face_ids[near] != face_ids[far]
                        if visible and w[far] * x.inverse_w > 1.0 - W_SLACK:
                            key = (sortable(x.distance) << wp.int64(32)) | wp.int64(segment.edge_id)
                            wp.atomic_min(pairs, x.slot, key)


@wp.func
def belongs_to(key: wp.int64, edge_id: int):
    return key != NO_EDGE and wp.int32(key & wp.int64(0x7FFFFFFF)) == edge_id


@wp.kernel(module=module)
def blend_pairs(
    silhouettes: wp.array(dtype=wp.int32),
    count: wp.array(dtype=wp.int32),
    clip: wp.array(dtype=wp.vec4),
    edges: wp.array(dtype=wp.vec2i),
    pairs: wp.array(dtype=wp.int64),
    image: wp.array(dtype=float),
    vertex_count: int,
    edge_count: int,
    height: int,
    width: int,
    channels: int,
    threads: int,
    result: wp.array(dtype=float),
):
    for index in range(wp.tid(), count[0], threads):
        segment = segment_of(silhouettes[index], clip, edges, vertex_count, edge_count, height, width)
        if segment.seen:
            for direction in range(2):
                walk = walk_of(segment, direction, height, width)
                if walk.acts:
                    for line in range(walk.first_line, walk.end_line):
                        x = crossing_at(walk, line, width)
                        if x.inside:
                            if belongs_to(pairs[x.slot], segment.edge_id):
                                receiver = wp.where(x.alpha > 0.0, x.first, x.second)
                                for c in range(channels):
                                    step = image[x.second * channels + c] - image[x.first * channels + c]
                                    wp.atomic_add(result, receiver * channels + c, x.alpha * step)


@wp.kernel(module=module)
def blend_pairs_backward(
    silhouettes: wp.array(dtype=wp.int32),
    count: wp.array(dtype=wp.int32),
    clip: wp.array(dtype=wp.vec4),
    edges: wp.array(dtype=wp.vec2i),
    face_ids: wp.array(dtype=wp.int32),
    w: wp.array(dtype=float),
    pairs: wp.array(dtype=wp.int64),
    image: wp.array(dtype=float),
    grad_result: wp.array(dtype=float),
    vertex_count: int,
    edge_count: int,
    height: int,
    width: int,
    channels: int,
    threads: int,
    with_clip: int,
    grad_image: wp.array(dtype=float),
    grad_clip: wp.array(dtype=wp.vec4),
):
    for index in range(wp.tid(), count[0], threads):
        segment = segment_of(silhouettes[index], clip, edges, vertex_count, edge_count, height, width)
        if segment.seen:
            for direction in range(2):
                walk = walk_of(segment, direction, height, width)
                if walk.acts:
                    for line in range(walk.first_line, walk.end_line):
                        x = crossing_at(walk, line, width)
                        if x.inside:
                            if belongs_to(pairs[x.slot], segment.edge_id):
                                receiver = wp.where(x.alpha > 0.0, x.first, x.second)
                                near = x.first
                                inner = x.first - x.step
                                inner_slot = x.slot - 2 * x.step
                                continued = x.place > 0
                                if walk.toward > 0.0:
                                    near = x.second
                                    inner = x.second + x.step
                                    inner_slot = x.slot + 2 * x.step
                                    continued = x.place + 2 < walk.length
                                reach = float(0.0)
                                if continued and with_clip != 0:
                                    if face_ids[inner] >= 0 and pairs[inner_slot] == NO_EDGE:
                                        # Distances along the surface in space: a pixel is as wide as at focal length 2.
                                        pixel = w[near] / float(wp.max(height, width))
                                        ahead = (1.0 - x.distance) * pixel
                                        deeper = 1.0 / x.inverse_w - w[near]
                                        behind = w[near] - w[inner]
                                        ratio = (ahead * ahead + deeper * deeper) / (pixel * pixel + behind * behind)
                                        reach = wp.min(wp.sqrt(ratio), FURTHEST_REACH)
                                if walk.toward < 0.0:
                                    reach = -reach
                                if reach == 0.0:
                                    inner = near
                                grad_alpha = float(0.0)
                                for c in range(channels):
                                    g = grad_result[receiver * channels + c]
                                    wp.atomic_add(grad_image, x.first * channels + c, -x.alpha * g)
                                    wp.atomic_add(grad_image, x.second * channels + c, x.alpha * g)
                                    step = image[x.second * channels + c] - image[x.first * channels + c]
                                    step += reach * (image[near * channels + c] - image[inner * channels + c])
                                    grad_alpha += g * step
                                if with_clip != 0:
                                    # Only the crossing's shift along its line counts, wherever on the edge one takes
                                    # hold: so the gradient of the point that is there now goes to both vertices.
                                    part = x.part * walk.end[2] / x.inverse_w
                                    part = segment.first_part + part * (segment.last_part - segment.first_part)
                                    at = segment.p + (segment.q - segment.p) * part
                                    slope = (walk.end[0] - walk.start[0]) / (walk.end[1] - walk.start[1])
                                    along = -grad_alpha * x.inverse_w * 0.5
                                    across = grad_alpha * slope * x.inverse_w * 0.5
                                    grad_x = wp.where(walk.vertical, across, along) * float(width)
                                    grad_y = -wp.where(walk.vertical, along, across) * float(height)
                                    grad_w = -(grad_x * at[0] + grad_y * at[1]) * x.inverse_w
                                    grad = wp.vec4(grad_x, grad_y, 0.0, grad_w)
                                    first = segment.view * vertex_count
                                    wp.atomic_add(grad_clip, first + segment.edge[0], grad * (1.0 - part))
                                    wp.atomic_add(grad_clip, first + segment.edge[1], grad * part)


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor
    ) -> Tensor:
        image, clip = image.contiguous(), clip.contiguous()
        views, height, width, channels = image.shape
        vertex_count, edge_count, device = clip.shape[1], edges.shape[0], clip.device
        total = views * edge_count
        lanes, threads = (1, 1) if device.type == "cpu" else (edge_count, min(total, GPU_THREADS))
        silhouettes = torch.empty(total, dtype=torch.int32, device=device)
        count = torch.zeros(1, dtype=torch.int32, device=device)
        pairs = torch.full((views, height, width, 2), int(NO_EDGE), dtype=torch.int64, device=device)
        result = image.clone()
        sizes = [vertex_count, edge_count, height, width]
        listed = [silhouettes, count, rows(clip), rows(edges)]
        launch(
            list_silhouettes,
            views * lanes,
            [rows(clip), rows(edges), rows(opposite), vertex_count, edge_count, lanes, silhouettes, count],
        )
        launch(claim_pairs, threads, [*listed, face_ids, w, *sizes, threads, pairs])
        launch(blend_pairs, threads, [*listed, pairs, image, *sizes, channels, threads, result])
        ctx.save_for_backward(image, clip, face_ids, w, edges, silhouettes, count, pairs)
        ctx.threads = threads
        return result

    @staticmethod
    def backward(ctx, grad_result: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        image, clip, face_ids, w, edges, silhouettes, count, pairs = ctx.saved_tensors
        _, height, width, channels = image.shape
        with_clip = ctx.needs_input_grad[1]
        grad_result = grad_result.contiguous()
        grad_image = grad_result.clone()
        grad_clip = torch.zeros_like(clip) if with_clip else clip.new_zeros(1, 4)
        launch(
            blend_pairs_backward,
            ctx.threads,
            [silhouettes, count, rows(clip), rows(edges), face_ids, w, pairs, image, grad_result]
            + [clip.shape[1], edges.shape[0], height, width, channels, ctx.threads]
            + [int(with_clip), grad_image, rows(grad_clip)],
        )
        return grad_image, grad_clip if with_clip else None, None, None, None, None


def antialias(image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor) -> Tensor:
    """`image` with its silhouettes blended, `[N, H, W, C]`; see `backend.rendering.antialias`."""
    return _Antialias.apply(image, clip, face_ids, w, edges, opposite)
