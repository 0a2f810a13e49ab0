"""Which face each pixel sees, with perspective-correct barycentrics, and the way back to the clip-space vertices.

A face is tested at the pixel centers of its span (its bounding box) by the homogeneous edge functions of `edges`.
Visibility is one 64-bit minimum per pixel over (depth, face), which gives the same faces in any order of execution.
Faces that cross the near plane are not clipped: their span is that of the part in front of it, and what lies behind it
is left out pixel by pixel.

On a GPU one thread draws a small span; of a larger one it puts blocks of 64 x 64 pixels into a queue, which a second
launch empties with 32 threads a block. How many blocks there are is read on the GPU, so nothing waits; a thread that
finds the queue full draws its block itself.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.edges import (
    FaceSetup,
    at_point,
    at_row,
    center_x,
    center_y,
    depth_function,
    face_from_center,
    none_negative,
    set_up_face,
)
from backend.rendering.kernels.runtime import kernel_module, lanes_per_row, launch, rows
from backend.rendering.kernels.spans import LARGEST, beyond, block_of, count_blocks, span_in_front, span_of_all, span_of_vertex
from backend.rendering.kernels.visibility_backward import rasterize_backward

module = kernel_module("visibility")

SMALLEST_W = wp.constant(constants.SMALLEST_W)
LARGEST_INVERSE_W = wp.constant(wp.float64(1.0 / constants.SMALLEST_W))
NO_FACE = wp.constant(wp.int64(0x7FFFFFFFFFFFFFFF))
LANES = wp.constant(32)

INLINE_PIXELS = 256
"""Spans of up to so many pixels are drawn by one GPU thread."""
FACES_PER_THREAD = 1024
"""On the CPU: what a thread asks for once is then shared by many faces."""
PIXELS_ALWAYS_WRITTEN = 512
"""On the CPU, in spans of up to so many pixels."""
DRAINING_THREADS = 1 << 17


@wp.func
def sortable(depth: float):
    """The bits of a float as an integer of the same order."""
    bits = wp.cast(depth, wp.int32)
    if bits < 0:
        bits = bits ^ 0x7FFFFFFF
    return wp.int64(bits)


@wp.kernel(module=module)
def project_to_pixels(clip: wp.array(dtype=wp.vec4), height: int, width: int, points: wp.array(dtype=wp.vec3)):
    """(column, row, 1/w) in pixels, integers at pixels' upper left corners; 1/w is 0 for unseen vertices."""
    vertex = wp.tid()
    p = clip[vertex]
    point = wp.vec3(0.0)
    if p[3] >= SMALLEST_W and p[3] < LARGEST and p[2] >= -p[3] and p[2] < LARGEST:
        scale = 1.0 / p[3]
        column = (p[0] * scale + 1.0) * 0.5 * float(width)
        row = (1.0 - p[1] * scale) * 0.5 * float(height)
        if wp.abs(column) < LARGEST and wp.abs(row) < LARGEST:
            point = wp.vec3(column, row, scale)
    points[vertex] = point


@wp.kernel(module=module)
def find_spans(clip: wp.array(dtype=wp.vec4), height: int, width: int, spans: wp.array(dtype=wp.vec4s)):
    vertex = wp.tid()
    span = span_of_vertex(clip[vertex], height, width)
    spans[vertex] = wp.vec4s(wp.int16(span[0]), wp.int16(span[1]), wp.int16(span[2]), wp.int16(span[3]))


