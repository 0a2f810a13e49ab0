"""Things to live in or to travel with: table, chair, bed, house, rocket, car, boat, airplane."""

from __future__ import annotations

from itertools import product

import numpy as np

from backend.toybox.kind import Kind, Part, Vary, detail, main, second
from backend.toybox.shapes import Solid, box, cylinder, ellipsoid, extrude, lathe, loft

CORNERS = tuple(product((-1, 1), (-1, 1)))


def _table(vary: Vary) -> list[Part]:
    width, depth, height = vary(1.7), vary(1.2), vary(0.85)
    leg = box(0.2, height + 0.1, 0.2).moved(y=-height / 2)
    x, z = width / 2 - 0.15, depth / 2 - 0.15
    return [main(box(width, 0.2, depth)), *(second(leg.moved(sx * x, 0, sz * z)) for sx, sz in CORNERS)]


def _chair(vary: Vary) -> list[Part]:
    width, height, back = vary(0.9), vary(0.72), vary(0.95)
    leg = box(0.19, height + 0.08, 0.19).moved(y=-height / 2)
    at = width / 2 - 0.1
    return [
        main(box(width, 0.2, width)),
        main(box(width, back, 0.19).moved(0, back / 2, 0.095 - width / 2)),
        *(second(leg.moved(sx * at, 0, sz * at)) for sx, sz in CORNERS),
    ]


def _bed(vary: Vary) -> list[Part]:
    width, length, height = vary(1.1), vary(1.6), vary(0.36)
    post = box(0.18, 0.5, 0.18).moved(0, -0.2, length / 2 - 0.05)
    return [
        main(box(width, height, length).moved(y=0.08)),
        second(box(width + 0.1, 0.18, length + 0.08).moved(y=-0.14)),
        second(box(width + 0.14, vary(1.15), 0.18).moved(0, 0.12, -length / 2)),
        second(box(width + 0.14, 0.52, 0.16).moved(0, -0.06, length / 2)),
        *(second(post.moved(sx * (width / 2 - 0.04))) for sx in (-1, 1)),
        detail(box(0.72 * width, 0.22, 0.36).moved(0, height / 2 + 0.12, 0.32 - length / 2), "contrast"),
    ]


def _house(vary: Vary) -> list[Part]:
    width, depth, height, rise = vary(1.15), vary(1.15), vary(0.8), vary(0.62)
    eaves = width / 2 + 0.16
    roof = extrude([(-eaves, 0), (eaves, 0), (0, rise)], depth + 0.2)
    return [
        main(box(width, height, depth).moved(y=height / 2)),
        second(roof.moved(y=height - 0.06)),
        second(box(0.22, 0.6, 0.22).moved(0.32 * width, height + 0.34, -0.22 * depth)),
        second(box(0.36, 0.58, 0.16).moved(-0.2 * width, 0.29, depth / 2)),
        second(box(0.28, 0.26, 0.14).moved(0.26 * width, 0.56 * height, depth / 2)),
    ]


def _rocket(vary: Vary) -> list[Part]:
    radius, height = vary(0.36), vary(1.25)
    fin = extrude([(0, 0.55), (0, 0.0), (0.42, -0.36), (0.42, 0.05)], 0.15).moved(x=0.75 * radius)
    nose = lathe([(0, 0), (radius + 0.03, 0), (0.75 * radius, 0.28), (0.36 * radius, 0.52), (0, vary(0.66))])
    return [
        main(lathe([(0, -0.1), (0.7 * radius, -0.1), (radius, 0.22), (radius, height), (0, height)])),
        second(nose.moved(y=height - 0.04)),
        *(second(fin.turned(y=45 + 90 * k)) for k in range(4)),
    ]


