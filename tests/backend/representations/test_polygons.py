"""Polygons cut into triangles: areas add up, nothing turns over, and each triangle knows where it is from."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations.polygons import MAX_CORNERS, Polygons, cut_polygons

OUTLINES = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "arrow": [(0, 0), (2, -1), (0.3, 0), (2, 1)],  # concave at its third corner
    "dart at the second corner": [(2, 1), (0.3, 0), (2, -1), (0, 0)][::-1],
    "corner on an edge": [(0, 0), (0.5, 0), (1, 0), (0, 1)],
    "corner on the first edge": [(0.5, 0), (1, 0), (0, 1), (0, 0)],
    "L": [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)],
    "comb": [(0, 0), (9, 0), (9, 3), (8, 1), (7, 3), (6, 1), (5, 3), (4, 1), (3, 3), (2, 1), (1, 3)],
    "square with many corners": [
        *((i / 5, 0) for i in range(5)), *((1, i / 5) for i in range(5)),
        *((1 - i / 5, 1) for i in range(5)), *((0, 1 - i / 5) for i in range(5)),
    ],
    "keyhole": [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1)],  # a bridge to a hole
}  # fmt: skip


def signed_areas(points: np.ndarray) -> np.ndarray:
    """Of polygons [..., n, 2], counterclockwise positive."""
    after = np.roll(points, -1, axis=-2)
    return (points[..., 0] * after[..., 1] - points[..., 1] * after[..., 0]).sum(axis=-1) / 2


def turned(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A flat outline somewhere in space."""
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return points @ (turn[:, :2] * 7.0).T + generator.normal(size=3) * 20.0


def check_cut(outline: np.ndarray, cut: Polygons) -> None:
    """Size - 2 triangles, all with area and the outline's winding, that cover its area: so they tile it."""
    triangles = outline[cut.triangle_corners]
    areas = signed_areas(triangles)
    assert len(areas) == len(outline) - 2
    whole = signed_areas(outline)
    assert areas.sum() == pytest.approx(whole, rel=1e-9)
    assert (areas / whole > 1e-7).all()


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_are_tiled(name: str) -> None:
    generator = np.random.default_rng(0)
    outline = np.array(OUTLINES[name], float)
    for _ in range(len(outline)):  # whichever corner comes first
        outline = np.roll(outline, 1, axis=0)
        order = np.arange(len(outline))
        check_cut(outline, cut_polygons(turned(outline, generator), np.array([len(outline)]), order))


def test_random_stars_are_tiled() -> None:
    generator = np.random.default_rng(3)
    for size in [5, 6, 7, 9, 12, 20, 60, 200] * 4:
        angle = np.sort(generator.random(size)) * 2 * np.pi
        radius = generator.uniform(0.2, 1.0, size)
        outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        if np.diff(angle, append=angle[0] + 2 * np.pi).max() < np.pi:
            check_cut(outline, cut_polygons(turned(outline, generator), np.array([size]), np.arange(size)))


def test_triangles_know_their_polygons_and_corners() -> None:
    """Mixed sizes, shuffled vertices, texture rows of their own; a two-cornered face has no triangle."""
    generator = np.random.default_rng(4)
    sizes = np.array([3, 4, 2, 6, 3, 5, 4, 4])
    owner = np.repeat(np.arange(8), sizes)
    angle = np.concatenate([np.arange(size) * 2 * np.pi / size for size in sizes])
    flat = np.stack([np.cos(angle) + 3 * owner, np.sin(angle), 0 * angle], axis=1)
    shuffle = generator.permutation(len(flat))
    positions = np.empty_like(flat)
    positions[shuffle] = flat
    uv_corners = generator.permutation(len(flat))
    cut = cut_polygons(positions, sizes, shuffle, uv_corners)
    np.testing.assert_array_equal(np.bincount(cut.triangle_polygon, minlength=8), np.maximum(sizes - 2, 0))
    assert (np.diff(cut.triangle_polygon) >= 0).all()
    np.testing.assert_array_equal(owner[cut.triangle_corners], np.repeat(cut.triangle_polygon[:, None], 3, axis=1))
    np.testing.assert_array_equal(cut.faces(), shuffle[cut.triangle_corners])
    np.testing.assert_array_equal(cut.uv_faces(), uv_corners[cut.triangle_corners])
    values = cut.triangle_polygon * 10
    np.testing.assert_array_equal(cut.of_triangles(values)[sizes >= 3], np.arange(8)[sizes >= 3] * 10)


def test_a_bent_quad_keeps_its_first_diagonal() -> None:
    """Both cuts are sound, so the one that every other program makes is made."""
    bent = np.array([(0, 0, 0), (1, 0, 0.3), (1, 1, 0), (0, 1, 0.3)], float)
    np.testing.assert_array_equal(cut_polygons(bent, np.array([4]), np.arange(4)).faces(), [[0, 1, 2], [0, 2, 3]])


def test_polygons_without_area_still_get_their_triangles() -> None:
    """Crossed outlines and points on one line: nothing sensible to do, but nothing is lost, and it ends."""
    line = np.stack([np.arange(7.0), np.zeros(7), np.zeros(7)], axis=1)
    same = np.zeros((7, 3))
    bow = np.array([(0, 0, 0), (1, 1, 0), (1, 0, 0), (0, 1, 0), (2, 3, 0), (2, -3, 0), (1, 7, 0)], float)
    for points in (line, same, bow, np.full((7, 3), 1e200), bow * 1e-200):
        with np.errstate(all="ignore"):
            cut = cut_polygons(points, np.array([7]), np.arange(7))
        assert cut.faces().shape == (5, 3) and set(cut.faces().reshape(-1)) == set(range(7))


def test_endless_polygons_are_refused() -> None:
    size = MAX_CORNERS + 1
    with pytest.raises(InputError, match="corners"):
        cut_polygons(np.zeros((size, 3)), np.array([size]), np.arange(size))