@wp.func
def draw(
    setup: FaceSetup,
    depth: wp.vec3d,
    crosses: bool,
    face_id: int,
    image: int,
    width: int,
    span: wp.vec4i,
    lane: int,
    lanes: int,
    always: bool,
    nearest: wp.array(dtype=wp.int64),
):
    """Enter a face where it is the nearest so far; of `lanes` threads, each takes every `lanes`-th column.

    `always`: pixels outside are written as well, as they are. In small spans a CPU spends more time on
    wrong guesses whether a center lies inside than on that.
    """
    row = span[0]
    y = wp.float64(row) + wp.float64(0.5)
    start = wp.float64(span[1] + lane) + wp.float64(0.5)
    while row < -span[2]:
        first = at_row(setup.first, y)
        second = at_row(setup.second, y)
        third = at_row(setup.third, y)
        nearness = at_row(depth, y)
        line = image + row * width
        column = span[1] + lane
        x = start
        while column < -span[3]:
            a = setup.first[0] * x + first
            b = setup.second[0] * x + second
            c = setup.third[0] * x + third
            z = float(depth[0] * x + nearness)
            shown = none_negative(a, b, c)
            if crosses:
                in_front = (a + b + c) <= setup.determinant * LARGEST_INVERSE_W
                shown = shown and in_front and z >= -1.0 and z < LARGEST
            key = wp.where(shown, (sortable(z) << wp.int64(32)) | wp.int64(face_id), NO_FACE)
            if shown or always:
                wp.atomic_min(nearest, line + column, key)
            column += lanes
            x += wp.float64(lanes)
        row += 1
        y += wp.float64(1.0)


@wp.kernel(module=module)
def find_nearest_faces(
    spans: wp.array(dtype=wp.vec4s),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    ranges: wp.array(dtype=wp.vec2i),
    vertex_count: int,
    threads_per_view: int,
    faces_per_thread: int,
    height: int,
    width: int,
    pixels_always_written: int,
    inline_pixels: int,
    nearest: wp.array(dtype=wp.int64),
    queue: wp.array(dtype=wp.vec3i),
    queue_length: int,
    queued: wp.array(dtype=wp.int32),
):
    thread = wp.tid()
    view = thread // threads_per_view
    drawn = ranges[view]
    vertices = view * vertex_count
    index = (thread - view * threads_per_view) * faces_per_thread
    end = wp.min(index + faces_per_thread, drawn[1])
    while index < end:
        face_id = drawn[0] + index
        face = faces[face_id]
        index += 1
        span = wp.vec4i(0)
        if wp.min(face) >= 0 and wp.max(face) < vertex_count:
            span = span_of_all(spans[vertices + face[0]], spans[vertices + face[1]], spans[vertices + face[2]])
        if span[0] + span[2] < 0 and span[1] + span[3] < 0:
            p = clip[vertices + face[0]]
            q = clip[vertices + face[1]]
            r = clip[vertices + face[2]]
            crosses = span[0] < 0
            if crosses:
                span = span_in_front(p, q, r, height, width)
            setup = set_up_face(p, q, r, height, width)
            if setup.determinant > wp.float64(0.0):
                depth = depth_function(setup, p, q, r)
                image = view * height * width
                # One place that draws, so that it is compiled into the loop.
                blocks = int(1)
                pixels = (span[0] + span[2]) * (span[1] + span[3])
                always = pixels <= pixels_always_written
                large = pixels > inline_pixels
                if large:
                    blocks = count_blocks(span)
                for block in range(blocks):
                    part = span
                    mine = True
                    if large:
                        part = block_of(span, block)
                        mine = not (beyond(setup.first, part) or beyond(setup.second, part) or beyond(setup.third, part))
                        if mine:
                            slot = wp.atomic_add(queued, 0, 1)
                            if slot < queue_length:
                                queue[slot] = wp.vec3i(view, face_id, block)
                                mine = False
                    if mine:
                        draw(setup, depth, crosses, face_id, image, width, part, 0, 1, always, nearest)


