"""Which pixel centers a face can cover at all: its span, a bounding box of rows and columns.

A span is (first row, first column, -(end row), -(end column)): with negative ends, the span of several points is the
elementwise minimum of theirs. It is a little too large, so that rounding loses no pixel; the edge functions decide.
"""

import warp as wp

from backend.rendering import constants
from backend.rendering.kernels.edges import at_point

SMALLEST_W = wp.constant(constants.SMALLEST_W)
LARGEST = wp.constant(constants.LARGEST)
LARGEST_BOUND = wp.constant(wp.float64(1.0e30))
SLACK = wp.constant(1.0e-3)
SLACK_PER_PIXEL = wp.constant(1.0e-6)
BLOCK = wp.constant(64)


@wp.func
def first_center(coordinate: float, size: int):
    """The first pixel center at or beyond a coordinate, from 0 to `size`."""
    if not (coordinate > 0.0):
        return 0
    if coordinate >= float(size):
        return size
    return int(coordinate + 0.5)


@wp.func
def span_between(low_x: float, low_y: float, high_x: float, high_y: float, height: int, width: int):
    slack = SLACK + SLACK_PER_PIXEL * float(height + width)
    return wp.vec4i(
        first_center(low_y - slack, height),
        first_center(low_x - slack, width),
        -first_center(high_y + slack, height),
        -first_center(high_x + slack, width),
    )


@wp.func
def span_of_vertex(p: wp.vec4, height: int, width: int):
    """The span of one vertex; -1 throughout if it lies behind the near plane or is not finite."""
    if p[3] >= SMALLEST_W and p[3] < LARGEST and p[2] >= -p[3]:
        scale = 1.0 / p[3]
        x = (p[0] * scale + 1.0) * 0.5 * float(width)
        y = (1.0 - p[1] * scale) * 0.5 * float(height)
        if wp.abs(x) < LARGEST and wp.abs(y) < LARGEST and p[2] * scale < LARGEST:
            return span_between(x, y, x, y, height, width)
    return wp.vec4i(-1)


@wp.func
def span_of_all(p: wp.vec4s, q: wp.vec4s, r: wp.vec4s):
    """The span of three vertices, kept in 16 bits: what a face asks for first is then small enough for the cache."""
    span = wp.min(wp.min(p, q), r)
    return wp.vec4i(int(span[0]), int(span[1]), int(span[2]), int(span[3]))


@wp.func
def part_in_front(p: wp.vec4, q: wp.vec4):
    """Where the edge p q, cut off at the near plane, lies on the image: lowest x and y, highest x and y in NDC."""
    zero = wp.float64(0.0)
    start = wp.vec4d(wp.float64(p[0]), wp.float64(p[1]), wp.float64(p[2]), wp.float64(p[3]))
    end = wp.vec4d(wp.float64(q[0]), wp.float64(q[1]), wp.float64(q[2]), wp.float64(q[3]))
    start_height = start[2] + start[3]
    end_height = end[2] + end[3]
    along = end - start
    if start_height < zero and end_height < zero:
        return wp.vec4d(LARGEST_BOUND, LARGEST_BOUND, -LARGEST_BOUND, -LARGEST_BOUND)
    if start_height < zero:
        start = start + along * (start_height / (start_height - end_height))
    if end_height < zero:
        end = end - along * (end_height / (end_height - start_height))
    if wp.min(start[3], end[3]) <= wp.float64(SMALLEST_W):  # it may reach any distance from the image's center
        return wp.vec4d(-LARGEST_BOUND, -LARGEST_BOUND, LARGEST_BOUND, LARGEST_BOUND)
    first = wp.vec2d(start[0] / start[3], start[1] / start[3])
    second = wp.vec2d(end[0] / end[3], end[1] / end[3])
    low = wp.max(wp.min(first, second), wp.vec2d(-LARGEST_BOUND))
    high = wp.min(wp.max(first, second), wp.vec2d(LARGEST_BOUND))
    return wp.vec4d(low[0], low[1], high[0], high[1])


@wp.func
def is_finite(p: wp.vec4):
    return wp.abs(p[0]) < LARGEST and wp.abs(p[1]) < LARGEST and wp.abs(p[2]) < LARGEST and wp.abs(p[3]) < LARGEST


@wp.func
def span_in_front(p: wp.vec4, q: wp.vec4, r: wp.vec4, height: int, width: int):
    """The span of a face that crosses the near plane; none if it is not finite."""
    if not (is_finite(p) and is_finite(q) and is_finite(r)):
        return wp.vec4i(0)
    first = part_in_front(p, q)
    second = part_in_front(q, r)
    third = part_in_front(r, p)
    low_x = float(wp.min(wp.min(first[0], second[0]), third[0]))
    low_y = float(wp.min(wp.min(first[1], second[1]), third[1]))
    high_x = float(wp.max(wp.max(first[2], second[2]), third[2]))
    high_y = float(wp.max(wp.max(first[3], second[3]), third[3]))
    across = 0.5 * float(width)
    down = 0.5 * float(height)
    return span_between(
        (low_x + 1.0) * across, (1.0 - high_y) * down, (high_x + 1.0) * across, (1.0 - low_y) * down, height, width
    )


@wp.func
def count_blocks(span: wp.vec4i):
    """How many blocks of at most 64 x 64 pixels a span is divided into."""
    return ((-span[2] - span[0] + BLOCK - 1) // BLOCK) * ((-span[3] - span[1] + BLOCK - 1) // BLOCK)


@wp.func
def block_of(span: wp.vec4i, block: int):
    """One of those blocks, counted row by row."""
    across = (-span[3] - span[1] + BLOCK - 1) // BLOCK
    first_row = span[0] + (block // across) * BLOCK
    first_column = span[1] + (block % across) * BLOCK
    return wp.vec4i(
        first_row, first_column, -wp.min(first_row + BLOCK, -span[2]), -wp.min(first_column + BLOCK, -span[3])
    )


@wp.func
def beyond(edge: wp.vec3d, span: wp.vec4i):
    """Whether an edge function is negative at all pixel centers of a span: at the corner where it is largest."""
    half = wp.float64(0.5)
    x = wp.float64(span[1]) + half
    y = wp.float64(span[0]) + half
    if edge[0] > wp.float64(0.0):
        x = wp.float64(-span[3]) - half
    if edge[1] > wp.float64(0.0):
        y = wp.float64(-span[2]) - half
    return at_point(edge, x, y) < wp.float64(0.0)
