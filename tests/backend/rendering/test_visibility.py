"""What each pixel sees, against brute force in float64, closed forms and awkward input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.errors import InputError
from backend.rendering import build_topology, rasterize, render_mesh, to_clip_space


def brute_force(clip: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face per pixel by barycentrics in screen space, and where that answer is not in doubt; both `[H, W]`."""
    ndc = clip[:, :3].astype(np.float64) / clip[:, 3:].astype(np.float64)
    centers = (np.arange(size) + 0.5) * 2.0 / size - 1.0
    x, y = np.meshgrid(centers, -centers)
    depths = np.full((len(faces), size, size), np.inf)
    certain = np.ones((size, size), dtype=bool)
    for index, (a, b, c) in enumerate(ndc[faces]):
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        weight_b = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        weight_c = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        lowest = np.minimum(np.minimum(weight_b, weight_c), 1.0 - weight_b - weight_c)
        depth = a[2] + weight_b * (b[2] - a[2]) + weight_c * (c[2] - a[2])  # z/w is linear on the screen
        depths[index] = np.where(lowest >= 0.0, depth, np.inf)
        certain &= np.abs(lowest) > 1e-4
    ordered = np.sort(depths, axis=0)
    with np.errstate(invalid="ignore"):
        certain &= ~(ordered[1] - ordered[0] < 1e-5)
    return np.where(np.isfinite(ordered[0]), depths.argmin(axis=0), -1), certain


@pytest.mark.parametrize("seed", range(4))
def test_visible_faces_are_those_of_a_float64_brute_force(triangle_soup, seed) -> None:
    scene = triangle_soup(seed)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    fragments = rasterize(clip, scene.faces, 56, 56)
    for view in range(len(clip)):
        expected, certain = brute_force(clip[view].numpy(), scene.faces.numpy(), 56)
        seen = fragments.face_id[view].numpy()
        assert certain.mean() > 0.9
        assert (seen[certain] == expected[certain]).all()
        assert (expected >= 0).mean() > 0.2


@pytest.mark.parametrize("room_for", [0, 3, 100_000], ids=["no queue", "queue overflows", "queue suffices"])
def test_the_queue_for_large_faces_changes_nothing(triangle_soup, monkeypatch, room_for) -> None:
    visibility = pytest.importorskip("backend.rendering.kernels.visibility", reason="Warp has no build here")
    scene = triangle_soup(0)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    alone = rasterize(clip, scene.faces, 150, 170)
    drained = []
    launch = visibility.launch

    def spy(kernel, count, arguments) -> None:
        launch(kernel, count, arguments)
        if kernel is visibility.draw_queued_blocks:
            drained.append(int(arguments[2]))

    monkeypatch.setattr(visibility, "launch", spy)
    monkeypatch.setattr(visibility, "DRAINING_THREADS", 256)
    monkeypatch.setattr(visibility, "_queue_sizes", lambda *_: (visibility.INLINE_PIXELS, room_for))  # as on a GPU
    queued = rasterize(clip, scene.faces, 150, 170)
    assert drained == [] if room_for == 0 else drained[0] > 60
    for name in ("face_id", "barycentrics", "depth", "w"):
        assert torch.equal(getattr(alone, name), getattr(queued, name))


def test_watertight_grid_has_no_holes() -> None:
    # A plane larger than the image, of many small and irregular triangles that share all their edges.
    generator = torch.Generator().manual_seed(0)
    side = 40
    steps = torch.linspace(-1.6, 1.6, side)
    x, y = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack([x, y], dim=-1) + 0.03 * torch.randn(side, side, 2, generator=generator)
    depth = 0.5 * torch.rand(side, side, 1, generator=generator)
    vertices = torch.cat([grid, depth], dim=-1).view(-1, 3)
    corner = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).reshape(-1)
    lower = torch.stack([corner, corner + side, corner + 1], dim=1)
    upper = torch.stack([corner + 1, corner + side, corner + side + 1], dim=1)
    faces = torch.cat([lower, upper]).int()
    faces = faces[torch.randperm(len(faces), generator=generator)]
    faces = torch.stack([f.roll(int(k)) for f, k in zip(faces, torch.randint(3, (len(faces),), generator=generator))])
    # Pixel centers fall exactly on vertices and edges in the second case.
    for angle, shift in ((0.3, 0.01), (0.0, 0.0)):
        turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turned = vertices @ turn.float() + shift
        clip = torch.cat([turned, 1.0 + 0.3 * turned[:, 2:]], dim=1)[None]
        assert (rasterize(clip.contiguous(), faces, 128, 128).face_id >= 0).all()