def _car(vary: Vary) -> list[Part]:
    length, width, wheel = vary(1.9, 0.06), vary(0.92), vary(0.25)
    half, cabin, floor = length / 2, vary(0.42), 0.16
    side = [(-half, floor), (half, floor), (half, 0.46), (half - 0.08, 0.54), (0.14 * length, 0.6), (-half, 0.66)]
    body = extrude(side, width).turned(y=-90)
    roof = [(0.02 * length, 0.6 + cabin), (-half + 0.2, 0.6 + cabin)]
    top = extrude([(-half + 0.06, 0.5), (0.16 * length, 0.5), *roof], 0.84 * width).turned(y=-90)
    slope = np.degrees(np.arctan2(0.14 * length, cabin + 0.1))
    glass = box(0.7 * width, 0.8 * cabin, 0.1).turned(x=-slope).moved(0, 0.58 + cabin / 2, 0.085 * length)
    tire = cylinder(wheel, 0.24, 16).moved(y=-0.12).turned(z=90).moved(y=floor)
    light = ellipsoid(0.13, 0.12, 0.1, segments=10, rings=6).moved(0, 0.38, half)
    return [
        main(body),
        main(top),
        detail(glass, "contrast"),
        *(second(tire.moved(sx * (width / 2 - 0.05), 0, sz * 0.29 * length)) for sx, sz in CORNERS),
        *(second(light.moved(sx * 0.33 * width)) for sx in (-1, 1)),
    ]


def _boat(vary: Vary) -> list[Part]:
    length, width, depth = vary(2.0, 0.06), vary(0.8), vary(0.5)
    along = np.array([-0.5, -0.45, -0.1, 0.15, 0.32, 0.44, 0.5]) * length
    beam = np.array([0.78, 0.85, 1.0, 0.92, 0.66, 0.32, 0.06]) * width / 2
    keel = np.array([0.0, 0.0, 0.0, 0.0, 0.08, 0.24, 0.34])
    deck = np.array([0.0, 0.0, 0.0, 0.02, 0.06, 0.13, 0.18]) + depth
    board = 0.8 * deck + 0.2 * keel
    x = np.stack([-beam, -0.98 * beam, -0.6 * beam, 0.6 * beam, 0.98 * beam, beam], -1)
    y = np.stack([deck, board, keel, keel, board, deck], -1)
    rings = np.stack([x, y, np.broadcast_to(along[:, None], x.shape)], -1)
    cabin = box(0.66 * width, vary(0.44), 0.36 * length).moved(0, depth + 0.16, -0.2 * length)
    funnel = cylinder(0.14, vary(0.5), 12).moved(0, depth + 0.3, -0.28 * length)
    return [main(loft(rings)), second(cabin), second(funnel)]


def _airplane(vary: Vary) -> list[Part]:
    length, radius, span = vary(2.0, 0.05), vary(0.22), vary(1.0)
    glass = ellipsoid(0.62 * radius, 0.13, 0.2, segments=10, rings=8)
    tail = [(0, -0.5), (0.06 / radius, -0.5), (0.7, -0.25)]
    profile = [*tail, (1, 0), (1, 0.3), (0.75, 0.42), (0.4, 0.48), (0, 0.5)]
    body = lathe([(radius * r, length * y) for r, y in profile])
    return [
        main(body.turned(x=90)),
        *(second(_wing(span, 0.46, 0.26, sx).moved(0, -0.05, 0.14 * length)) for sx in (-1, 1)),
        *(second(_wing(0.42, 0.3, 0.2, sx).moved(0, 0.03, -0.4 * length)) for sx in (-1, 1)),
        second(_wing(vary(0.52), 0.36, 0.22, 1).turned(z=90).moved(0, 0.0, -0.39 * length)),
        detail(glass.moved(0, 0.86 * radius, 0.26 * length), "contrast"),
    ]


def _wing(span: float, root: float, tip: float, side: int) -> Solid:
    """A flat wing from the origin to x = side * span, swept back (toward -z)."""
    outline = [(0, -root / 2), (side * span, -0.3 - tip / 2), (side * span, tip / 2 - 0.3), (0, root / 2)]
    return extrude(outline, 0.13).turned(x=90)


KINDS = (
    Kind("table", ("top", "tabletop"), ("leg",), _table),
    Kind("chair", ("seat", "backrest"), ("leg",), _chair, has_front=True),
    Kind("bed", ("blanket", "mattress"), ("frame", "headboard"), _bed, has_front=True),
    Kind("house", ("wall",), ("roof", "door"), _house, has_front=True),
    Kind("rocket", ("body", "hull"), ("fin", "nose"), _rocket),
    Kind("car", ("body", "hood"), ("wheel", "headlight"), _car, has_front=True),
    Kind("boat", ("hull",), ("cabin", "funnel"), _boat, has_front=True),
    Kind("airplane", ("body", "fuselage"), ("wing", "tail"), _airplane, True, synonyms=("plane", "aeroplane")),
)
