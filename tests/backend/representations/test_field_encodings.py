"""Each encoding against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.representations.field_encodings import (
    FEATURE_GAIN,
    FrequencyEncoding,
    HashGridEncoding,
    TriPlaneEncoding,
    spherical_harmonics,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tri_plane_sums_what_the_three_planes_hold():
    encoding = TriPlaneEncoding(5, generator())
    axis = torch.linspace(-1.0, 1.0, 5)
    x, y, z = 3, 1, 4
    seen = encoding(torch.tensor([[axis[x], axis[y], axis[z]]]))[0]
    planes = encoding.planes
    torch.testing.assert_close(seen, FEATURE_GAIN * (planes[0, :, y, x] + planes[1, :, z, x] + planes[2, :, z, y]))
    halfway = encoding(torch.tensor([[0.5 * (axis[x] + axis[x - 1]), axis[y], axis[z]]]))[0]
    beside = encoding(torch.tensor([[axis[x - 1], axis[y], axis[z]]]))[0]
    torch.testing.assert_close(halfway, 0.5 * (seen + beside))


def test_frequencies_double_up_to_a_wave_of_four_cells():
    encoding = FrequencyEncoding(64)
    point = torch.tensor([[0.3, -0.7, 0.1]])
    seen = encoding(point)[0].detach().numpy()
    assert encoding.width == 3 + 36 == len(seen)
    angles = np.array([[value * 0.5 * math.pi * 2.0**k for k in range(6)] for value in point[0].tolist()]).ravel()
    np.testing.assert_allclose(seen, np.concatenate([point[0].numpy(), np.sin(angles), np.cos(angles)]), atol=1e-5)
    assert 2.0 * math.pi / float(encoding.scales[-1]) == pytest.approx(4.0 * 2.0 / 64)


def test_a_step_of_the_table_adds_the_same_slope_on_every_level():
    encoding = HashGridEncoding(64, generator())
    slopes = encoding.gains.view(-1, 4)[:, 0] * encoding.layout[:, 0]
    torch.testing.assert_close(slopes, torch.full_like(slopes, float(slopes[0])))
    assert encoding.layout[0, 0] == 8 and encoding.layout[-1, 0] == 64
    assert encoding(torch.zeros(7, 3)).shape == (7, encoding.width)


def test_spherical_harmonics_are_orthonormal_and_have_no_mean():
    count = 20000
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height, turn = 1.0 - 2.0 * index / count, index * math.pi * (3.0 - math.sqrt(5.0))
    width = (1.0 - height * height).sqrt()
    values = spherical_harmonics(torch.stack([width * turn.cos(), height, width * turn.sin()], dim=1))
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(8, dtype=torch.float64), atol=1e-5, rtol=0.0)
    products = 4.0 * math.pi * values.T @ values / count
    torch.testing.assert_close(products, torch.eye(8, dtype=torch.float64), atol=1e-3, rtol=0.0)
