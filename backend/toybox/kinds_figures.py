"""Things with a face: fish, duck, snowman, robot."""

from __future__ import annotations

from backend.toybox.kind import Kind, Part, Vary, detail, main, second
from backend.toybox.shapes import box, cylinder, ellipsoid, extrude, frustum


def _fish(vary: Vary) -> list[Part]:
    length, height, width = vary(0.85), vary(0.5), vary(0.28)
    tail = extrude([(0.1, 0), (-0.32, 0.44), (-0.46, 0.4), (-0.34, 0), (-0.46, -0.4), (-0.32, -0.44)], 0.15)
    dorsal = extrude([(-0.5, 0), (0.3, 0), (-0.1, 0.36), (-0.46, 0.34)], 0.14)
    belly = extrude([(-0.3, 0.0), (0.16, 0.0), (-0.16, -0.3)], 0.14)
    eye = ellipsoid(0.1, segments=10, rings=8)
    side = ellipsoid(0.22, 0.07, 0.16, segments=10, rings=6)
    return [
        main(ellipsoid(width, height, length, segments=18, rings=12)),
        second(tail.turned(y=-90).moved(0, 0, 0.04 - length)),
        second(dorsal.turned(y=-90).moved(0, 0.84 * height, -0.02)),
        second(belly.turned(y=-90).moved(0, -0.84 * height, 0)),
        *(second(side.turned(z=-sx * 40).moved(sx * (width + 0.08), -0.12, 0.12 * length)) for sx in (-1, 1)),
        *(detail(eye.moved(sx * 0.62 * width, 0.3 * height, 0.68 * length), "contrast") for sx in (-1, 1)),
    ]


def _duck(vary: Vary) -> list[Part]:
    head, lift = vary(0.36), vary(0.62)
    wing = ellipsoid(0.13, 0.26, 0.42, segments=12, rings=8)
    eye = ellipsoid(0.085, segments=8, rings=6)
    beak = ellipsoid(0.22, 0.11, 0.34, segments=12, rings=8)
    return [
        main(ellipsoid(vary(0.56), 0.46, vary(0.8), segments=18, rings=12)),
        main(frustum(0.34, 0.05, 0.5, 14).turned(x=-48).moved(0, 0.14, -0.5)),
        main(cylinder(0.25, 0.5, 14).moved(0, 0.2, 0.42)),
        main(ellipsoid(head).moved(0, lift + 0.2, 0.46)),
        second(beak.moved(0, lift + 0.12, 0.46 + head + 0.08)),
        *(second(wing.turned(x=12).moved(sx * 0.53, 0.06, -0.12)) for sx in (-1, 1)),
        *(detail(eye.moved(sx * 0.55 * head, lift + 0.34, 0.46 + 0.72 * head), "contrast") for sx in (-1, 1)),
    ]


def _snowman(vary: Vary) -> list[Part]:
    low, middle, head = vary(0.6), vary(0.44, 0.06), vary(0.34, 0.06)
    at_middle, at_head = 0.85 * low + 0.5 * middle, 0.85 * low + 1.25 * middle + 0.62 * head
    hat = at_head + 0.72 * head
    nose = frustum(0.13, 0.0, vary(0.46), 10).turned(x=90).moved(0, at_head, 0.8 * head)
    dots = [(0.0, at_middle + 0.12, middle - 0.04), (0.0, at_middle - 0.2, 0.93 * middle - 0.04)]
    eyes = [(sx * 0.38 * head, at_head + 0.36 * head, 0.8 * head) for sx in (-1, 1)]
    return [
        main(ellipsoid(low)),
        main(ellipsoid(middle).moved(y=at_middle)),
        main(ellipsoid(head).moved(y=at_head)),
        second(cylinder(1.25 * head, 0.14).moved(y=hat)),
        second(cylinder(0.85 * head, vary(0.42)).moved(y=hat + 0.04)),
        second(cylinder(head + 0.05, 0.17).moved(y=at_head - head - 0.02)),
        second(box(0.2, 0.46, 0.16).turned(x=-8).moved(0.2, at_head - head - 0.14, middle)),
        detail(nose, "orange"),
        *(detail(ellipsoid(0.085, segments=8, rings=6).moved(*at), "contrast") for at in dots + eyes),
    ]


def _robot(vary: Vary) -> list[Part]:
    width, height, depth, head = vary(0.8), vary(0.8), vary(0.5), vary(0.52)
    top = height / 2 + 0.08 + head / 2
    eye = ellipsoid(0.1, segments=10, rings=6)
    arm = box(0.21, vary(0.8), 0.24).moved(0, 0, 0.04)
    leg = box(0.27, 0.6, 0.3).moved(0, -height / 2 - 0.22, 0)
    foot = box(0.3, 0.16, 0.5).moved(0, -height / 2 - 0.5, 0.12)
    return [
        main(box(width, height, depth)),
        main(cylinder(0.14, 0.24, 10).moved(y=height / 2 - 0.06)),
        main(box(1.15 * head, head, head).moved(y=top)),
        *(second(arm.moved(sx * (width / 2 + 0.08))) for sx in (-1, 1)),
        *(second(limb.moved(sx * 0.24 * width)) for sx in (-1, 1) for limb in (leg, foot)),
        second(box(0.55 * width, 0.36 * height, 0.14).moved(0, 0.08, depth / 2)),
        *(detail(eye.moved(sx * 0.26 * head, top + 0.07, 0.5 * head), "contrast") for sx in (-1, 1)),
        second(cylinder(0.08, 0.28, 8).moved(y=top + head / 2 - 0.04)),
    ]


KINDS = (
    Kind("fish", ("body",), ("fin", "tail"), _fish, has_front=True),
    Kind("duck", ("body", "head"), ("beak", "wing"), _duck, has_front=True),
    Kind("snowman", ("body", "ball"), ("hat", "scarf"), _snowman, has_front=True),
    Kind("robot", ("body", "head"), ("arm", "leg"), _robot, has_front=True),
)
