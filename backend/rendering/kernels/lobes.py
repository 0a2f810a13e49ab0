"""What the shading of materials looks up or evaluates for one fragment: functions for kernels, with their derivatives.

No kernels of its own: they become part of the module that uses them (`material.py`).
"""

import math

import warp as wp

from backend.rendering import constants
from backend.rendering.reflectance import CHANNELS, COSINE_NODES, ROUGHNESS_NODES

Factors = wp.types.vector(length=CHANNELS, dtype=float)
Features = wp.types.vector(length=10, dtype=float)

SMALLEST_ROUGHNESS = wp.constant(constants.SMALLEST_ROUGHNESS)
SMALLEST_COSINE = wp.constant(constants.SMALLEST_COSINE)
SMALLEST_LENGTH = wp.constant(constants.SMALLEST_LENGTH)
ROWS = wp.constant(ROUGHNESS_NODES)
COLUMNS = wp.constant(COSINE_NODES)
WIDTH = wp.constant(CHANNELS)
ROW_SCALE = wp.constant((ROUGHNESS_NODES - 1) / (1.0 - constants.SMALLEST_ROUGHNESS))
COLUMN_SCALE = wp.constant((COSINE_NODES - 1) / (1.0 - constants.SMALLEST_COSINE))
PI = wp.constant(math.pi)


@wp.func
def node(table: wp.array(dtype=float), row: int, column: int):
    first = (row * COLUMNS + column) * WIDTH
    values = Factors()
    for c in range(WIDTH):
        values[c] = table[first + c]
    return values


@wp.func
def look_up_factors(table: wp.array(dtype=float), roughness: float, mu: float):
    """The table between its nodes, and its slopes in roughness and in the cosine."""
    x = (roughness - SMALLEST_ROUGHNESS) * ROW_SCALE
    y = (mu - SMALLEST_COSINE) * COLUMN_SCALE
    i = wp.clamp(int(x), 0, ROWS - 2)
    j = wp.clamp(int(y), 0, COLUMNS - 2)
    s = x - float(i)
    t = y - float(j)
    ll = node(table, i, j)
    lh = node(table, i, j + 1)
    hl = node(table, i + 1, j)
    hh = node(table, i + 1, j + 1)
    lower = ll * (1.0 - t) + lh * t
    upper = hl * (1.0 - t) + hh * t
    along = ((lh - ll) * (1.0 - s) + (hh - hl) * s) * COLUMN_SCALE
    return lower * (1.0 - s) + upper * s, (upper - lower) * ROW_SCALE, along


@wp.func
def features(a0: float, a1: float, a2: float, b0: float, b1: float, b2: float, n: wp.vec3, v: wp.vec3):
    """The integrals of 1, x, y, z, xx, yy, zz, xy, yz, xz over a lobe given by its factors."""
    return Features(
        a0,
        a1 * n[0] + a2 * v[0],
        a1 * n[1] + a2 * v[1],
        a1 * n[2] + a2 * v[2],
        b0 * n[0] * n[0] + b1 * n[0] * v[0] + b2 * v[0] * v[0],
        b0 * n[1] * n[1] + b1 * n[1] * v[1] + b2 * v[1] * v[1],
        b0 * n[2] * n[2] + b1 * n[2] * v[2] + b2 * v[2] * v[2],
        b0 * n[0] * n[1] + b1 * 0.5 * (n[0] * v[1] + v[0] * n[1]) + b2 * v[0] * v[1],
        b0 * n[1] * n[2] + b1 * 0.5 * (n[1] * v[2] + v[1] * n[2]) + b2 * v[1] * v[2],
        b0 * n[0] * n[2] + b1 * 0.5 * (n[0] * v[2] + v[0] * n[2]) + b2 * v[0] * v[2],
    )


@wp.func
def gather(lobe: Features, polynomial: wp.array(dtype=wp.vec3)):
    """Light that a lobe collects."""
    total = wp.vec3(0.0)
    for k in range(10):
        total += polynomial[k] * lobe[k]
    return total


