"""Things that grow or are eaten: mushroom, apple, carrot, ice cream, cake, donut, cactus, tree."""

from __future__ import annotations

import numpy as np

from backend.toybox.kind import Kind, Part, Vary, main, second
from backend.toybox.shapes import cylinder, dome, ellipsoid, frustum, lathe, torus, tube


def _mushroom(vary: Vary) -> list[Part]:
    height, stem, cap = vary(0.8, 0.15), vary(0.25), vary(0.75)
    return [
        second(lathe([(0, 0), (1.25 * stem, 0), (stem, 0.4 * height), (0.9 * stem, height + 0.1), (0, height + 0.1)])),
        main(dome(cap, vary(0.62), lip=0.08).moved(y=height)),
    ]


def _apple(vary: Vary) -> list[Part]:
    radius = vary(0.8, 0.05)
    body = lathe([
        (0, -0.68), (0.2, -0.76), (0.5, -0.66), (0.78 * radius / 0.8, -0.22), (radius * 1.06, 0.2), (0.76, 0.58),
        (0.45, 0.74), (0.2, 0.66), (0, 0.52),
    ])
    leaf = ellipsoid(0.42, 0.11, 0.24, segments=10, rings=6)
    return [
        main(body),
        second(tube(np.array([[0, 0.4, 0], [0, 0.7, 0], [0.02, 0.95, 0], [0.06, vary(1.15), 0]]), 0.1)),
        second(leaf.turned(z=vary(18, 0.4)).moved(0.38, 0.95)),
        second(leaf.turned(z=-vary(18, 0.4)).moved(-0.34, 0.9)),
    ]


def _carrot(vary: Vary) -> list[Part]:
    length, radius = vary(1.5), vary(0.4)
    tip = [(0, -length), (0.1, 0.06 - length)]
    root = lathe([*tip, (0.6 * radius, -0.5 * length), (radius, -0.1), (0.8 * radius, 0.08), (0, 0.1)])
    leaf = ellipsoid(0.15, vary(0.42), 0.15, segments=10, rings=7).moved(y=0.34).turned(z=34).moved(y=0.02)
    middle = ellipsoid(0.16, vary(0.5), 0.16, segments=10, rings=7).moved(y=0.4)
    return [main(root), *(second(leaf.turned(y=72 * k + 10)) for k in range(5)), second(middle)]


def _ice_cream(vary: Vary) -> list[Part]:
    length, radius = vary(1.25), vary(0.48)
    cone = lathe([(0, -length), (0.09, -length), (radius, -0.02), (radius, 0.08), (0, 0.08)])
    return [
        second(cone),
        main(ellipsoid(1.18 * radius, vary(0.52), 1.18 * radius).moved(y=0.3)),
        main(ellipsoid(0.82 * radius, vary(0.4), 0.82 * radius).moved(y=0.82)),
    ]


def _cake(vary: Vary) -> list[Part]:
    radius, height = vary(0.85), vary(0.42)
    upper, rise = 0.62 * radius, vary(0.36)
    return [
        main(cylinder(radius, height, 22)),
        second(cylinder(1.06 * radius, 0.2, 22).moved(y=height - 0.06)),
        main(cylinder(upper, rise + 0.14, 20).moved(y=height)),
        second(cylinder(1.1 * upper, 0.2, 20).moved(y=height + rise + 0.06)),
        second(ellipsoid(0.17, 0.19, 0.17, segments=12, rings=8).moved(y=height + rise + 0.36)),
    ]


def _donut(vary: Vary) -> list[Part]:
    radius, thickness = vary(0.68, 0.06), vary(0.27, 0.08)
    icing = torus(radius, 0.96 * thickness).moved(y=0.13)
    return [main(torus(radius, thickness)), second(icing)]


def _cactus(vary: Vary) -> list[Part]:
    height, radius, reach = vary(1.35), vary(0.25), vary(0.56)
    arms = []
    for side, low in ((1.0, vary(0.55, 0.15)), (-1.0, vary(0.85, 0.12))):
        top = low + vary(0.5)
        out = [[0, low, 0], [0.7 * reach, low, 0], [0.95 * reach, low + 0.06, 0], [reach, low + 0.2, 0]]
        path = np.array([*out, [reach, top, 0], [reach, top + 0.08, 0]]) * [side, 1, 1]
        arms.append(main(tube(path, [0.15, 0.15, 0.15, 0.15, 0.15, 0.07], around=10)))
    tip = [(0.85 * radius, height + 0.06), (0.45 * radius, height + 0.15), (0, height + 0.18)]
    body = lathe([(0, 0), (radius, 0), (radius, height - 0.1), *tip], 14)
    pot = lathe([(0, -0.55), (0.33, -0.55), (0.46, -0.02), (0.54, -0.02), (0.54, 0.12), (0, 0.12)])
    return [main(body), *arms, second(pot)]


def _tree(vary: Vary) -> list[Part]:
    width = vary(0.74)
    return [
        second(cylinder(vary(0.23), 1.0, 12).moved(y=-0.2)),
        main(frustum(width, 0.2, vary(0.7)).moved(y=0.5)),
        main(frustum(0.82 * width, 0.14, 0.65).moved(y=0.92)),
        main(frustum(0.6 * width, 0.0, vary(0.66)).moved(y=1.34)),
    ]


KINDS = (
    Kind("mushroom", ("cap",), ("stem", "stalk"), _mushroom),
    Kind("apple", ("skin", "body"), ("leaf", "stem"), _apple),
    Kind("carrot", ("root", "body"), ("leaf", "top"), _carrot),
    Kind("ice cream", ("scoop", "ball"), ("cone", "wafer"), _ice_cream, synonyms=("icecream",)),
    Kind("cake", ("sponge", "body"), ("icing", "frosting"), _cake),
    Kind("donut", ("dough", "body"), ("icing", "glaze"), _donut, synonyms=("doughnut",), holes=1),
    Kind("cactus", ("body", "arm"), ("pot",), _cactus),
    Kind("tree", ("crown", "foliage"), ("trunk",), _tree),
)