@wp.kernel(module=module)
def draw_queued_blocks(
    queue: wp.array(dtype=wp.vec3i),
    queue_length: int,
    queued: wp.array(dtype=wp.int32),
    teams: int,
    spans: wp.array(dtype=wp.vec4s),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    nearest: wp.array(dtype=wp.int64),
):
    thread = wp.tid()
    entry = thread // LANES
    lane = thread % LANES
    end = wp.min(queued[0], queue_length)
    while entry < end:
        item = queue[entry]
        face = faces[item[1]]
        vertices = item[0] * vertex_count
        p = clip[vertices + face[0]]
        q = clip[vertices + face[1]]
        r = clip[vertices + face[2]]
        span = span_of_all(spans[vertices + face[0]], spans[vertices + face[1]], spans[vertices + face[2]])
        crosses = span[0] < 0
        if crosses:
            span = span_in_front(p, q, r, height, width)
        setup = set_up_face(p, q, r, height, width)
        depth = depth_function(setup, p, q, r)
        part = block_of(span, item[2])
        draw(setup, depth, crosses, item[1], item[0] * height * width, width, part, lane, LANES, False, nearest)
        entry += teams


@wp.kernel(module=module)
def resolve_fragments(
    nearest: wp.array(dtype=wp.int64),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    height: int,
    width: int,
    lanes: int,
    face_ids: wp.array(dtype=wp.int32),
    barycentrics: wp.array(dtype=wp.vec3),
    depth: wp.array(dtype=float),
    w: wp.array(dtype=float),
):
    thread = wp.tid()
    line = thread // lanes
    column = thread - line * lanes
    view = line // height
    row = line - view * height
    vertices = view * vertex_count
    fy = center_y(row, height)
    while column < width:
        pixel = line * width + column
        key = nearest[pixel]
        if key == NO_FACE:
            face_ids[pixel] = -1
            barycentrics[pixel] = wp.vec3(0.0)
            depth[pixel] = 1.0
            w[pixel] = wp.inf
        else:
            face_id = wp.int32(key & wp.int64(0xFFFFFFFF))
            face = faces[face_id]
            p = clip[vertices + face[0]]
            q = clip[vertices + face[1]]
            r = clip[vertices + face[2]]
            local = face_from_center(p, q, r, center_x(column, width), fy)
            total = local.a[0] + local.a[1] + local.a[2]
            b = local.a * (wp.float64(1.0) / total)
            if total == wp.float64(0.0) or not none_negative(b[0], b[1], b[2]):
                b = weights_on_the_rim(p, q, r, row, column, height, width)
            view_w = b[0] * wp.float64(p[3]) + b[1] * wp.float64(q[3]) + b[2] * wp.float64(r[3])
            z = b[0] * wp.float64(p[2]) + b[1] * wp.float64(q[2]) + b[2] * wp.float64(r[2])
            face_ids[pixel] = face_id
            barycentrics[pixel] = wp.vec3(float(b[0]), float(b[1]), float(b[2]))
            depth[pixel] = float(z / view_w)
            w[pixel] = float(view_w)
        column += lanes


@wp.func
def weights_on_the_rim(p: wp.vec4, q: wp.vec4, r: wp.vec4, row: int, column: int, height: int, width: int):
    """Barycentrics with the rounding of the visibility test, which found none of them negative."""
    half = wp.float64(0.5)
    setup = set_up_face(p, q, r, height, width)
    x = wp.float64(column) + half
    y = wp.float64(row) + half
    a = wp.vec3d(at_point(setup.first, x, y), at_point(setup.second, x, y), at_point(setup.third, x, y))
    total = a[0] + a[1] + a[2]
    if total == wp.float64(0.0):
        return wp.vec3d(wp.float64(1.0), wp.float64(0.0), wp.float64(0.0))
    return a / total


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, clip: Tensor, faces: Tensor, height: int, width: int, ranges: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        clip, faces = clip.contiguous(), faces.contiguous()
        views, vertex_count, device = clip.shape[0], clip.shape[1], clip.device
        nearest = _nearest_faces(clip, faces, height, width, ranges)
        face_ids = torch.empty((views, height, width), dtype=torch.int32, device=device)
        barycentrics = torch.empty((views, height, width, 3), device=device)
        depth, w = torch.empty((2, views, height, width), device=device)
        lanes = lanes_per_row(device, width)
        launch(
            resolve_fragments,
            views * height * lanes,
            [nearest, rows(clip), rows(faces), vertex_count, height, width, lanes]
            + [face_ids, rows(barycentrics), depth, w],
        )
        ctx.save_for_backward(clip, faces, face_ids)
        ctx.mark_non_differentiable(face_ids)
        ctx.set_materialize_grads(False)
        return face_ids, barycentrics, depth, w

    @staticmethod
    def backward(ctx, _ids: None, grad_barycentrics: Tensor | None, grad_depth: Tensor | None, grad_w: Tensor | None):
        clip, faces, face_ids = ctx.saved_tensors
        _, height, width = face_ids.shape
        grad_clip = torch.zeros_like(clip)
        lanes = lanes_per_row(clip.device, width)
        launch(
            rasterize_backward,
            face_ids.shape[0] * height * lanes,
            [face_ids, rows(clip), rows(faces), clip.shape[1], height, width, lanes]
            + [rows(_or_nothing(grad_barycentrics, clip, 3)), int(grad_barycentrics is not None)]
            + [_or_nothing(grad_depth, clip, 1), int(grad_depth is not None)]
            + [_or_nothing(grad_w, clip, 1), int(grad_w is not None)]
            + [rows(grad_clip)],
        )
        return grad_clip, None, None, None, None


