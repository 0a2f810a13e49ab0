"""What a kind of object is: its words, its symmetry, its topology and how one is built.

A build function receives `vary`, which draws a length around a typical one, and returns the parts in any scale and
place; `backend/toybox/objects.py` stretches, centers, scales and colors them. An object's front faces +z, y is up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.toybox.shapes import Solid

Vary = Callable[..., float]
"""vary(typical, share=0.1) draws uniformly from typical * [1 - share, 1 + share]."""

MAIN, SECOND, DETAIL = 0, 1, 2


@dataclass(frozen=True)
class Part:
    """One solid of an object. `role` is MAIN, SECOND or DETAIL; a detail has a palette color of its own.

    The color "contrast" means black, or white on an object whose main color is dark.
    """

    solid: Solid
    role: int
    color: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of object that toybox knows.

    `main` and `second` are the nouns (singular) a caption may call the parts of the main and of the second color.
    `has_front`: it looks different from the front, the back and both sides. `components` and `holes` (genus) are those
    of the union of its solids.
    """

    name: str
    main: tuple[str, ...]
    second: tuple[str, ...]
    build: Callable[[Vary], list[Part]]
    has_front: bool = False
    synonyms: tuple[str, ...] = ()
    components: int = 1
    holes: int = 0


def main(solid: Solid) -> Part:
    """A part in the object's main color."""
    return Part(solid, MAIN)


def second(solid: Solid) -> Part:
    """A part in the object's second color."""
    return Part(solid, SECOND)


def detail(solid: Solid, color: str) -> Part:
    """A part in a fixed palette color, or in "contrast"."""
    return Part(solid, DETAIL, color)
