"""Reference pictures are cut out and framed as promised, and what cannot be is refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.errors import InputError
from backend.optimize.cut_out import cut_out
from backend.optimize.inputs import Picture
from backend.optimize.reference_pictures import (
    FILL,
    Window,
    at_size,
    bind_prior,
    prepare_picture,
    prepare_pictures,
    resample,
    resample_known,
)
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import render_mesh
from backend.representations.primitives import icosphere
from protocol.settings import JobSettings, MeshStage, ReferenceSettings

KEEP = ReferenceSettings(framing="keep")


def disk(height: int, width: int, at: tuple[float, float], radius: float, color: tuple[int, int, int] = (200, 30, 60)) -> np.ndarray:
    """A colored disk around (x, y) with a soft edge, transparent green elsewhere."""
    y, x = np.mgrid[:height, :width] + 0.5
    alpha = (radius + 0.5 - np.hypot(x - at[0], y - at[1])).clip(0, 1)
    colors = np.where(alpha[..., None] > 0, np.array(color), (0, 255, 0))
    return np.concatenate([colors, np.rint(255 * alpha)[..., None]], axis=2).astype(np.uint8)


def over(pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The same picture without transparency."""
    alpha = pixels[..., 3:] / 255.0
    mixed = pixels[..., :3] * alpha + background * (1 - alpha)
    return np.concatenate([np.rint(mixed), np.full_like(alpha, 255)], axis=2).clip(0, 255).astype(np.uint8)


def box(inside: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def test_resampling_is_the_mean_over_areas() -> None:
    """Against pixels cut into 12 x 12 pieces, of which each belongs to one square of the result."""
    image = np.random.default_rng(0).random((6, 5, 2))
    fine = np.pad(image, ((0, 3), (2, 2), (0, 0))).repeat(12, 0).repeat(12, 1)  # from (-2, 0) on
    window, side = Window(-1.5, 0.5, 7.0), 4
    part = fine[6 : 6 + 84, 6 : 6 + 84]
    expected = part.reshape(side, 21, side, 21, 2).mean((1, 3))
    assert np.allclose(resample(image, window, side), expected)


def test_gaps_of_a_map_do_not_count() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0]], np.float32)[..., None].repeat(2, 0).repeat(2, 1)
    halves = resample_known(values, Window.around(4, 4), 2)[..., 0]
    assert np.array_equal(halves, [[1.0, np.nan], [3.0, 5.0]], equal_nan=True)
    assert resample_known(values, Window.around(4, 4), 1).item() == pytest.approx(3.0)


@pytest.mark.parametrize(("size", "at", "radius"), [((90, 200), (50.0, 40.0), 20.3), ((700, 500), (310.0, 400.0), 180.0), ((40, 40), (9.0, 30.0), 8.0)])
def test_fitting_centers_and_scales_the_object(size: tuple[int, int], at: tuple[float, float], radius: float) -> None:
    framed = prepare_picture(Picture(disk(*size, at, radius)), ReferenceSettings()).pixels
    side = len(framed)
    assert framed.shape == (side, side, 4) and 64 <= side <= 512
    top, bottom, left, right = box(framed[..., 3] >= 128)
    tolerance = 1.5 * max(1.0, side * FILL / (2 * radius))  # a pixel of the one or of the other
    assert abs((top + bottom) / 2 - side / 2) <= tolerance and abs((left + right) / 2 - side / 2) <= tolerance
    assert abs((bottom - top) / side - FILL) <= 2 * tolerance / side
    seen = framed[framed[..., 3] > 0]
    assert (np.abs(seen[:, :3].astype(int) - (200, 30, 60)) <= 2).all(), "none of the green that nobody sees"


def test_framing_again_changes_nothing() -> None:
    once = prepare_picture(Picture(disk(300, 200, (90.0, 140.0), 61.0)), ReferenceSettings())
    twice = prepare_picture(once, ReferenceSettings())
    assert abs(len(once.pixels) - len(twice.pixels)) <= 2
    first, second = (at_size(each, 64).astype(int) for each in (once, twice))
    # The object's box is known to a pixel of the framed picture: a disk that is moved by one changes by this much.
    radius, moved = 64 * FILL / 2, 64 / len(once.pixels)
    assert np.abs(first - second)[..., 3].mean() < 255 * (4 * radius * moved) / 64**2


