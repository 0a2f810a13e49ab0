"""How attributes change from pixel to pixel: against numerical differences, closed forms, and the twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.rendering import interpolate, rasterize, reference, screen_derivatives, to_clip_space
from tests.backend.rendering.brute_force import centers


@pytest.mark.parametrize("per_view", [False, True])
def test_derivatives_are_those_of_a_numerical_difference(triangle_soup, per_view) -> None:
    scene = triangle_soup(2)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    height, width = 30, 44
    fragments = rasterize(clip, scene.faces, height, width)
    generator = torch.Generator().manual_seed(0)
    attributes = torch.randn((3, 180, 5) if per_view else (180, 5), generator=generator)
    derivatives = screen_derivatives(attributes, fragments, clip, scene.faces).numpy()
    assert derivatives.shape == (3, height, width, 5, 2)
    step = 1e-4  # of a pixel
    for view in range(3):
        points = centers(height, width)
        values = attributes[view].double().numpy() if per_view else attributes.double().numpy()
        for index, face in enumerate(scene.faces.numpy()):
            here = fragments.face_id[view].numpy() == index
            solve = np.linalg.inv(clip[view].double().numpy()[face][:, [0, 1, 3]])
            for axis, pixel in enumerate(([2.0 / width, 0.0, 0.0], [0.0, -2.0 / height, 0.0])):
                sides = []
                for sign in (1, -1):
                    weights = (points[here] + sign * step * np.array(pixel)) @ solve
                    sides.append(weights / weights.sum(axis=-1, keepdims=True) @ values[face])
                expected = (sides[0] - sides[1]) / (2 * step)
                scale = 1e-5 + np.abs(expected).max(initial=0.0)
                assert np.abs(derivatives[view, ..., axis][here] - expected).max(initial=0.0) < 2e-4 * scale
    background = fragments.face_id.numpy() < 0
    assert background.any() and (derivatives[background] == 0).all()


def test_derivatives_on_a_plane_parallel_to_the_image_are_constant() -> None:
    # u grows by one across the image and v downward: 1 / 20 a column, 1 / 10 a row.
    clip = torch.tensor([[[-1.0, 1, 0, 1], [1, 1, 0, 1], [1, -1, 0, 1], [-1, -1, 0, 1]]]) * 2.5
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    fragments = rasterize(clip, faces, 10, 20)
    found = screen_derivatives(uvs, fragments, clip, faces)
    torch.testing.assert_close(found, torch.tensor([[0.05, 0.0], [0.0, 0.1]]).expand(1, 10, 20, 2, 2))
    uv = interpolate(uvs, fragments, faces)
    torch.testing.assert_close(uv[:, :, 1:] - uv[:, :, :-1], found[:, :, 1:, :, 0])
    torch.testing.assert_close(uv[:, 1:] - uv[:, :-1], found[:, 1:, :, :, 1])


def test_kernel_equals_twin_with_faces_of_its_own(triangle_soup) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    scene = triangle_soup(1)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    clip[0] = clip[0] * torch.linspace(-0.5, 1.0, 180)[:, None]  # some behind the camera
    fragments = rasterize(clip, scene.faces, 40, 33)
    generator = torch.Generator().manual_seed(1)
    uvs = torch.rand(23, 2, generator=generator)
    uv_faces = torch.randint(23, (60, 3), generator=generator, dtype=torch.int32)
    uv_faces[5, 2], uv_faces[9, 0] = 23, -4  # rows that point nowhere
    results = [
        room.screen_derivatives(uvs, fragments.face_id, clip, scene.faces, uv_faces) for room in (kernels, reference)
    ]
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)
    nowhere = (fragments.face_id == 5) | (fragments.face_id == 9)
    assert nowhere.any() and (results[0][nowhere] == 0).all()
    assert not screen_derivatives(uvs.requires_grad_(), fragments, clip, scene.faces, uv_faces).requires_grad


def test_wrong_input_is_named() -> None:
    clip, faces = torch.zeros(2, 3, 4), torch.zeros(1, 3, dtype=torch.int32)
    fragments = rasterize(clip, faces, 4, 4)
    with pytest.raises(InputError, match="attributes must be float32"):
        screen_derivatives(torch.zeros(3), fragments, clip, faces)
    with pytest.raises(InputError, match=r"clip must be float32 of shape \[2, V, 4\]"):
        screen_derivatives(torch.zeros(3, 2), fragments, clip[:1], faces)
    with pytest.raises(InputError, match="attribute_faces holds 2 faces, but faces 1"):
        screen_derivatives(torch.zeros(3, 2), fragments, clip, faces, faces.repeat(2, 1))
    with pytest.raises(InputError, match="no channels"):
        interpolate(torch.zeros(3, 0), fragments, faces)
    with pytest.raises(InputError, match="faces must be int32"):
        interpolate(torch.zeros(3, 2), fragments, faces.long())
    with pytest.raises(InputError, match="hold 3 views, but 2 were rasterized"):
        interpolate(torch.zeros(3, 3, 2), fragments, faces)
    with pytest.raises(InputError, match=r"ranges must be int32 of shape \[2, 2\]"):
        rasterize(clip, faces, 4, 4, ranges=torch.zeros(1, 2, dtype=torch.int32))
    for bad in ([0, 2], [1, 1], [-1, 1], [0, -1]):
        with pytest.raises(InputError, match="in view 1, but there are 1 faces"):
            rasterize(clip, faces, 4, 4, ranges=torch.tensor([[0, 1], bad], dtype=torch.int32))
