"""Ids, barycentrics, depth and w against brute force, on random scenes and on those that break rasterizers.

Where float32 input leaves no doubt in float64, ids must be equal at every pixel. They may differ from exact arithmetic
in two cases only, which the tests single out and count: the center lies exactly on an edge (the faces at both sides are
right; with rounded coefficients either may claim it, never none), or two depths are equal within two steps of float32,
the precision that depths are compared in (the lowest id of those that round to the same number is seen).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import rasterize, to_clip_space
from tests.backend.rendering.brute_force import Seen, candidates_exactly, in_float64

Scene = tuple[Tensor, Tensor]  # clip [V, 4], faces [F, 3]


def single_triangles(clip: Tensor) -> Scene:
    return clip, torch.arange(len(clip), dtype=torch.int32).view(-1, 3)


def in_space(generator: torch.Generator, count: int, size: float, w_from: float, w_to: float) -> Tensor:
    """Vertices of `count` triangles around random points on the image, `[3 count, 4]`, at w in a range."""
    centers = torch.rand(count, 1, 2, generator=generator) * 2.4 - 1.2
    ndc = centers + size * torch.randn(count, 3, 2, generator=generator)
    w = w_from + (w_to - w_from) * torch.rand(count, 3, 1, generator=generator)
    z = torch.rand(count, 3, 1, generator=generator) * 1.6 - 0.8
    return torch.cat([ndc * w, z * w, w], dim=2).view(-1, 4)


def random_triangles(generator: torch.Generator) -> Scene:
    return single_triangles(in_space(generator, 150, 0.4, 0.3, 4.0))


def slivers(generator: torch.Generator) -> Scene:
    clip = in_space(generator, 400, 0.8, 0.5, 2.0).view(-1, 3, 4)
    along = torch.rand(400, 1, generator=generator)
    width = 10.0 ** (-1.0 - 6.0 * torch.rand(400, 1, generator=generator))
    clip[:, 2] = clip[:, 0] * along + clip[:, 1] * (1 - along) + width * torch.randn(400, 4, generator=generator)
    return single_triangles(clip.view(-1, 4))


def huge(generator: torch.Generator) -> Scene:
    clip = in_space(generator, 60, 1.0, 0.5, 2.0).view(-1, 3, 4)
    far = 10.0 ** (12.0 * torch.rand(60, 1, generator=generator))
    clip[:, 1, :2] *= far  # one vertex far away, up to 1e12 image widths
    clip[:20, 2, :2] *= far[:20]
    return single_triangles(clip.view(-1, 4))


def behind_the_camera(generator: torch.Generator) -> Scene:
    return single_triangles(in_space(generator, 150, 0.6, -1.5, 2.0))


def across_the_near_plane(generator: torch.Generator) -> Scene:
    clip = in_space(generator, 150, 0.6, 0.2, 2.0)
    clip[:, 2] = clip[:, 3] * (torch.rand(len(clip), generator=generator) * 3.0 - 2.0)
    return single_triangles(clip)


def through_a_camera(generator: torch.Generator) -> Scene:
    # Around the camera on all sides, by a true projection: many faces have one or two vertices behind it.
    vertices = torch.randn(120, 3, 3, generator=generator) + 1.5 * torch.randn(120, 1, 3, generator=generator)
    matrix = Cameras.orbit([20.0], 10.0, distance=0.3, fov=70.0).clip_matrix()
    return single_triangles(to_clip_space(vertices.view(-1, 3), matrix)[0].contiguous())


def tiny(generator: torch.Generator) -> Scene:
    # Around pixel centers and smaller than pixels by up to 1e-4, so that they are hit although they are tiny.
    column, row = torch.randint(24, (2, 300, 1), generator=generator)
    center = torch.stack([(2 * column + 1) / 24 - 1, 1 - (2 * row + 1) / 24], dim=2)
    size = 10.0 ** (-1.0 - 4.0 * torch.rand(300, 1, 1, generator=generator))
    ndc = center + size * torch.randn(300, 3, 2, generator=generator)
    clip = torch.cat([ndc, torch.rand(300, 3, 1, generator=generator), torch.ones(300, 3, 1)], dim=2)
    return single_triangles(clip.view(-1, 4))


SCENES: list[Callable[[torch.Generator], Scene]] = [
    random_triangles,
    slivers,
    huge,
    behind_the_camera,
    across_the_near_plane,
    through_a_camera,
    tiny,
]


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("height", "width"), [(24, 24), (31, 50)])
def test_every_undoubted_pixel_is_that_of_the_brute_force(make, height, width) -> None:
    clip, faces = make(torch.Generator().manual_seed(height))
    fragments = rasterize(clip[None], faces, height, width)
    expected = in_float64(clip.numpy(), faces.numpy(), height, width)
    assert_equal(fragments, 0, expected)
    assert expected.certain.mean() > 0.995
    assert (expected.face_id >= 0).any()


def assert_equal(fragments, view: int, expected: Seen) -> None:
    sure = expected.certain
    assert (fragments.face_id[view].numpy()[sure] == expected.face_id[sure]).all()
    sure = sure & (expected.face_id >= 0)
    barycentrics = fragments.barycentrics[view].numpy()
    np.testing.assert_allclose(barycentrics[sure], expected.barycentrics[sure], rtol=0, atol=2e-7)
    assert (barycentrics >= 0).all() and (barycentrics <= 1).all()
    np.testing.assert_allclose(fragments.depth[view].numpy()[sure], expected.depth[sure], rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(fragments.w[view].numpy()[sure], expected.w[sure], rtol=2e-7, atol=0)
    empty = expected.certain & (expected.face_id < 0)
    assert np.isinf(fragments.w[view].numpy()[empty]).all() and (fragments.depth[view].numpy()[empty] == 1).all()


@pytest.mark.parametrize("make", [random_triangles, slivers, through_a_camera], ids=lambda make: make.__name__)
@pytest.mark.slow
def test_many_seeds_of_the_brute_force(make) -> None:
    doubtful = total = 0
    for seed in range(100, 140):
        clip, faces = make(torch.Generator().manual_seed(seed))
        expected = in_float64(clip.numpy(), faces.numpy(), 64, 64)
        assert_equal(rasterize(clip[None], faces, 64, 64), 0, expected)
        doubtful, total = doubtful + (~expected.certain).sum(), total + expected.certain.size
    assert doubtful / total < 2e-4


def exact_differences(clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[int, int]:
    """Pixels whose face is not the nearest in exact arithmetic, after asserting that each is a tie; and all ties."""
    face_id = rasterize(clip[None], faces, height, width).face_id[0]
    different = ties = 0
    for row in range(height):
        for column in range(width):
            found = candidates_exactly(clip.numpy(), faces.numpy(), row, column, height, width)
            seen = int(face_id[row, column])
            undoubted = [depth for depth, on_rim in found.values() if not on_rim]
            nearest = min(undoubted, default=None)
            step = 0.0 if nearest is None else 2.0 * float(np.spacing(np.float32(abs(float(nearest)))))
            allowed = {i for i, (depth, _) in found.items() if nearest is None or float(depth - nearest) <= step}
            assert seen in allowed or (seen == -1 and nearest is None), (row, column, seen, found)
            lowest = min(found, key=lambda index: (found[index][0], index), default=-1)
            ties += len(allowed) > 1 or any(found[index][1] for index in allowed)
            different += seen != lowest
    return different, ties


def test_shared_edges_exactly_on_pixel_centers() -> None:
    # A square of eight triangles around its middle, all of whose edges run through pixel centers. Coordinates, sizes
    # and centers have few bits, so no step rounds: at a center on an edge both faces are found, and the lower id wins.
    middle, rim = [[0.0, 0, 0, 1]], [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    shift = 1.0 / 16.0
    clip = torch.tensor(middle + [[0.75 * x, 0.75 * y, 0.0, 1.0] for x, y in rim])
    clip[:, :2] += shift
    faces = torch.tensor([[0, 1 + i, 1 + (i + 1) % 8] for i in range(8)], dtype=torch.int32)
    different, ties = exact_differences(clip, faces, 16, 16)
    assert different == 0
    assert ties > 50  # the rim of 52 centers, the diagonals and the cross


def test_shared_edges_on_pixel_centers_with_perspective() -> None:
    # The same edges, but each vertex at its own w: coefficients round, so a center on an edge may go to either side.
    generator = torch.Generator().manual_seed(3)
    rim = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    clip = torch.tensor([[0.0, 0, 0.2, 1]] + [[x, y, 0.1, 1.0] for x, y in rim])
    clip = clip * (0.5 + torch.rand(9, 1, generator=generator))
    clip[:, :2] += clip[:, 3:] * 2.0**-3.0  # centers of 12 and of 16 pixels lie on the cross and the diagonals
    faces = torch.tensor([[0, 1 + i, 1 + (i + 1) % 8] for i in range(8)], dtype=torch.int32)
    for size in (12, 16):
        exact_differences(clip, faces, size, size)
        fragments = rasterize(clip[None], faces, size, size)
        assert (fragments.barycentrics >= 0).all()  # where rounding would put the center just outside as well
        seen = fragments.face_id[0]
        x = (torch.arange(size) + 0.5) * 2 / size - 1
        inside = ((x + 0.0 > -0.87) & (x < 1.0))[None] & ((-x > -0.87) & (-x < 1.0))[:, None]
        assert (seen[inside] >= 0).all()  # no holes along any edge


def test_faces_in_one_plane() -> None:
    # All of one plane that is not parallel to the image: depths differ by rounding alone wherever two overlap.
    generator = torch.Generator().manual_seed(1)
    clip = in_space(generator, 12, 0.7, 0.5, 2.0)
    clip[:, 2] = 0.3 * clip[:, 0] - 0.2 * clip[:, 1] + 0.1 * clip[:, 3]
    different, ties = exact_differences(*single_triangles(clip), 16, 16)
    assert ties > 40
    assert different <= ties


def test_equal_faces_show_the_lowest_id() -> None:
    generator = torch.Generator().manual_seed(2)
    clip = in_space(generator, 6, 0.7, 0.5, 2.0)
    faces = torch.arange(18, dtype=torch.int32).view(6, 3)
    alone = rasterize(clip[None], faces, 40, 40)
    doubled = rasterize(clip[None], torch.cat([faces, faces, faces.roll(1, 0)]), 40, 40)
    assert torch.equal(alone.face_id, doubled.face_id) and torch.equal(alone.w, doubled.w)


def test_a_closed_surface_around_the_camera_has_no_holes(solids) -> None:
    # Cameras inside the torus's tube and inside the other two: many faces have vertices behind them.
    for name, distance in (("torus", 0.56), ("sphere", 0.3), ("cube", 0.4)):
        scene = solids[name]
        cameras = Cameras.orbit([90.0, 270.0], 3.0, distance=distance, fov=130.0)
        clip = to_clip_space(scene.vertices, cameras.clip_matrix())
        behind = (clip[..., 3] < 0)[:, scene.faces.long()]
        assert (behind.any(dim=2) & ~behind.all(dim=2)).any(dim=1).all()
        assert (rasterize(clip, scene.faces, 96, 96).face_id >= 0).all(), name


def test_one_large_face_beside_the_camera() -> None:
    # A floor that reaches from far ahead to far behind: it fills the image up to the horizon.
    floor = torch.tensor([[-1e3, -1.0, 1e3], [1e3, -1.0, 1e3], [0.0, -1.0, -2e3]])
    near, far = 0.1, 1e4
    scale, offset = -(far + near) / (far - near), -2 * far * near / (far - near)
    matrix = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, scale, offset], [0, 0, -1, 0]])
    clip = to_clip_space(floor, matrix[None])
    fragments = rasterize(clip, torch.tensor([[0, 1, 2]], dtype=torch.int32), 64, 64)
    assert (fragments.face_id[0, :32] == -1).all() and (fragments.face_id[0, 33:] == 0).all()
    y = 1.0 - (torch.arange(33, 64) + 0.5) / 32.0
    torch.testing.assert_close(fragments.w[0, 33:, 10], -1.0 / y, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 1), (3, 200)])
def test_odd_images(height, width) -> None:
    clip, faces = random_triangles(torch.Generator().manual_seed(5))
    assert_equal(rasterize(clip[None], faces, height, width), 0, in_float64(clip.numpy(), faces.numpy(), height, width))


def test_broken_input_leaves_the_rest_as_it_is() -> None:
    clip, faces = random_triangles(torch.Generator().manual_seed(6))
    whole = rasterize(clip[None], faces, 32, 32)
    broken = clip.repeat(9, 1)
    for part, (column, value) in enumerate(
        [(0, np.nan), (1, np.inf), (2, -np.inf), (3, np.nan), (3, np.inf), (0, -np.inf), (2, np.nan), (2, np.inf)], 1
    ):
        broken[part * len(clip) : (part + 1) * len(clip) : 3, column] = value
    more = torch.arange(len(clip), len(broken), dtype=torch.int32).view(-1, 3)
    wrong = torch.tensor([[0, 1, 1], [2, 2, 2], [-1, 0, 1], [0, 1, len(broken)], [0, 1, 2**31 - 1]], dtype=torch.int32)
    broken.requires_grad_()
    mixed = rasterize(broken[None], torch.cat([faces, more, wrong]), 32, 32)
    assert torch.equal(whole.face_id, mixed.face_id)
    for values in (mixed.barycentrics, mixed.depth):
        assert values.isfinite().all()
    covered = mixed.face_id >= 0
    (mixed.barycentrics.square().sum() + mixed.depth.sum() + mixed.w[covered].sum()).backward()
    assert broken.grad.isfinite().all() and broken.grad[: len(clip)].any() and not broken.grad[len(clip) :].any()


def test_depths_that_overflow_are_not_drawn() -> None:
    # All coordinates are finite, but z/w of one vertex is not: the face ends where its depth leaves float32.
    clip = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 0.5, 2.9e38, 0.5]]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    fragments = rasterize(clip, faces, 64, 64)
    whole = rasterize(clip * torch.tensor([1.0, 1.0, 0.0, 1.0]), faces, 64, 64).face_id >= 0
    covered = fragments.face_id >= 0
    assert covered.any() and (covered <= whole).all() and covered.sum() < whole.sum()
    assert fragments.depth.isfinite().all() and (fragments.depth < 3e38).all()


@pytest.mark.parametrize("vertex_count", [0, 3])
def test_no_faces_no_vertices_no_views(vertex_count) -> None:
    for views in (0, 2):
        clip = torch.zeros(views, vertex_count, 4, requires_grad=True)
        for faces in (torch.zeros(0, 3, dtype=torch.int32), torch.tensor([[0, 1, 2]], dtype=torch.int32)):
            fragments = rasterize(clip, faces, 4, 5)
            assert fragments.face_id.shape == (views, 4, 5) and (fragments.face_id == -1).all()
            fragments.barycentrics.sum().backward()
