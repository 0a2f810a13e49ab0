"""The embedded prior, alone and bound to pictures: what each question is asked with, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from backend.cameras import Cameras
from backend.distillation.denoiser import Denoiser
from backend.distillation.low_rank_adapter import LowRankAdapter
from backend.errors import InputError
from backend.priors import load_prior
from backend.priors.prior import PictureConditioned, ReferenceView, Views
from backend.priors.toybox import TOYBOX_FOLDER, ToyboxPrior
from backend.toybox.model import ToyboxModel

T = torch.tensor(400)


@pytest.fixture(scope="module")
def prior() -> ToyboxPrior:
    return load_prior("toybox", "cpu")


@pytest.fixture(scope="module")
def asked() -> tuple[torch.Tensor, Views]:
    """Two groups of noisy views."""
    generator = torch.Generator().manual_seed(0)
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0, 30.0, 120.0, 210.0, 300.0], 15.0)
    return torch.randn(8, 4, 32, 32, generator=generator), Views(cameras, torch.rand(8, 3, generator=generator))


def photo(prior: ToyboxPrior, prompt: str, azimuth: float = 20.0, size: int = 96) -> ReferenceView:
    """The prior's own guess for a prompt, as a picture with straight alpha."""
    volume = prior.encode_prompt(prompt, "")
    rgba = prior.render_template(volume, Cameras.orbit([azimuth], 15.0), 40, [0])
    rgba = F.interpolate(rgba, (size, size), mode="bilinear").clamp(0, 1)
    straight = torch.cat([rgba[:, :3] / rgba[:, 3:].clamp_min(1e-3), rgba[:, 3:]], 1).clamp(0, 1)
    return ReferenceView(straight[0].permute(1, 2, 0), azimuth, 15.0)


@pytest.fixture(scope="module")
def car(prior: ToyboxPrior) -> ReferenceView:
    return photo(prior, "blue car")


@torch.no_grad()
def test_a_picture_needs_no_words(prior: ToyboxPrior, car: ReferenceView) -> None:
    """The guess of the empty prompt bound to a picture of a car looks like the car, from where it was seen and from behind."""
    bound = prior.with_references([car])
    cameras = Cameras.orbit([20.0, 110.0, 200.0, 290.0], 15.0)
    truth = prior.render_template(prior.encode_prompt("blue car", ""), cameras, 40, [0])
    alone = prior.render_template(prior.encode_prompt("red mushroom", ""), cameras, 40, [2])
    guess = bound.render_template(bound.encode_prompt("", ""), cameras, 40, [0])
    error, before = ((x - truth).square().flatten(1).mean(1) for x in (guess, alone))
    assert (error < 0.35 * before).all(), (error, before)