def test_keeping_pads_to_a_square() -> None:
    pixels = disk(80, 120, (30.0, 50.0), 20.0)
    framed = prepare_picture(Picture(pixels), KEEP).pixels
    assert framed.shape == (120, 120, 4)
    assert np.array_equal(framed[20:100, :, 3], pixels[..., 3]) and not framed[:20].any() and not framed[100:].any()


def test_a_render_by_the_standard_camera_is_kept_where_it_is() -> None:
    """What a finished object's own picture is compared with are its own pixels."""
    ball = icosphere(2)
    vertices, faces = torch.from_numpy(0.9 * ball.positions), torch.from_numpy(ball.faces)
    rendered = render_mesh(vertices, faces, None, Cameras.orbit([0.0], 0.0), 64, shading="albedo", supersample=2)
    straight = torch.cat([rendered.rgb / rendered.alpha.clamp_min(1e-4), rendered.alpha], -1)[0]
    pixels = (straight * 255).round().numpy().astype(np.uint8)
    assert np.array_equal(prepare_picture(Picture(pixels), KEEP).pixels[..., 3], pixels[..., 3])


def test_small_pictures_are_enlarged_without_loss() -> None:
    pixels = disk(24, 24, (11.0, 13.0), 7.0)
    framed = prepare_picture(Picture(pixels), KEEP).pixels
    assert framed.shape == (72, 72, 4) and np.array_equal(framed[..., 3], pixels[..., 3].repeat(3, 0).repeat(3, 1))


def test_maps_go_through_the_same_crop() -> None:
    pixels = disk(100, 160, (40.0, 60.0), 25.0)
    y, x = np.mgrid[:100, :160].astype(np.float32) + 0.5
    known = pixels[..., 3] == 255
    depth = np.where(known, x, np.nan).astype(np.float32)
    normals = np.where(known[..., None], np.stack([x, y, np.ones_like(x)], axis=2), np.nan).astype(np.float32)
    made = prepare_picture(Picture(pixels, depth, normals), ReferenceSettings())
    side = len(made.pixels)
    row, column = np.mgrid[:side, :side] + 0.5
    scale = 50.0 / FILL / side
    inside = np.hypot(row - side / 2, column - side / 2) * scale < 22
    assert np.allclose(made.depth[inside], (40 + (column - side / 2) * scale)[inside], atol=1.0)
    assert np.allclose(made.normals[inside][:, 1], (60 + (row - side / 2) * scale)[inside], atol=1.0)
    assert np.isnan(made.depth[0, 0]) and np.isnan(made.normals[0, 0]).all()


@pytest.mark.parametrize("kind", ["flat", "gradient", "noisy"])
def test_backgrounds_are_removed(kind: str) -> None:
    random = np.random.default_rng(3)
    y, x = np.mgrid[:120, :150] / 120
    background = np.array([90.0, 140.0, 180.0]) + {
        "flat": 0.0, "gradient": 60 * (x + y)[..., None] - 60, "noisy": random.normal(0, 15, (120, 150, 3))
    }[kind]  # fmt: skip
    pixels = disk(120, 150, (70.0, 65.0), 38.0)
    found = cut_out(over(pixels, background)[..., :3]) >= 0.5
    true = pixels[..., 3] >= 128
    assert (found & true).sum() / (found | true).sum() > 0.95
    framed = prepare_picture(Picture(over(pixels, background)), ReferenceSettings()).pixels
    top, bottom, left, right = box(framed[..., 3] >= 128)
    assert abs((bottom - top) / len(framed) - FILL) < 0.06
    assert np.array_equal(cut_out(over(pixels, background)[..., :3]), cut_out(over(pixels, background)[..., :3]))


