"""Procedural objects: closed outward solids, place and size, topology of the union, fronts, held-out pairs."""

import numpy as np
import pytest
import trimesh

from backend.toybox.kind import MAIN, SECOND
from backend.toybox.objects import HELD_OUT, KINDS, RADIUS, SIZES, ToyObject, build_object, draw_spec
from backend.toybox.palette import COLORS, PALETTE

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))


def built(kind, size="", seed=3) -> ToyObject:
    return build_object(kind, "red", "white", size, np.random.default_rng(seed))


def as_trimesh(toy: ToyObject) -> trimesh.Trimesh:
    return trimesh.Trimesh(toy.positions, toy.faces, process=False)


@kinds
def test_solids_are_closed_and_wind_outward(kind):
    for solid in as_trimesh(built(kind)).split(only_watertight=False):
        assert solid.is_watertight and solid.is_winding_consistent
        assert solid.volume > 0
        assert solid.area_faces.min() > 0


@kinds
def test_union_has_the_stated_topology(kind):
    for seed in (1, 2):
        solids = as_trimesh(built(kind, seed=seed)).split(only_watertight=False)
        pieces = trimesh.boolean.union(list(solids), engine="manifold").split(only_watertight=False)
        assert len(pieces) == kind.components
        assert sum(1 - piece.euler_number // 2 for piece in pieces) == kind.holes


@kinds
def test_objects_are_centered_and_fill_the_unit_sphere(kind):
    for size in SIZES:
        toy = built(kind, size)
        low, high = toy.positions.min(0), toy.positions.max(0)
        assert np.abs(low + high).max() < 1e-5
        assert np.linalg.norm(toy.positions, axis=1).max() == pytest.approx(RADIUS, abs=1e-5)
        assert 200 <= len(toy.faces) <= 2500


@kinds
def test_size_words_change_the_proportions(kind):
    def slenderness(size: str) -> float:
        extent = np.ptp(built(kind, size, seed=4).positions, axis=0)
        return extent[1] / np.hypot(extent[0], extent[2])

    assert slenderness("tall") > 1.2 * slenderness("") > 1.4 * slenderness("wide")


@kinds
def test_second_part_and_colors_are_visible(kind):
    toy = built(kind)
    area = trimesh.triangles.area(toy.positions[toy.faces])
    role = toy.part[toy.faces[:, 0]]
    assert area[role == SECOND].sum() > 0.06 * area.sum()
    assert area[role == MAIN].sum() > 0.15 * area.sum()
    for part, name in ((MAIN, "red"), (SECOND, "white")):
        assert np.abs(toy.colors[toy.part == part] - PALETTE[name]).max() < 0.25


def occupancy(toy: ToyObject, turn: int) -> np.ndarray:
    """Samples of the surface on a coarse grid with their colors, the object turned by `turn` quarter turns about y."""
    rng = np.random.RandomState(0)
    mesh = as_trimesh(toy)
    points, face = trimesh.sample.sample_surface(mesh, 20000, seed=rng.randint(1000))
    for _ in range(turn):
        points = points[:, [2, 1, 0]] * [1, 1, -1]
    cell = np.floor((points + 1) * 6).astype(int).clip(0, 11)
    grid = np.zeros((12, 12, 12, 4))
    np.add.at(grid, tuple(cell.T), np.column_stack([toy.colors[toy.faces[face, 0]], np.ones(len(face))]))
    return grid[..., :3] / np.maximum(grid[..., 3:], 1) + (grid[..., 3:] > 2)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.has_front], ids=lambda kind: kind.name)
def test_a_front_differs_from_the_other_three_sides(kind):
    toy = built(kind)
    front = occupancy(toy, 0)
    again = occupancy(built(kind, seed=8), 0)
    turned = [np.abs(front - occupancy(toy, quarter)).mean() for quarter in (1, 2, 3)]
    assert min(turned) > 0.02
    assert np.abs(front - again).mean() < 1.3 * max(turned)


@pytest.mark.parametrize(
    "name, axis, sign", [("mug", 0, 1), ("teapot", 0, 1), ("duck", 2, 1), ("snowman", 2, 1), ("chair", 2, -1)]
)
def test_what_sticks_out_points_the_right_way(name, axis, sign):
    """Mug handle and teapot spout toward +x, beak and nose toward +z, the chair's backrest at -z."""
    kind = next(kind for kind in KINDS if kind.name == name)
    toy = built(kind)
    if name == "chair":
        high = toy.positions[toy.positions[:, 1] > 0.3]
        assert high[:, axis].mean() * sign > 0.1
        return
    tip = toy.positions[np.argmax(toy.positions[:, axis] * sign)]
    center = toy.positions[toy.part == MAIN].mean(0)
    assert (tip - center)[axis] * sign > 0.3
    assert toy.part[np.argmax(toy.positions[:, axis] * sign)] != MAIN


def test_same_seed_same_object_other_seed_another():
    kind = KINDS[0]
    assert np.array_equal(built(kind, seed=5).positions, built(kind, seed=5).positions)
    assert not np.allclose(built(kind, seed=5).positions, built(kind, seed=6).positions)


def test_held_out_pairs_are_two_per_kind_and_never_drawn():
    assert sorted(name for name, _ in HELD_OUT) == sorted([kind.name for kind in KINDS] * 2)
    rng = np.random.default_rng(0)
    drawn = [draw_spec(rng) for _ in range(4000)]
    assert not HELD_OUT & {(spec.kind.name, spec.main) for spec in drawn}
    assert {spec.kind for spec in drawn} == set(KINDS)
    assert all(spec.main != spec.second for spec in drawn)
    held = [draw_spec(rng, held_out=True) for _ in range(1000)]
    assert {(spec.kind.name, spec.main) for spec in held} == HELD_OUT


def test_colors_stay_apart_when_shaded():
    """No palette color, darkened by shading down to 0.55, comes near another at full brightness."""
    for name in COLORS:
        for other in COLORS:
            if name != other:
                shades = np.linspace(0.55, 1.0, 10)[:, None] * np.array(PALETTE[name])
                assert np.linalg.norm(shades - np.array(PALETTE[other]), axis=1).min() > 0.15, (name, other)
