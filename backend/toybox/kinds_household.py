"""Things on a table or beside it: mug, teapot, bottle, vase, candle, lamp, umbrella, hammer."""

from __future__ import annotations

import numpy as np

from backend.toybox.kind import Kind, Part, Vary, detail, main, second
from backend.toybox.shapes import arc, box, cylinder, dome, ellipsoid, frustum, lathe, tube


def _mug(vary: Vary) -> list[Part]:
    radius, height = vary(0.58), vary(1.25)
    body = lathe([(0, 0), (radius, 0), (radius, height), (radius - 0.14, height), (radius - 0.14, 0.18), (0, 0.18)], 22)
    grip = arc(vary(0.38, 0.06) * height / 1.25, 97, -97, 14, squash=1.1)
    return [main(body), second(tube(grip, 0.115, around=10).moved(radius - 0.03, 0.5 * height))]


def _teapot(vary: Vary) -> list[Part]:
    width, height = vary(0.72), vary(0.56)
    bend = [[0.7 * width, -0.22, 0], [width + 0.18, -0.08, 0], [width + 0.34, 0.2, 0]]
    spout = np.array([*bend, [width + vary(0.52), 0.5, 0]])
    grip = arc(0.38, 80, 280, 14, squash=1.1)
    return [
        main(ellipsoid(width, height, width, segments=20, rings=12)),
        main(cylinder(0.45 * width, 0.2).moved(y=-height - 0.03)),
        second(tube(spout, [0.22, 0.17, 0.13, 0.12], around=10)),
        second(tube(grip, 0.11, around=10).moved(0.12 - width)),
        second(dome(0.52 * width, 0.2).moved(y=0.84 * height)),
        second(ellipsoid(0.14, segments=10, rings=8).moved(y=0.84 * height + 0.28)),
    ]


def _bottle(vary: Vary) -> list[Part]:
    radius, height, neck = vary(0.42), vary(1.1), vary(0.16, 0.08)
    shoulder = [(radius, height), (0.86 * radius, height + 0.16), (1.1 * neck, height + 0.38)]
    body = lathe([(0, 0), (radius, 0), *shoulder, (neck, height + 0.75), (0, height + 0.75)])
    return [
        main(body),
        second(cylinder(neck + 0.08, vary(0.36)).moved(y=height + 0.58)),
        second(cylinder(radius + 0.03, vary(0.42), 20).moved(y=0.32 * height)),
    ]


def _vase(vary: Vary) -> list[Part]:
    belly, neck, lip, foot = vary(0.62), vary(0.24), vary(0.46), vary(0.32)
    bulge = [(foot, 0), (0.85 * belly, 0.32), (belly, 0.62), (0.8 * belly, 0.98)]
    body = lathe([(0, 0), *bulge, (neck, 1.3), (neck, 1.36), (0, 1.36)], 22)
    flare = [(neck + 0.05, 1.3), (neck + 0.05, 1.42), (lip + 0.05, 1.72), (lip + 0.03, 1.82)]
    rim = lathe([(0, 1.3), *flare, (lip - 0.12, 1.82), (neck - 0.06, 1.48), (0, 1.42)], 22)
    stand = [(foot + 0.06, -0.06), (foot + 0.06, 0.06), (0.85 * belly + 0.03, 0.34)]
    base = lathe([(0, -0.06), *stand, (0.6 * belly, 0.34), (0, 0.3)], 22)
    return [main(body), second(rim), second(base)]


def _candle(vary: Vary) -> list[Part]:
    radius, height = vary(0.27), vary(1.15)
    plate = lathe([(0, 0), (0.4, 0), (0.74, 0.16), (0.74, 0.28), (0.62, 0.28), (0.42, 0.14), (0, 0.14)], 20)
    flame = lathe([(0, 0), (0.1, 0.04), (0.17, 0.18), (0.13, 0.36), (0.05, 0.52), (0, 0.58)], 12)
    return [
        main(cylinder(radius, height).moved(y=0.1)),
        second(plate),
        second(frustum(radius + 0.16, radius + 0.1, 0.28).moved(y=0.06)),
        detail(flame.moved(y=height + 0.06), "orange"),
    ]


def _lamp(vary: Vary) -> list[Part]:
    low, high, rise = vary(0.68), vary(0.34), vary(0.7)
    return [
        second(lathe([(0, 0), (vary(0.5), 0), (0.48, 0.12), (0.13, 0.26), (0, 0.26)])),
        second(cylinder(0.12, 1.3, 10).moved(y=0.1)),
        main(frustum(low, high, rise, 20).moved(y=0.95)),
    ]


def _umbrella(vary: Vary) -> list[Part]:
    radius, rise, length = vary(0.9, 0.05), vary(0.5), vary(1.35)
    ribs = 8
    canopy = dome(radius, rise, segments=4 * ribs)
    points = canopy.positions.copy()
    turn = np.arctan2(points[:, 0], points[:, 2])
    reach = np.hypot(points[:, 0], points[:, 2]) / radius
    points[:, 1] += 0.16 * reach**4 * (np.abs(np.sin(0.5 * ribs * turn)) - 0.6)
    return [
        main(type(canopy)(points, canopy.faces)),
        second(cylinder(0.09, length + 0.2, 10).moved(y=-length)),
        second(cylinder(0.17, 0.38, 12).moved(y=-length - 0.2)),
        second(frustum(0.12, 0.06, 0.22, 10).moved(y=rise - 0.06)),
    ]


def _hammer(vary: Vary) -> list[Part]:
    length, head = vary(1.5), vary(1.0)
    handle = frustum(0.15, 0.12, length + 0.2, 12)
    return [
        second(handle.moved(y=-length)),
        main(box(head, 0.36, vary(0.36))),
        main(cylinder(0.24, 0.22, 14).moved(y=-0.11).turned(z=90).moved(0.5 * head)),
        main(cylinder(0.24, 0.22, 14).moved(y=-0.11).turned(z=90).moved(-0.5 * head)),
    ]


KINDS = (
    Kind("mug", ("body",), ("handle",), _mug, has_front=True, holes=1),
    Kind("teapot", ("body", "belly"), ("spout", "handle", "lid"), _teapot, has_front=True, holes=1),
    Kind("bottle", ("body",), ("label", "cap"), _bottle),
    Kind("vase", ("body", "belly"), ("rim", "foot"), _vase),
    Kind("candle", ("wax", "body"), ("holder", "plate"), _candle),
    Kind("lamp", ("shade",), ("base", "stand"), _lamp),
    Kind("umbrella", ("canopy", "fabric"), ("stick", "handle"), _umbrella),
    Kind("hammer", ("head",), ("handle", "shaft"), _hammer),
)