@wp.func
def slopes(grad: wp.vec3, polynomial: wp.array(dtype=wp.vec3)):
    """The gradient to a lobe's integrals, as a number, a vector and a symmetric matrix."""
    g = Features()
    for k in range(10):
        g[k] = wp.dot(grad, polynomial[k])
    xy = 0.5 * g[7]
    yz = 0.5 * g[8]
    xz = 0.5 * g[9]
    return g[0], wp.vec3(g[1], g[2], g[3]), wp.mat33(g[4], xy, xz, xy, g[5], yz, xz, yz, g[6])


@wp.struct
class Place:
    """Where a direction points in a latitude-longitude map: columns, rows, and how far from the first to the second."""

    left: int
    right: int
    top: int
    bottom: int
    s: float
    t: float
    by_row: float


@wp.func
def find_place(direction: wp.vec3, sizes: wp.vec3i):
    x = direction[0]
    z = direction[2]
    across = x * x + z * z
    horizontal = wp.sqrt(across)
    if across <= SMALLEST_LENGTH * SMALLEST_LENGTH:
        x = 1.0
        z = 0.0
        horizontal = 0.0
    column = (0.5 + wp.atan2(z, x) / (2.0 * PI)) * float(sizes[2]) - 0.5
    raw = (0.5 - wp.atan2(direction[1], horizontal) / PI) * float(sizes[1]) - 0.5
    row = wp.clamp(raw, 0.0, float(sizes[1]) - 1.0)
    floor = wp.floor(column)
    place = Place()
    place.left = (int(floor) + sizes[2]) % sizes[2]
    place.right = (place.left + 1) % sizes[2]
    place.top = int(row)
    place.bottom = wp.min(place.top + 1, sizes[1] - 1)
    place.s = column - floor
    place.t = row - float(place.top)
    place.by_row = wp.where(row == raw, 1.0, 0.0)  # beyond the first and last row's centers nothing changes with it
    return place


@wp.func
def look_up_map(levels: wp.array(dtype=wp.vec3), sizes: wp.vec3i, place: Place, level: float):
    """A map between its texels and levels, and its slopes along columns, rows and levels."""
    first = wp.min(int(level), sizes[0] - 2)
    u = level - float(first)
    step = sizes[1] * sizes[2]
    top = first * step + place.top * sizes[2]
    bottom = first * step + place.bottom * sizes[2]
    tl = levels[top + place.left]
    tr = levels[top + place.right]
    bl = levels[bottom + place.left]
    br = levels[bottom + place.right]
    tl_rise = levels[step + top + place.left] - tl
    tr_rise = levels[step + top + place.right] - tr
    bl_rise = levels[step + bottom + place.left] - bl
    br_rise = levels[step + bottom + place.right] - br
    tl += tl_rise * u
    tr += tr_rise * u
    bl += bl_rise * u
    br += br_rise * u
    upper = tl + (tr - tl) * place.s
    lower = bl + (br - bl) * place.s
    upper_rise = tl_rise + (tr_rise - tl_rise) * place.s
    lower_rise = bl_rise + (br_rise - bl_rise) * place.s
    by_row = lower - upper
    by_column = (tr - tl) * (1.0 - place.t) + (br - bl) * place.t
    return upper + by_row * place.t, by_column, by_row, upper_rise + (lower_rise - upper_rise) * place.t


@wp.func
def direction_slope(direction: wp.vec3, place: Place, sizes: wp.vec3i, by_column: float, by_row: float):
    """The gradient to a direction from those to its place in a map."""
    across = direction[0] * direction[0] + direction[2] * direction[2]
    if across <= SMALLEST_LENGTH * SMALLEST_LENGTH:
        return wp.vec3(0.0)
    turning = by_column * float(sizes[2]) / (2.0 * PI * across)
    horizontal = wp.sqrt(across)
    rising = -place.by_row * by_row * float(sizes[1]) / (PI * (across + direction[1] * direction[1]))
    sinking = -rising * direction[1] / horizontal
    return wp.vec3(
        sinking * direction[0] - direction[2] * turning,
        rising * horizontal,
        sinking * direction[2] + direction[0] * turning,
    )