@torch.no_grad()
def test_only_the_prompts_own_questions_are_asked_with_the_pictures(
    prior: ToyboxPrior, car: ReferenceView, asked: tuple[torch.Tensor, Views]
) -> None:
    bound = prior.with_references([car, photo(prior, "blue car", 200.0)])
    with_pictures, without = bound.encode_prompt("blue car", "red car"), prior.encode_prompt("blue car", "red car")
    noisy, views = asked
    questions = ("empty", "text", "negative", "plain")
    answers = dict(zip(questions, bound.predict_noise(noisy, T, with_pictures, views, questions)))
    alone = dict(zip(("empty", "negative"), prior.predict_noise(noisy, T, without, views, ("empty", "negative"))))
    for question in ("empty", "negative"):
        assert torch.equal(answers[question], alone[question])
    (text,) = prior.predict_noise(noisy, T, without, views, ("text",))
    assert ((answers["text"] - text).flatten(1).abs().amax(1) > 1e-3).all()
    torch.testing.assert_close(answers["plain"], answers["text"], rtol=0, atol=1e-5)
    (single,) = bound.predict_noise(noisy, T, with_pictures, views, ("text",))
    torch.testing.assert_close(single, answers["text"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_groups_are_shown_the_same_pictures(prior: ToyboxPrior, car: ReferenceView, asked: tuple[torch.Tensor, Views]) -> None:
    """The first group's answer does not depend on a second one standing beside it."""
    bound = prior.with_references([car])
    conditioning, (noisy, views) = bound.encode_prompt("", ""), asked
    (both,) = bound.predict_noise(noisy, T, conditioning, views, ("text",))
    for four in (slice(0, 4), slice(4, 8)):
        some = Views(views.cameras[four], views.background[four])
        (alone,) = bound.predict_noise(noisy[four], T, conditioning, some, ("text",))
        torch.testing.assert_close(alone, both[four], rtol=0, atol=2e-4)


@torch.no_grad()
def test_without_pictures_the_picture_encoder_has_no_say(
    prior: ToyboxPrior, car: ReferenceView, asked: tuple[torch.Tensor, Views]
) -> None:
    noisy, views = asked
    conditioning = prior.encode_prompt("blue car", "")
    before = prior.predict_noise(noisy, T, conditioning, views)
    other = ToyboxPrior(ToyboxModel.load(TOYBOX_FOLDER))
    for weight in other.model.picture_encoder.parameters():
        weight.zero_()
    other.with_references([car])
    after = other.predict_noise(noisy, T, other.encode_prompt("blue car", ""), views)
    assert all(torch.equal(a, b) for a, b in zip(before, after))


@torch.no_grad()
def test_the_order_of_pictures_does_not_matter(prior: ToyboxPrior, car: ReferenceView, asked: tuple[torch.Tensor, Views]) -> None:
    noisy, views = asked
    two = [car, photo(prior, "blue car", 130.0)]
    answers = []
    for pictures in (two, two[::-1]):
        bound = prior.with_references(pictures)
        answers.append(bound.predict_noise(noisy, T, bound.encode_prompt("", ""), views, ("text",))[0])
    torch.testing.assert_close(*answers, rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_adapter_of_vsd_sees_the_pictures_too(
    prior: ToyboxPrior, car: ReferenceView, asked: tuple[torch.Tensor, Views]
) -> None:
    """Untrained it answers what the bound prior does, in groups of another size than the one without pictures."""
    noisy, views = asked
    bound = prior.with_references([car])
    denoiser = Denoiser(bound, bound.encode_prompt("", ""), views)
    (expected,) = bound.predict_noise(noisy, T, denoiser.conditioning, views, ("plain",))
    adapter = LowRankAdapter(bound, 2, seed=0)
    try:
        torch.testing.assert_close(adapter.predict(denoiser, noisy, T), expected, rtol=0, atol=1e-4)
    finally:
        adapter.remove()


def test_a_bound_prior_is_a_copy_that_shares_the_weights(prior: ToyboxPrior, car: ReferenceView) -> None:
    assert isinstance(prior, PictureConditioned)
    bound = prior.with_references([car])
    assert bound.model is prior.model and bound.network is prior.network and bound.name == prior.name
    bound.encode_prompt(" ", "")
    bound.encode_prompt("a blue car", "")
    for words in ("", " "):
        with pytest.raises(InputError):
            prior.encode_prompt(words, "")
    with pytest.raises(InputError):
        bound.encode_prompt("a blue zeppelin", "")


def test_pictures_are_made_small_without_aliasing_and_colors_behind_alpha_do_not_count(prior: ToyboxPrior) -> None:
    image = torch.zeros(64, 64, 4)
    image[16:48, 16:48, 3] = 1.0
    image[::2, :, 0] = 1.0  # stripes one pixel wide: half of each small pixel
    colored = image.clone()
    colored[image[..., 3] == 0, 1] = 1.0
    pictures = prior.with_references([ReferenceView(image), ReferenceView(colored)])._references.pictures[0]
    assert torch.equal(pictures[0], pictures[1])
    inner = pictures[0, :, 11:21, 11:21]
    torch.testing.assert_close(inner[0], torch.full((10, 10), 0.5), rtol=0, atol=0.02)
    assert (inner[3] == 1).all() and (pictures[0, 3, :6] == 0).all()


@pytest.mark.parametrize(("count", "says"), [(0, "given 0"), (5, "given 5")])
def test_too_few_and_too_many_pictures_are_refused(prior: ToyboxPrior, car: ReferenceView, count: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        prior.with_references([car] * count)


def test_bad_pictures_are_refused(prior: ToyboxPrior, car: ReferenceView) -> None:
    with pytest.raises(InputError, match="shape"):
        prior.with_references([replace(car, image=car.image[..., :3])])
    with pytest.raises(InputError, match="nothing"):
        prior.with_references([replace(car, image=torch.zeros(32, 32, 4))])
    with pytest.raises(InputError, match="azimuth nan"):
        prior.with_references([replace(car, azimuth=float("nan"))])


def test_weights_without_the_picture_encoder_are_refused(prior: ToyboxPrior, tmp_path: Path) -> None:
    prior.model.save(tmp_path)
    (tmp_path / "picture_encoder" / "config.json").unlink()
    with pytest.raises(InputError, match="picture_encoder"):
        ToyboxPrior.load(tmp_path)
