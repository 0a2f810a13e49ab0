"""Homogeneous edge functions in double precision: the arithmetic that all kernels share which ask what a pixel sees.

Olano and Greer 1997: with X_i = x_i - fx w_i and Y_i = y_i - fy w_i at a pixel center (fx, fy) in NDC,
a_0 = X_1 Y_2 - Y_1 X_2 and cyclic are linear in (fx, fy); b_i = a_i / sum a are the perspective-correct barycentrics.
sum a_i w_i is the same at every pixel (the determinant of the three vertices), so z/w = sum a_i z_i / determinant and
1/w = sum a_i / determinant are linear as well. In front of the camera all a_i have the determinant's sign, behind it
the opposite one, so nothing needs clipping.

Products of two float32 are exact in float64, so each coefficient is rounded only a few times. Exchanging the vertices
of an edge negates its coefficients exactly (multiply-adds are not fused), and x - y is zero only if x = y: of the two
faces at a shared edge at least one covers a pixel center on it.
"""

import warp as wp


@wp.struct
class FaceSetup:
    """What is linear over the image, as (per column, per row, constant), with pixel centers at halves."""

    first: wp.vec3d  # the edge functions a_0, a_1, a_2, all >= 0 inside of the face and in front of the camera
    second: wp.vec3d
    third: wp.vec3d
    determinant: wp.float64  # positive; 0 if the face has no area on the screen


@wp.func
def edge_function(p: wp.vec4, q: wp.vec4, height: int, width: int):
    """The edge function through p and q, as (per column, per row, constant)."""
    px = wp.float64(p[0])
    py = wp.float64(p[1])
    pw = wp.float64(p[3])
    qx = wp.float64(q[0])
    qy = wp.float64(q[1])
    qw = wp.float64(q[3])
    a = py * qw - pw * qy
    b = pw * qx - px * qw
    c = px * qy - py * qx
    # At a column and a row, fx = 2 column / width - 1 and fy = 1 - 2 row / height.
    return wp.vec3d(
        a * (wp.float64(2.0) / wp.float64(width)), -(b * (wp.float64(2.0) / wp.float64(height))), (c - a) + b
    )


@wp.func
def set_up_face(p: wp.vec4, q: wp.vec4, r: wp.vec4, height: int, width: int):
    setup = FaceSetup()
    setup.first = edge_function(q, r, height, width)
    setup.second = edge_function(r, p, height, width)
    setup.third = edge_function(p, q, height, width)
    setup.determinant = (
        setup.first[2] * wp.float64(p[3]) + setup.second[2] * wp.float64(q[3]) + setup.third[2] * wp.float64(r[3])
    )
    if setup.determinant < wp.float64(0.0):
        setup.determinant = -setup.determinant
        setup.first = -setup.first
        setup.second = -setup.second
        setup.third = -setup.third
    return setup


@wp.func
def depth_function(setup: FaceSetup, p: wp.vec4, q: wp.vec4, r: wp.vec4):
    """z/w, as (per column, per row, constant)."""
    sums = setup.first * wp.float64(p[2]) + setup.second * wp.float64(q[2]) + setup.third * wp.float64(r[2])
    return sums * (wp.float64(1.0) / setup.determinant)


@wp.func
def at_row(function: wp.vec3d, y: wp.float64):
    """What a linear function adds up to in a row, before its part per column."""
    return function[1] * y + function[2]


@wp.func
def at_point(function: wp.vec3d, x: wp.float64, y: wp.float64):
    """A linear function at a point; every kernel adds up in this order, so that all agree to the last bit."""
    return function[0] * x + at_row(function, y)


@wp.func
def none_negative(a: wp.float64, b: wp.float64, c: wp.float64):
    """Whether all three are >= 0, by their sign bits: branches on each would be mispredicted all the time.

    -0 counts as negative; a sum of two numbers that are not both -0 is never -0.
    """
    return (wp.cast(a, wp.int64) | wp.cast(b, wp.int64) | wp.cast(c, wp.int64)) >= wp.int64(0)


@wp.struct
class LocalFace:
    """A face as seen from one pixel center: (X_i, Y_i) of its vertices and the edge functions at the center."""

    p: wp.vec2d
    q: wp.vec2d
    r: wp.vec2d
    a: wp.vec3d


@wp.func
def from_center(p: wp.vec4, fx: wp.float64, fy: wp.float64):
    w = wp.float64(p[3])
    return wp.vec2d(wp.float64(p[0]) - fx * w, wp.float64(p[1]) - fy * w)


@wp.func
def face_from_center(p: wp.vec4, q: wp.vec4, r: wp.vec4, fx: wp.float64, fy: wp.float64):
    """The edge functions at one pixel center alone: half the work of `set_up_face`, and less rounding."""
    local = LocalFace()
    local.p = from_center(p, fx, fy)
    local.q = from_center(q, fx, fy)
    local.r = from_center(r, fx, fy)
    local.a = wp.vec3d(
        local.q[0] * local.r[1] - local.q[1] * local.r[0],
        local.r[0] * local.p[1] - local.r[1] * local.p[0],
        local.p[0] * local.q[1] - local.p[1] * local.q[0],
    )
    return local


@wp.func
def center_x(column: int, width: int):
    """A pixel center's x in NDC."""
    return (wp.float64(column) + wp.float64(0.5)) * (wp.float64(2.0) / wp.float64(width)) - wp.float64(1.0)


@wp.func
def center_y(row: int, height: int):
    """A pixel center's y in NDC, upward."""
    return wp.float64(1.0) - (wp.float64(row) + wp.float64(0.5)) * (wp.float64(2.0) / wp.float64(height))
