"""The words for a view, at the borders between views and beyond a full turn."""

import torch

from backend.priors.view_prompts import VIEWS, view_index, view_prompts


def views(azimuths: list[float], elevation: float = 10.0) -> list[str]:
    azimuth = torch.tensor(azimuths)
    return [VIEWS[i] for i in view_index(azimuth, torch.full_like(azimuth, elevation)).tolist()]


def test_front_and_back_reach_45_degrees_to_both_sides() -> None:
    assert views([0, 44, -44, 316, 360, 404]) == ["front"] * 6
    assert views([46, 90, 134, -46, 226, 270, 314, 450]) == ["side"] * 8
    assert views([136, 180, -180, -136, 224, 540]) == ["back"] * 6


def test_overhead_wins_above_60_degrees() -> None:
    assert views([0, 90, 180], 61.0) == ["overhead"] * 3
    assert views([0, 90, 180], 59.0) == ["front", "side", "back"]


def test_each_view_has_its_words() -> None:
    assert view_prompts("a red mug") == (
        "a red mug, front view",
        "a red mug, side view",
        "a red mug, back view",
        "a red mug, overhead view",
    )