def _or_nothing(grad: Tensor | None, like: Tensor, length: int) -> Tensor:
    return like.new_empty((0, length)) if grad is None else grad.contiguous()


def _nearest_faces(clip: Tensor, faces: Tensor, height: int, width: int, ranges: list[tuple[int, int]]) -> Tensor:
    """The least (depth, face) of each pixel, int64 `[N, H, W]`; `NO_FACE` on the background."""
    views, vertex_count, device = clip.shape[0], clip.shape[1], clip.device
    nearest = torch.full((views, height, width), int(NO_FACE), dtype=torch.int64, device=device)
    spans = torch.empty((views, vertex_count, 4), dtype=torch.int16, device=device)
    launch(find_spans, views * vertex_count, [rows(clip), height, width, rows(spans)])
    on_cpu = device.type == "cpu"
    faces_per_thread = FACES_PER_THREAD if on_cpu else 1
    threads_per_view = -(-max((count for _, count in ranges), default=0) // faces_per_thread)
    inline_pixels, queue_length = _queue_sizes(on_cpu, views * height * width)
    queue = torch.empty((queue_length, 3), dtype=torch.int32, device=device)
    queued = torch.zeros(1, dtype=torch.int32, device=device)
    launch(
        find_nearest_faces,
        views * threads_per_view,
        [rows(spans), rows(clip), rows(faces), rows(torch.tensor(ranges, dtype=torch.int32, device=device))]
        + [vertex_count, threads_per_view, faces_per_thread, height, width]
        + [PIXELS_ALWAYS_WRITTEN if on_cpu else 0]
        + [inline_pixels, nearest, rows(queue), queue_length, queued],
    )
    if queue_length > 0:
        launch(
            draw_queued_blocks,
            DRAINING_THREADS,
            [rows(queue), queue_length, queued, DRAINING_THREADS // int(LANES), rows(spans), rows(clip), rows(faces)]
            + [vertex_count, height, width, nearest],
        )
    return nearest


def _queue_sizes(on_cpu: bool, pixels: int) -> tuple[int, int]:
    """How large a span one thread draws, and how many blocks of larger ones can wait.

    One CPU core gains nothing from a queue. On a GPU there is room for what covers the images many times over.
    """
    return (2**31 - 1, 0) if on_cpu else (INLINE_PIXELS, 1024 + pixels // 32)


def rasterize(
    clip: Tensor, faces: Tensor, height: int, width: int, ranges: list[tuple[int, int]] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Face ids, barycentrics, depth and w of each pixel; see `backend.rendering.rasterize`."""
    ranges = [(0, faces.shape[0])] * clip.shape[0] if ranges is None else ranges
    return _Rasterize.apply(clip, faces, height, width, ranges)
