"""Classifier-free guidance and its rescale, against what they are defined to do."""

import pytest
import torch

from backend.distillation.guidance import contrast_ratio, guide, rescale

GENERATOR = torch.Generator().manual_seed(3)
TEXT = torch.randn(8, 3, 6, 6, generator=GENERATOR, dtype=torch.float64)
UNCONDITIONAL = torch.randn(8, 3, 6, 6, generator=GENERATOR, dtype=torch.float64)


def test_scale_counts_from_the_unconditional_prediction() -> None:
    """Scale 0 and 1 tell the right formula from `text + s (text - unconditional)`, whose scale 0 is already text."""
    torch.testing.assert_close(guide(TEXT, UNCONDITIONAL, 0.0), UNCONDITIONAL)
    torch.testing.assert_close(guide(TEXT, UNCONDITIONAL, 1.0), TEXT)
    torch.testing.assert_close(guide(TEXT, UNCONDITIONAL, 7.5), 7.5 * TEXT - 6.5 * UNCONDITIONAL)


def test_rescale_brings_the_contrast_of_each_group_back() -> None:
    guided = 6 * TEXT - 5 * UNCONDITIONAL
    for views in (1, 4):
        rescaled = rescale(TEXT, guided, 1.0, views)
        for group in range(8 // views):
            part = slice(group * views, (group + 1) * views)
            assert rescaled[part].std().item() == pytest.approx(TEXT[part].std().item())
            assert guided[part].std().item() > 5 * TEXT[part].std().item()


def test_rescale_uses_one_factor_for_a_whole_group() -> None:
    guided = TEXT * torch.arange(1, 9)[:, None, None, None]
    ratio = contrast_ratio(TEXT, guided, 4).flatten()
    assert ratio[:4].unique().numel() == 1 and ratio[4:].unique().numel() == 1 and ratio[0] != ratio[4]
    per_view = contrast_ratio(TEXT, guided, 1).flatten()
    torch.testing.assert_close(per_view, 1 / torch.arange(1, 9, dtype=torch.float64))


def test_rescale_blends() -> None:
    guided = 6 * TEXT - 5 * UNCONDITIONAL
    assert torch.equal(rescale(TEXT, guided, 0.0, 4), guided)
    halfway = (rescale(TEXT, guided, 1.0, 4) + guided) / 2
    torch.testing.assert_close(rescale(TEXT, guided, 0.5, 4), halfway)


def test_rescale_of_a_flat_image_stays_finite() -> None:
    flat = torch.full((4, 3, 6, 6), 0.5)
    assert rescale(flat, flat, 1.0, 4).isfinite().all()
