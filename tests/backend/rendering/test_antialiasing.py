"""Edge-driven antialiasing in scenes whose answer is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import antialias, build_topology, rasterize, reference, to_clip_space

SIZE = 16
CENTERS = (torch.arange(SIZE) + 0.5) * (2.0 / SIZE) - 1.0


def quads(*sides: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Upright strips over the whole height, each from left to right at a depth: clip `[1, 4 n, 4]` with w = 1, faces."""
    points, faces = [], []
    for left, right, depth in sides:
        first = len(points)
        points += [(left, -1.1), (right, -1.1), (right, 1.1), (left, 1.1)]
        points[first:] = [(*point, depth, 1.0) for point in points[first:]]
        faces += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
    return torch.tensor(points)[None], torch.tensor(faces, dtype=torch.int32)


def antialiased_mask(clip: Tensor, faces: Tensor) -> Tensor:
    fragments = rasterize(clip, faces, SIZE, SIZE)
    mask = (fragments.face_id >= 0).float()[..., None]
    return antialias(mask, fragments, clip, faces, build_topology(faces))[0, ..., 0]


def test_coverage_is_the_area_of_the_pixel_that_is_covered() -> None:
    for right in torch.linspace(0.3, 0.45, 7).tolist():
        clip, faces = quads((-2.0, right, 0.0))
        covered = ((right - CENTERS) * (SIZE / 2) + 0.5).clamp(0, 1)
        torch.testing.assert_close(antialiased_mask(clip, faces), covered.expand(SIZE, SIZE), atol=1e-5, rtol=0)


@pytest.mark.parametrize("back_right", [0.36, 0.34])
def test_of_two_edges_in_one_pair_the_outer_one_is_seen(back_right) -> None:
    """The near strip ends at .35; the one behind it ends beyond or before, within the same pair of pixels."""
    clip, faces = quads((-2.0, 0.35, 0.0), (-2.0, back_right, 0.5))
    clip.requires_grad_()
    antialiased_mask(clip, faces).sum().backward()
    pulled = clip.grad[0, :, 0].view(2, 4).sum(1)
    expected = torch.tensor([0.0, 1.0] if back_right > 0.35 else [1.0, 0.0]) * SIZE * SIZE / 2
    torch.testing.assert_close(pulled, expected, atol=1e-3, rtol=0)


def test_an_edge_of_the_other_direction_hides_what_lies_behind_it() -> None:
    """A flat edge, slightly turned, crosses pairs of rows; a steep edge behind its surface gets nothing."""
    clip, faces = quads((-2.0, 0.35, 0.5))
    front = torch.tensor([[-2.0, -2.0, 0, 1], [2.0, -2.0, 0, 1], [2.0, 0.4, 0, 1], [-2.0, 0.1, 0, 1]])
    clip = torch.cat([clip, front[None]], dim=1).requires_grad_()
    faces = torch.cat([faces, faces[:2] + 4])
    fragments = rasterize(clip, faces, SIZE, SIZE)
    back_rows = (fragments.face_id[0] < 2).any(dim=1)
    result = antialiased_mask(clip, faces)
    result[~back_rows].sum().backward()
    assert float(clip.grad[0, :4].abs().max()) == 0.0


def test_the_gradient_takes_the_color_at_the_edge() -> None:
    """A strip whose color rises to the right: where its right edge moves, what appears is the color there."""
    for right in torch.linspace(0.3, 0.45, 7).tolist():
        clip, faces = quads((-2.0, right, 0.0))
        clip.requires_grad_()
        fragments = rasterize(clip, faces, SIZE, SIZE)
        covered = fragments.face_id >= 0
        image = torch.where(covered, 1.0 + 3.0 * CENTERS, 0.5)[..., None]
        antialias(image, fragments, clip, faces, build_topology(faces)).sum().backward()
        expected = (1.0 + 3.0 * right - 0.5) * SIZE * SIZE / 2
        assert float(clip.grad[0, 1:3, 0].sum()) == pytest.approx(expected, rel=1e-4)


