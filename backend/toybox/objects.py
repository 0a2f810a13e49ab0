"""Random toy objects: which there are, how one is drawn, built, brought to size and colored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.toybox import kinds_buildings_and_vehicles, kinds_figures, kinds_food_and_plants, kinds_household
from backend.toybox.kind import DETAIL, MAIN, SECOND, Kind, Part
from backend.toybox.palette import COLORS, draw_color

KINDS: tuple[Kind, ...] = (
    *kinds_food_and_plants.KINDS,
    *kinds_household.KINDS,
    *kinds_buildings_and_vehicles.KINDS,
    *kinds_figures.KINDS,
)

SIZES: tuple[str, ...] = ("", "tall", "wide")

RADIUS = 0.95
"""The largest vertex norm of a finished object."""

FRONT_OVERSAMPLING = 1.5
DARK_COLORS = ("black", "blue", "purple", "brown", "gray", "red", "green", "teal")


def _held_out() -> frozenset[tuple[str, str]]:
    """Two main colors for each kind, six apart in the palette; the step 5 spreads them evenly over all colors."""
    count = len(COLORS)
    shifts = (2, 2 + count // 2)
    return frozenset((kind.name, COLORS[(5 * k + shift) % count]) for k, kind in enumerate(KINDS) for shift in shifts)


HELD_OUT: frozenset[tuple[str, str]] = _held_out()
"""(kind, main color) pairs that no training object ever has."""


@dataclass(frozen=True)
class ObjectSpec:
    """What a caption says about an object; `size` is "", "tall" or "wide"."""

    kind: Kind
    main: str
    second: str
    size: str = ""


@dataclass(frozen=True)
class ToyObject:
    """positions [V, 3] f32, faces [F, 3] i32, colors [V, 3] f32 in [0, 1], part [V] i32: MAIN, SECOND or DETAIL."""

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    part: np.ndarray


def kind_named(name: str) -> Kind:
    """The kind of exactly this name; KeyError if there is none."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise KeyError(name)


def draw_spec(rng: np.random.Generator, held_out: bool = False) -> ObjectSpec:
    """A random object's description; kinds with a front come up 1.5 times as often.

    Draws only from `HELD_OUT` if `held_out`, and never from it otherwise. The two colors always differ.
    """
    weights = np.array([FRONT_OVERSAMPLING if kind.has_front else 1.0 for kind in KINDS])
    kind = KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))]
    allowed = [color for color in COLORS if ((kind.name, color) in HELD_OUT) == held_out]
    main = allowed[int(rng.integers(len(allowed)))]
    others = [color for color in COLORS if color != main]
    second = others[int(rng.integers(len(others)))]
    return ObjectSpec(kind, main, second, SIZES[int(rng.choice(3, p=(0.6, 0.2, 0.2)))])


def build_object(kind: Kind, main: str, second: str, size: str, rng: np.random.Generator) -> ToyObject:
    """One random instance, front toward +z: bounding box centered at the origin, farthest vertex at distance 0.95."""

    def vary(typical: float, share: float = 0.1) -> float:
        return float(typical * rng.uniform(1.0 - share, 1.0 + share))

    parts = kind.build(vary)
    positions = _normalized(np.concatenate([part.solid.positions for part in parts]) * _stretch(size, rng))
    counts = np.array([len(part.solid.positions) for part in parts])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    faces = np.concatenate([part.solid.faces + start for part, start in zip(parts, starts)])
    colors = _part_colors(parts, main, second, rng)
    role = np.array([part.role for part in parts])
    return ToyObject(
        positions.astype(np.float32),
        faces.astype(np.int32),
        np.repeat(colors, counts, axis=0).astype(np.float32),
        np.repeat(role, counts).astype(np.int32),
    )


def _stretch(size: str, rng: np.random.Generator) -> np.ndarray:
    """Factors [3] for x, y, z. "wide" widens x and z alike, so that round things stay round."""
    tall = rng.uniform(1.35, 1.55) if size == "tall" else rng.uniform(0.94, 1.06)
    wide = rng.uniform(1.35, 1.55) if size == "wide" else 1.0
    return np.array([wide, tall, wide])


def _normalized(positions: np.ndarray) -> np.ndarray:
    centered = positions - (positions.min(0) + positions.max(0)) / 2.0
    return centered * (RADIUS / np.linalg.norm(centered, axis=1).max())


def _part_colors(parts: list[Part], main: str, second: str, rng: np.random.Generator) -> np.ndarray:
    """One color per part [P, 3]; parts of the same role and name share it."""
    names = {MAIN: main, SECOND: second, DETAIL: ""}
    contrast = "white" if main in DARK_COLORS else "black"
    wanted = [contrast if part.color == "contrast" else part.color or names[part.role] for part in parts]
    drawn: dict[str, np.ndarray] = {}
    for name in wanted:
        if name not in drawn:
            drawn[name] = draw_color(name, rng)
    return np.array([drawn[name] for name in wanted])