def test_centers_exactly_on_shared_edges_are_covered() -> None:
    # Two triangles make a square whose diagonal runs through pixel centers.
    clip = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    face_id = rasterize(clip, faces, 16, 16).face_id[0]
    assert (face_id >= 0).all()
    assert face_id[12, 12] == 0 and face_id[14, 13] == 0 and face_id[1, 0] == 1


def test_row_zero_is_on_top_and_column_zero_on_the_left() -> None:
    clip = torch.tensor([[[-1.0, 1, 0, 1], [-0.5, 1, 0, 1], [-1, 0.5, 0, 1]]])
    face_id = rasterize(clip, torch.tensor([[0, 1, 2]], dtype=torch.int32), 8, 8).face_id[0]
    assert face_id[0, 0] == 0 and (face_id >= 0).sum() <= 3


def test_barycentrics_depth_and_w_are_perspective_correct() -> None:
    # A steep plane: the hit of each pixel's ray in closed form gives the barycentrics.
    corners = torch.tensor([[-2.0, -1.0, 0.9], [2.0, -1.0, 0.9], [0.0, 1.5, -1.5]])
    camera = Cameras.orbit([0.0], 0.0)
    clip = to_clip_space(corners, camera.clip_matrix())
    fragments = rasterize(clip, torch.tensor([[0, 1, 2]], dtype=torch.int32), 48, 48)
    origins, directions = (part.double().reshape(-1, 3) for part in camera.rays(48, 48))
    a, b, c = corners.double()
    normal = torch.linalg.cross(b - a, c - a)
    distance = ((a - origins) @ normal) / (directions @ normal)
    hits = origins + distance[:, None] * directions
    weights = torch.linalg.solve(torch.stack([a, b, c], dim=1), hits.T).T
    covered = (fragments.face_id >= 0).reshape(-1)
    assert 300 < covered.sum() < 48 * 48
    assert (weights[covered] > -1e-4).all()
    torch.testing.assert_close(
        fragments.barycentrics.reshape(-1, 3)[covered].double(), weights[covered], atol=2e-5, rtol=0
    )
    along_axis = 3.0 - hits[covered][:, 2]
    torch.testing.assert_close(fragments.w.reshape(-1)[covered].double(), along_axis, atol=2e-5, rtol=0)
    clip_z = clip[0].double()[:, 2]
    depth = (weights[covered] @ clip_z) / along_axis
    torch.testing.assert_close(fragments.depth.reshape(-1)[covered].double(), depth, atol=2e-6, rtol=0)


def test_faces_that_cannot_be_drawn_are_left_out() -> None:
    square = [[-1.0, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1]]
    awkward = {
        "nearer than the near plane": [[-1.0, -1, -1.1, 1], [1, -1, -1.1, 1], [1, 1, -1.2, 1]],
        "behind the camera": [[-1.0, -1, 0, -1], [1, -1, 0.5, -1], [1, 1, 0, -1]],
        "w of zero": [[-1.0, -1, 0, 0], [1, -1, 0, 0], [1, 1, 0, 0]],
        "not a number": [[-1.0, -1, 0, 1], [float("nan"), -1, 0, 1], [1, 1, 0, 1]],
        "infinite": [[-1.0, -1, 0, 1], [float("inf"), -1, 0, 1], [1, 1, 0, 1]],
        "no area": [[-1.0, -1, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1]],
    }
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    assert (rasterize(torch.tensor([square]), faces, 16, 16).face_id >= 0).any()
    for what, clip in awkward.items():
        fragments = rasterize(torch.tensor([clip]), faces, 15, 15)
        if what != "no area":  # its line may go through centers, but then with finite barycentrics
            assert (fragments.face_id == -1).all(), what
        assert fragments.barycentrics.isfinite().all(), what
    for wrong in ([[0, 1, 3]], [[-1, 1, 2]], [[0, 1, 1]]):
        face_id = rasterize(torch.tensor([square]), torch.tensor(wrong, dtype=torch.int32), 16, 16).face_id
        assert (face_id == -1).all(), wrong


