"""Regions on the command line: pictures and names become masks, with borders as soft as was asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli.refine import add_arguments
from backend.cli.region_arguments import GivenRegion, check_same_regions, masks_of, regions_of
from backend.cli.report_page import REGION_COLORS
from backend.cli.results import region_views
from backend.cli.start_mesh import StartMesh
from backend.errors import InputError
from backend.optimize.inputs import RegionMask
from backend.representations.masks import vertex_mask
from backend.representations.mesh_data import MeshData
from backend.representations.soft_border import soft_border
from protocol.settings import RegionSettings

SIDE = 8


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["plane.obj", "a red roof", *options])


@pytest.fixture
def plane(tmp_path: Path) -> StartMesh:
    """A square of 10 x 10 file units, 8 x 8 cells; its left half is the object Left of material clay, the rest Right of glass."""
    axis = np.arange(SIDE + 1) / SIDE
    lines = [f"v {10 * x:g} 0 {10 * y:g}" for y in axis for x in axis] + [f"vt {x:g} {y:g}" for y in axis for x in axis]
    for name, material, columns in (("Left", "clay", range(4)), ("Right", "glass", range(4, 8))):
        lines += [f"o {name}", f"usemtl {material}"]
        for row in range(SIDE):
            for column in columns:
                a = row * (SIDE + 1) + column + 1
                b, c, d = a + 1, a + SIDE + 2, a + SIDE + 1
                lines += [f"f {a}/{a} {b}/{b} {c}/{c} {d}/{d}"]
    (tmp_path / "plane.obj").write_text("\n".join(["mtllib plane.mtl", *lines]) + "\n")
    (tmp_path / "plane.mtl").write_text("newmtl clay\nKd 0.8 0.3 0.2\nnewmtl glass\nKd 0.2 0.3 0.8\n")
    return StartMesh.read(tmp_path / "plane.obj", "y")


def column(start: StartMesh) -> np.ndarray:
    """Of each vertex, 0 to 8 from left to right."""
    return np.rint(start.original[:, 0] * SIDE / 10).astype(int)


def picture(folder: Path, values: np.ndarray, name: str = "mask.png") -> Path:
    Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(folder / name)
    return folder / name


def test_each_region_has_a_mask_and_perhaps_a_prompt(tmp_path: Path) -> None:
    path = picture(tmp_path, np.ones((4, 4)))
    arguments = parsed("--region", f"{path}=a blue roof = sky", "--region", "Left", "--soften", "2.5")
    regions, sources = regions_of(arguments)
    assert regions == (RegionSettings("a blue roof = sky"), RegionSettings(""))
    assert sources == (GivenRegion(str(path), 2.5), GivenRegion("Left", 2.5))
    assert regions_of(parsed()) == ((), ())
    check_same_regions(arguments, regions, sources, tmp_path)
    check_same_regions(parsed(), regions, sources, tmp_path)
    for other in (("--region", "Left"), ("--soften", "1")):
        with pytest.raises(InputError, match="other regions"):
            check_same_regions(parsed(*other), regions, sources, tmp_path)


@pytest.mark.parametrize("name", ["Left", "clay"])
def test_an_object_or_a_material_frees_what_is_its_own_alone(name: str, plane: StartMesh) -> None:
    (mask,) = masks_of((GivenRegion(name),), plane)
    np.testing.assert_array_equal(mask.vertices, column(plane) < 4)
    assert mask.texels is None


def test_soft_borders_fade_inward_by_distance_along_edges(plane: StartMesh) -> None:
    (mask,) = masks_of((GivenRegion("Left", 2.5),), plane)
    wanted = {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.5, 4: 0.0, 5: 0.0, 6: 0.0, 7: 0.0, 8: 0.0}  # cells are 1.25 wide
    np.testing.assert_allclose(mask.vertices, [wanted[each] for each in column(plane)], atol=1e-5)


def test_a_picture_is_a_mask_of_texels_and_of_the_vertices_that_lie_in_it(plane: StartMesh, tmp_path: Path) -> None:
    painted = np.zeros((32, 32))
    painted[:, 18:] = 1.0
    (hard,) = masks_of((GivenRegion(str(picture(tmp_path, painted))),), plane)
    np.testing.assert_array_equal(hard.texels, painted)
    np.testing.assert_array_equal(vertex_mask(hard.texels, plane.mesh).numpy(), column(plane) > 4)
    (soft,) = masks_of((GivenRegion(str(picture(tmp_path, painted)), 2.5),), plane)
    # A texel is 10 / 32 wide, so the border is 8 of them; the nearest kept one is in column 17.
    np.testing.assert_allclose(soft.texels, np.tile(np.clip((np.arange(32) - 17) / 8, 0.0, 1.0), (32, 1)), atol=1e-4)
    gray = np.tile(np.linspace(0.0, 1.0, 32), (32, 1))
    (painted_soft,) = masks_of((GivenRegion(str(picture(tmp_path, gray))),), plane)
    np.testing.assert_allclose(painted_soft.texels, np.rint(gray * 255) / 255, atol=1e-6)


def test_what_cannot_be_a_region_is_said(plane: StartMesh, tmp_path: Path) -> None:
    def refused(match: str, mask: str) -> None:
        with pytest.raises(InputError, match=match):
            masks_of((GivenRegion(mask),), plane)

    refused("“Left”, “Right”, “clay”, “glass”", "Roof")
    refused("There is no image", str(tmp_path / "gone.png"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused("cannot be read as an image", str(tmp_path / "broken.png"))
    with pytest.raises(InputError, match="up to 8"):
        regions_of(parsed(*["--region", "Left"] * 9))
    with pytest.raises(InputError, match="says no part"):
        regions_of(parsed("--region", "=a blue roof"))
    for options in (("--soften", "1"), ("--region", "Left", "--soften", "-1")):
        with pytest.raises(InputError, match="--soften"):
            regions_of(parsed(*options))


def test_a_border_never_grows_and_lone_pieces_stay() -> None:
    positions = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [6, 0, 0], [5, 1, 0]])
    mesh = MeshData(positions, np.int32([[0, 1, 2], [3, 4, 5]]))
    mask = np.float32([0, 1, 0.5, 1, 1, 1])
    np.testing.assert_allclose(soft_border(mask, mesh, 4.0), [0, 0.25, 0.125, 1, 1, 1])
    assert soft_border(mask, mesh, 0.0) is mask


def test_the_report_shows_regions_in_their_colors(plane: StartMesh) -> None:
    left, right = masks_of((GivenRegion("Left"), GivenRegion("Right")), plane)
    views = region_views(plane.mesh, (left, right))
    seen = views[..., :3][views[..., 3] == 255].astype(int)
    for color in REGION_COLORS[:2]:  # as bright as the light makes them
        hue = np.array(color) / np.linalg.norm(color)
        assert (seen @ hue / np.linalg.norm(seen, axis=1).clip(1) > 0.999).mean() > 0.15
    painted = region_views(plane.mesh, (RegionMask(texels=np.ones((16, 16), np.float32)),))
    assert painted.shape == views.shape and not np.array_equal(painted, views)