def test_a_large_picture_is_cut_at_its_own_size() -> None:
    pixels = disk(900, 700, (330.0, 420.0), 200.0)
    alpha = cut_out(over(pixels, np.array([20.0, 90.0, 40.0]))[..., :3])
    true = pixels[..., 3] >= 128
    assert alpha.shape == (900, 700) and alpha.min() >= 0 and alpha.max() <= 1
    assert ((alpha >= 0.5) & true).sum() / ((alpha >= 0.5) | true).sum() > 0.97


def test_whose_alpha_counts() -> None:
    pixels = disk(64, 64, (20.0, 30.0), 12.0)
    opaque = over(pixels, np.array([90.0, 140.0, 180.0]))
    assert (prepare_picture(Picture(opaque), replace_keep("keep")).pixels[..., 3] == 255).all()
    assert 0.05 < (prepare_picture(Picture(opaque), replace_keep("remove")).pixels[..., 3] > 127).mean() < 0.2
    assert np.array_equal(prepare_picture(Picture(pixels), replace_keep("auto")).pixels[..., 3], pixels[..., 3])


def replace_keep(background: str) -> ReferenceSettings:
    return ReferenceSettings(framing="keep", background=background)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Picture(np.full((64, 64, 4), 255, np.uint8)), "Reference picture 1: nothing .* Cut the object out by hand"),
        (Picture(np.zeros((64, 64, 4), np.uint8)), "shows nothing: its alpha is below one half"),
        (Picture(np.full((4, 64, 4), 255, np.uint8)), "has 64 x 4 pixels; give one of at least 8 x 8"),
        (Picture(np.full((64, 64, 3), 255, np.uint8)), r"expected uint8 \[height, width, 4\]"),
        (Picture(disk(64, 64, (30, 30), 20), depth=np.zeros((32, 64), np.float32)), "depth map .* same width and height"),
        (Picture(disk(64, 64, (30, 30), 20), normals=np.zeros((64, 64), np.float32)), "normal map .* same width and height"),
    ],
)
def test_what_cannot_be_used_is_refused(picture: Picture, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare_picture(picture, ReferenceSettings())


def test_pictures_and_references_must_be_equally_many() -> None:
    with pytest.raises(InputError, match="1 reference pictures and 2 came"):
        prepare_pictures([Picture(disk(64, 64, (30, 30), 20))] * 2, [ReferenceSettings()])


class ShownPrior(GaussianMixturePrior):
    """Remembers what it was shown."""

    def with_references(self, references):  # noqa: ANN001, ANN201
        self.shown = references
        return self


def analytic(kind: type[GaussianMixturePrior]) -> GaussianMixturePrior:
    return kind({"it": Component(torch.zeros(4, 3, 8, 8), 1.0)}, linear_alphas_cumprod())


def test_a_prior_that_can_be_shown_pictures_is() -> None:
    settings = JobSettings("", (MeshStage(steps=1),), references=(ReferenceSettings(90.0, 10.0), ReferenceSettings()))
    prepared = prepare_pictures([Picture(disk(70, 90, (30, 30), 20))] * 2, settings.references)
    prior = analytic(ShownPrior)
    assert bind_prior(prior, settings, prepared) is prior
    assert [(view.azimuth, view.elevation) for view in prior.shown] == [(90.0, 10.0), (0.0, 0.0)]
    assert torch.equal((prior.shown[0].image * 255).round().to(torch.uint8), torch.from_numpy(prepared[0].pixels))


def test_without_words_another_prior_has_nothing_to_go_by() -> None:
    settings = JobSettings("", (MeshStage(steps=1),), references=(ReferenceSettings(),))
    prepared = prepare_pictures([Picture(disk(70, 90, (30, 30), 20))], settings.references)
    with pytest.raises(InputError, match="prompt is empty, and the prior 'analytic' cannot be shown pictures"):
        bind_prior(analytic(GaussianMixturePrior), settings, prepared)
    worded = JobSettings("it", settings.stages, references=settings.references)
    prior = analytic(GaussianMixturePrior)
    assert bind_prior(prior, worded, prepared) is prior
