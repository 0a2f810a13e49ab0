"""Materials between arrays and tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.rendering import Material
from backend.representations.material_tensors import to_arrays, to_tensors
from backend.representations.mesh_data import MaterialData


def test_a_material_of_textures_comes_back_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    color, emission = (random.random((4, 6, 3), dtype=np.float32) for _ in range(2))
    metallic, roughness = random.random((4, 6), dtype=np.float32), random.random((3, 1), dtype=np.float32)
    normal = np.tile(np.array([0.0, 0.6, 0.8], dtype=np.float32), (2, 2, 1))
    tensors = to_tensors(MaterialData(color, metallic, roughness, normal, emission, "shell"))
    assert tensors.metallic.shape == (4, 6, 1) and tensors.roughness.shape == (3, 1, 1)
    back = to_arrays(tensors, "shell")
    assert back.name == "shell"
    for name, given in (("base_color", color), ("metallic", metallic), ("roughness", roughness), ("emission", emission)):
        np.testing.assert_array_equal(getattr(back, name), given)
    np.testing.assert_allclose(back.normal, normal, atol=1e-6)
    color[0, 0] = 0.0
    assert float(tensors.base_color[0, 0].max()) > 0.0, "tensors are copies"


def test_a_material_of_single_values_comes_back() -> None:
    back = to_arrays(to_tensors(MaterialData(np.array([0.1, 0.2, 0.3], dtype=np.float32), 0.25, 0.75)))
    np.testing.assert_array_equal(back.base_color, np.array([0.1, 0.2, 0.3], dtype=np.float32))
    assert (back.metallic, back.roughness, back.normal, back.emission) == (0.25, 0.75, None, None)


def test_values_that_an_optimizer_left_outside_are_brought_back() -> None:
    normal = torch.tensor([0.0, 3.0, 4.0]).expand(2, 2, 3)
    given = Material(torch.tensor([1.5, -0.2, 0.5], requires_grad=True), torch.tensor([-1.0]), torch.tensor([2.0]), normal)
    stored = to_arrays(given)
    np.testing.assert_array_equal(stored.base_color, np.array([1.0, 0.0, 0.5], dtype=np.float32))
    assert (stored.metallic, stored.roughness) == (0.0, 1.0)
    np.testing.assert_allclose(stored.normal[1, 1], [0.0, 0.6, 0.8], atol=1e-6)


def test_values_of_vertices_cannot_be_stored() -> None:
    with pytest.raises(InputError, match="base_color has one value a vertex; bake it to a texture"):
        to_arrays(Material(torch.rand(5, 3), torch.zeros(1), torch.ones(1)))
