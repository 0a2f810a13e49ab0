"""Silhouette edges and the pixel pairs they cross: functions (no kernels) that the passes of antialiasing share."""

import warp as wp

from backend.rendering import constants

SMALLEST_W = wp.constant(constants.SMALLEST_W)
SMALLEST_SINE = wp.constant(1.0e-3)


@wp.func
def xyw(p: wp.vec4):
    return wp.vec3(p[0], p[1], p[3])


@wp.func
def plane_of_edge(p: wp.vec4, q: wp.vec4):
    """Normal of the plane through the eye and the edge p q, in (x, y, w); differences first, which cancels less."""
    return wp.cross(xyw(p), xyw(q) - xyw(p))


@wp.func
def is_needle(p: wp.vec4, q: wp.vec4, point: wp.vec4):
    """Whether the three points lie on one line in space (all four coordinates), not only on one line of the screen."""
    along = q - p
    across = point - p
    squares = wp.length_sq(along) * wp.length_sq(across)
    dot = wp.dot(along, across)
    return squares - dot * dot <= SMALLEST_SINE * SMALLEST_SINE * squares


@wp.func
def silhouette_side(p: wp.vec4, q: wp.vec4, first: wp.vec4, second: wp.vec4, has_second: bool):
    """0 if the edge p q is no silhouette; else which side of its screen line the faces lie on, as a sign.

    In (x, y, w) all of this holds for vertices behind the camera too. A face seen exactly edge-on keeps both of its
    long edges as silhouettes; a face without area is none at all and hides nothing.
    """
    normal = plane_of_edge(p, q)
    side = wp.dot(normal, xyw(first) - xyw(p))
    if has_second:
        other_side = wp.dot(normal, xyw(second) - xyw(p))
        if (side > 0.0 and other_side < 0.0) or (side < 0.0 and other_side > 0.0):
            return 0.0
        if (side == 0.0 and is_needle(p, q, first)) or (other_side == 0.0 and is_needle(p, q, second)):
            return 0.0
        if side == 0.0 or not wp.isfinite(side):
            side = other_side
    if not wp.isfinite(side):
        return 0.0
    return wp.sign(side) * wp.where(side == 0.0, 0.0, 1.0)


@wp.struct
class Segment:
    """What the near plane leaves of a silhouette edge, from `start` to `end` in (column, row, 1/w).

    `first_part` and `last_part` tell where they lie between the edge's own vertices p (0) and q (1).
    """

    seen: bool
    view: int
    edge_id: int
    edge: wp.vec2i
    side: float
    p: wp.vec4
    q: wp.vec4
    first_part: float
    last_part: float
    start: wp.vec3
    end: wp.vec3


@wp.func
def in_pixels(p: wp.vec4, height: int, width: int):
    """(column, row, 1/w) of a point in clip space, integers at pixels' upper left corners."""
    scale = 1.0 / p[3]
    return wp.vec3((p[0] * scale + 1.0) * 0.5 * float(width), (1.0 - p[1] * scale) * 0.5 * float(height), scale)


@wp.func
def segment_of(
    item: int,
    clip: wp.array(dtype=wp.vec4),
    edges: wp.array(dtype=wp.vec2i),
    vertex_count: int,
    edge_count: int,
    height: int,
    width: int,
):
    """The segment of a listed silhouette: `view * edge_count + edge`, or its bitwise complement where the side is -1."""
    s = Segment()
    s.side = wp.where(item < 0, -1.0, 1.0)
    index = wp.where(item < 0, -1 - item, item)
    s.view = index // edge_count
    s.edge_id = index - s.view * edge_count
    s.edge = edges[s.edge_id]
    p = clip[s.view * vertex_count + s.edge[0]]
    q = clip[s.view * vertex_count + s.edge[1]]
    s.p = p
    s.q = q
    s.first_part = 0.0
    s.last_part = 1.0
    before_p = p[2] + p[3]
    before_q = q[2] + q[3]
    cut = before_p / (before_p - before_q)
    if before_p < 0.0 and before_q > 0.0:
        s.first_part = cut
        s.p = p + (q - p) * cut
    if before_q < 0.0 and before_p > 0.0:
        s.last_part = cut
        s.q = p + (q - p) * cut
    start = in_pixels(s.p, height, width)
    end = in_pixels(s.q, height, width)
    behind = wp.max(before_p, before_q) < 0.0 or wp.min(s.p[3], s.q[3]) < SMALLEST_W
    s.seen = not behind and wp.isfinite(start) and wp.isfinite(end)
    s.start = start
    s.end = end
    s.p = p
    s.q = q
    return s