def test_a_box_seen_exactly_from_the_front_keeps_its_outline() -> None:
    """In parallel projection four of its sides are exactly edge-on."""
    half = 0.53
    corners = torch.tensor([[x, y, z] for x in (-half, half) for y in (-half, half) for z in (-half, half)])
    clip = torch.cat([corners, torch.ones(8, 1)], dim=1)[None]
    faces = torch.tensor(
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
        + [[1, 5, 7], [1, 7, 3]],
        dtype=torch.int32,
    )
    covered = ((half - CENTERS.abs()) * (SIZE / 2) + 0.5).clamp(0, 1)
    alpha = antialiased_mask(clip, faces)
    middle = slice(SIZE // 4, 3 * SIZE // 4)
    torch.testing.assert_close(alpha[middle], covered.expand(SIZE // 2, SIZE), atol=1e-5, rtol=0)
    torch.testing.assert_close(alpha[:, middle], covered[:, None].expand(SIZE, SIZE // 2), atol=1e-5, rtol=0)


def test_faces_without_area_inside_a_surface_are_no_silhouettes() -> None:
    clip, faces = quads((-2.0, 2.0, 0.0))
    middle = 0.5 * (clip[:, 0] + clip[:, 2])
    clip = torch.cat([clip, middle[:, None]], dim=1).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 4, 2], [0, 4, 3], [4, 2, 3]], dtype=torch.int32)
    fragments = rasterize(clip, faces, SIZE, SIZE)
    image = torch.rand(1, SIZE, SIZE, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(antialias(image, fragments, clip, faces, build_topology(faces)), image)


@pytest.mark.parametrize("seed", range(3))
def test_edges_that_cross_the_near_plane(seed) -> None:
    """A long wedge that begins behind the camera: gradients of its outline by finite differences, kernel by its twin."""
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.tensor([[-0.5, -0.9, 5.0], [0.6, -0.8, 4.0], [0.1, -0.2, -1.0]])
    vertices = vertices + 0.1 * torch.randn(3, 3, generator=generator)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    clip = to_clip_space(vertices, Cameras.orbit([0.0], 0.0).clip_matrix())
    assert (clip[..., 3] < 0).sum() == 2
    topology = build_topology(faces)
    face_id, _, _, w = reference.rasterize(clip.double(), faces, SIZE, SIZE)
    covered = face_id >= 0
    assert 5 < covered.sum() < SIZE * SIZE / 2
    image = torch.rand(1, SIZE, SIZE, 1, generator=generator).double()
    image[covered] = 0.7

    def smooth(clip: Tensor) -> Tensor:
        return reference.antialias(image, clip, face_id, w, topology.edges, topology.opposite)

    exact = clip.double().requires_grad_()
    assert torch.autograd.gradcheck(smooth, [exact], fast_mode=True)
    weight = torch.randn(1, SIZE, SIZE, 1, generator=generator)
    (expected,) = torch.autograd.grad((smooth(exact) * weight).sum(), exact)
    assert float(expected.abs().max()) > 0
    place = clip.requires_grad_()
    result = kernels.antialias(image.float(), place, face_id, w.float(), topology.edges, topology.opposite)
    (actual,) = torch.autograd.grad((result * weight).sum(), place)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_vertices_that_are_not_finite_take_their_edges_away() -> None:
    clip, faces = quads((-2.0, 0.35, 0.0), (-0.5, 0.5, -0.5))
    clip[0, 5] = torch.nan
    clip.requires_grad_()
    result = antialiased_mask(clip, faces)
    assert bool(result.isfinite().all())
    result.sum().backward()
    assert bool(clip.grad.isfinite().all()) and float(clip.grad[0, :4].abs().max()) > 0


def test_several_meshes_in_a_batch_are_antialiased_as_each_by_itself(solids) -> None:
    """Concatenated vertices and faces, a range for each view; the meshes overlap in space, and one is shown in part."""
    parts = [solids["sphere"], solids["torus"]]
    cameras = Cameras.orbit([20.0, 20.0, 20.0], 30.0).clip_matrix()
    vertices = torch.cat([part.vertices for part in parts])
    split = len(parts[0].vertices), len(parts[0].faces)
    faces = torch.cat([parts[0].faces, parts[1].faces + split[0]])
    ranges = torch.tensor([[0, split[1]], [split[1], len(parts[1].faces)], [split[1], len(parts[1].faces) // 2]])

    def drawn(clip: Tensor, shown: Tensor, ranges: Tensor | None) -> Tensor:
        fragments = rasterize(clip, shown, 48, 48, ranges=ranges)
        image = torch.cat([fragments.barycentrics, (fragments.face_id >= 0).float()[..., None]], dim=-1).detach()
        return antialias(image, fragments, clip, shown, build_topology(shown))

    together = to_clip_space(vertices, cameras).requires_grad_()
    images = drawn(together, faces, ranges.int())
    weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    (images * weights).sum().backward()
    for view, (first, count) in enumerate(ranges.tolist()):
        alone = to_clip_space(vertices, cameras[view : view + 1]).requires_grad_()
        image = drawn(alone, faces[first : first + count].contiguous(), None)
        torch.testing.assert_close(images[view], image[0], rtol=0, atol=1e-6)
        (image[0] * weights[view]).sum().backward()
        torch.testing.assert_close(together.grad[view], alone.grad[0], rtol=1e-5, atol=1e-5)