def test_huge_coordinates_and_triangles_beyond_the_image() -> None:
    clip = torch.tensor(
        [[[-1e30, -1e30, 0, 1], [1e30, -1e30, 0, 1], [0, 1e30, 0, 1], [5, 5, 0, 1], [6, 5, 0, 1], [5, 6, 0, 1]]]
    )
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32)
    assert (rasterize(clip, faces[1:], 16, 16).face_id == -1).all()
    assert rasterize(clip, faces, 16, 16).barycentrics.isfinite().all()


def test_nothing_to_draw() -> None:
    camera = Cameras.orbit([0.0, 90.0], 0.0)
    for vertex_count in (0, 5):
        vertices = torch.zeros(vertex_count, 3, requires_grad=True)
        faces = torch.zeros(0, 3, dtype=torch.int32)
        rendered = render_mesh(vertices, faces, None, camera, 8, supersample=2)
        assert (rendered.alpha == 0).all() and (rendered.rgb == 0).all() and rendered.depth.isinf().all()
        (rendered.rgb.sum() + rendered.alpha.sum()).backward()
        assert (vertices.grad == 0).all()


def test_degenerate_faces_leave_finite_images_and_gradients() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.25, 0, 0], [0.5, 0, 0]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [1, 4, 2], [2, 2, 2]], dtype=torch.int32)
    for shading in ("lit", "normal"):
        rendered = render_mesh(vertices, faces, None, Cameras.orbit([0.0, 33.0], 0.0), 32, shading=shading)
        assert rendered.rgb.isfinite().all() and (rendered.alpha > 0).any()
        rendered.rgb.square().sum().backward()
        assert vertices.grad.isfinite().all()


def test_wrong_input_is_named() -> None:
    clip, faces = torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int32)
    with pytest.raises(InputError, match=r"clip must be float32 of shape \[N, V, 4\]"):
        rasterize(clip[0], faces, 8, 8)
    with pytest.raises(InputError, match="faces must be int32"):
        rasterize(clip, faces.long(), 8, 8)
    with pytest.raises(InputError, match="0 x 8 pixels"):
        rasterize(clip, faces, 0, 8)
    with pytest.raises(InputError, match="smallest index is -1"):
        build_topology(faces - 1)
    with pytest.raises(InputError, match='shading is "shiny"'):
        render_mesh(torch.zeros(3, 3), faces, None, Cameras.orbit([0.0], 0.0), 8, shading="shiny")


def test_topology_finds_each_edge_once_with_both_neighbors() -> None:
    tetrahedron = torch.tensor([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]], dtype=torch.int32)
    topology = build_topology(tetrahedron)
    found = {tuple(edge): set(other) for edge, other in zip(topology.edges.tolist(), topology.opposite.tolist())}
    assert found == {(a, b): {0, 1, 2, 3} - {a, b} for a in range(4) for b in range(a + 1, 4)}
    single = build_topology(tetrahedron[:1])
    assert sorted(single.opposite.tolist()) == [[0, -1], [1, -1], [2, -1]]


def test_topology_leaves_a_third_face_at_an_edge_out() -> None:
    fan = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [5, 5, 0]], dtype=torch.int32)
    topology = build_topology(fan)
    opposite = dict(zip(map(tuple, topology.edges.tolist()), topology.opposite.tolist()))
    assert opposite[0, 1] == [2, 3] and len(opposite) == 7