@wp.struct
class Walk:
    """A segment's way over the lines of pixel centers in one direction: rows, or columns where `vertical`.

    `start` and `end` are (along the pairs, across the lines, 1/w). `toward` is positive if the face lies toward larger
    pixels. `acts`: steep segments act on horizontal pairs and flat ones on vertical pairs; in the other direction they
    only hide.
    """

    vertical: bool
    acts: bool
    start: wp.vec3
    end: wp.vec3
    toward: float
    length: int
    base: int
    first_line: int
    end_line: int


@wp.func
def swapped(p: wp.vec3, flip: bool):
    """Rows and columns exchanged, so that vertical pairs are handled as horizontal ones."""
    if flip:
        return wp.vec3(p[1], p[0], p[2])
    return p


@wp.func
def walk_of(s: Segment, direction: int, height: int, width: int):
    walk = Walk()
    walk.vertical = direction == 1
    walk.acts = (wp.abs(s.end[1] - s.start[1]) < wp.abs(s.end[0] - s.start[0])) == walk.vertical
    walk.start = swapped(s.start, walk.vertical)
    walk.end = swapped(s.end, walk.vertical)
    normal = plane_of_edge(s.p, s.q)
    walk.toward = wp.where(walk.vertical, -normal[1], normal[0]) * s.side
    lines = wp.where(walk.vertical, width, height)
    walk.length = wp.where(walk.vertical, height, width)
    walk.base = s.view * height * width
    low = wp.clamp(wp.min(walk.start[1], walk.end[1]) - 0.5, 0.0, float(lines))
    high = wp.clamp(wp.max(walk.start[1], walk.end[1]) - 0.5, 0.0, float(lines))
    walk.first_line = int(wp.ceil(low))
    walk.end_line = int(wp.ceil(high))
    return walk


@wp.struct
class Crossing:
    """Where a walk crosses one line of pixel centers: between pixel `first` and `second`, or outside the image.

    `part` is how far along the segment it lies on the screen, `distance` how far it is from the far pixel's center (the
    one that does not lie on the face's side), and `alpha` 1/2 minus its distance from the first pixel's center.
    """

    inside: bool
    first: int
    second: int
    step: int
    slot: int
    place: int
    part: float
    alpha: float
    distance: float
    inverse_w: float


@wp.func
def crossing_at(walk: Walk, line: int, width: int):
    x = Crossing()
    x.part = (float(line) + 0.5 - walk.start[1]) / (walk.end[1] - walk.start[1])
    place = walk.start[0] + x.part * (walk.end[0] - walk.start[0])
    x.inside = place >= 0.5 and place < float(walk.length) - 0.5
    if not x.inside:
        return x
    x.place = int(place - 0.5)
    x.first = walk.base + wp.where(walk.vertical, x.place * width + line, line * width + x.place)
    x.step = wp.where(walk.vertical, width, 1)
    x.second = x.first + x.step
    x.slot = 2 * x.first + wp.where(walk.vertical, 1, 0)
    beyond = place - 0.5 - float(x.place)
    x.alpha = 0.5 - beyond
    x.distance = wp.where(walk.toward > 0.0, beyond, 1.0 - beyond)
    x.inverse_w = walk.start[2] + x.part * (walk.end[2] - walk.start[2])
    return x