@wp.func
def spread_to_map(
    grad_levels: wp.array(dtype=wp.vec3), sizes: wp.vec3i, place: Place, level: float, grad: wp.vec3
):
    """The gradient of a lookup to the map's texels."""
    first = wp.min(int(level), sizes[0] - 2)
    u = level - float(first)
    for side in range(2):
        share = wp.where(side == 0, 1.0 - u, u)
        if share > 0.0:
            start = (first + side) * sizes[1] * sizes[2]
            top = start + place.top * sizes[2]
            bottom = start + place.bottom * sizes[2]
            wp.atomic_add(grad_levels, top + place.left, grad * (share * (1.0 - place.t) * (1.0 - place.s)))
            wp.atomic_add(grad_levels, top + place.right, grad * (share * (1.0 - place.t) * place.s))
            wp.atomic_add(grad_levels, bottom + place.left, grad * (share * place.t * (1.0 - place.s)))
            wp.atomic_add(grad_levels, bottom + place.right, grad * (share * place.t * place.s))


@wp.func
def lamp_lobe(n: wp.vec3, v: wp.vec3, mu: float, roughness: float, light: wp.vec3, power: float):
    """GGX reflection of a distant lamp without its Fresnel term, Schlick's share, and the cosine to the lamp."""
    toward = wp.dot(n, light)
    if toward <= 0.0:
        return 0.0, 0.0, 0.0
    sum = light + v
    half = sum / wp.max(wp.length(sum), SMALLEST_LENGTH)
    squared = roughness * roughness * roughness * roughness
    aligned = wp.dot(n, half)
    spread = squared * aligned * aligned + wp.length_sq(wp.cross(n, half))
    mask = toward * wp.sqrt(mu * mu * (1.0 - squared) + squared) + mu * wp.sqrt(
        toward * toward * (1.0 - squared) + squared
    )
    away = 1.0 - wp.clamp(wp.dot(v, half), 0.0, 1.0)
    schlick = away * away * away * away * away
    return power * squared * toward / (2.0 * spread * spread * mask), schlick, toward


@wp.func
def lamp_slopes(
    n: wp.vec3,
    v: wp.vec3,
    mu: float,
    roughness: float,
    light: wp.vec3,
    lobe: float,
    grad_lobe: float,
    grad_schlick: float,
    grad_toward: float,
):
    """The gradient to n, v (beyond mu), mu and roughness from those to what `lamp_lobe` returns, for a lit fragment."""
    toward = wp.dot(n, light)
    sum = light + v
    length = wp.max(wp.length(sum), SMALLEST_LENGTH)
    half = sum / length
    squared = roughness * roughness * roughness * roughness
    aligned = wp.dot(n, half)
    across = wp.cross(n, half)
    spread = squared * aligned * aligned + wp.length_sq(across)
    view_mask = wp.sqrt(mu * mu * (1.0 - squared) + squared)
    light_mask = wp.sqrt(toward * toward * (1.0 - squared) + squared)
    mask = toward * view_mask + mu * light_mask
    g = grad_lobe * lobe
    grad_mask = -g / mask
    grad_spread = -2.0 * g / spread
    grad_along = grad_toward + g / toward + grad_mask * (view_mask + mu * toward * (1.0 - squared) / light_mask)
    grad_mu = grad_mask * (light_mask + toward * mu * (1.0 - squared) / view_mask)
    grad_squared = (
        g / squared
        + grad_spread * aligned * aligned
        + grad_mask * 0.5 * (toward * (1.0 - mu * mu) / view_mask + mu * (1.0 - toward * toward) / light_mask)
    )
    grad_aligned = grad_spread * 2.0 * squared * aligned
    grad_n = light * grad_along + half * grad_aligned + wp.cross(half, across) * (2.0 * grad_spread)
    grad_half = n * grad_aligned + wp.cross(across, n) * (2.0 * grad_spread)
    cosine = wp.dot(v, half)
    grad_v = wp.vec3(0.0)
    if cosine > 0.0 and cosine < 1.0:
        away = 1.0 - cosine
        steep = -5.0 * grad_schlick * away * away * away * away
        grad_v += half * steep
        grad_half += v * steep
    grad_v += (grad_half - half * wp.dot(half, grad_half)) / length
    return grad_n, grad_v, grad_mu, grad_squared * 4.0 * roughness * roughness * roughness
