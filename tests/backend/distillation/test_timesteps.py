"""The draws of one step: ranges, uniformity, one t for all views, noise of its own for each, repeatable."""

import pytest
import torch

from backend.distillation.timesteps import sample_noise, sample_timestep
from backend.errors import InputError


def draws(t_min: float, t_max: float, count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([sample_timestep(1000, t_min, t_max, generator) for _ in range(count)])


def test_both_ends_are_reached_and_none_passed() -> None:
    t = draws(0.5, 0.52)
    assert (t.min(), t.max()) == (500, 520)
    assert t.unique().numel() == 21


def test_draws_are_uniform() -> None:
    counts = torch.histc(draws(0.02, 0.98).double(), bins=8, min=20, max=980)
    # 500 expected in each bin, deviation about 21.
    assert ((counts - 500).abs() < 90).all()


def test_the_whole_schedule_stays_inside_it() -> None:
    t = draws(0.0, 1.0, 20_000)
    assert (t.min(), t.max()) == (0, 999)


def test_one_t_for_all_views_and_independent_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    t = sample_timestep(1000, 0.02, 0.98, generator)
    assert t.shape == () and t.dtype == torch.int64
    noise = sample_noise(torch.zeros(4, 3, 64, 64), generator)
    correlations = torch.corrcoef(noise.flatten(1))
    # 12288 elements: a deviation of .009 around zero.
    assert (correlations - torch.eye(4)).abs().max() < 0.05


def test_a_seed_repeats_them() -> None:
    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        return sample_timestep(1000, 0.02, 0.98, generator), sample_noise(torch.zeros(2, 3, 4, 4), generator)

    (t, noise), (t_again, noise_again) = draw(), draw()
    assert torch.equal(t, t_again) and torch.equal(noise, noise_again)


@pytest.mark.parametrize(("t_min", "t_max"), [(0.6, 0.5), (-0.1, 0.5), (0.1, 1.5), (float("nan"), 0.5)])
def test_a_range_that_is_none_is_refused(t_min: float, t_max: float) -> None:
    with pytest.raises(InputError, match="t_min"):
        sample_timestep(1000, t_min, t_max, torch.Generator())
