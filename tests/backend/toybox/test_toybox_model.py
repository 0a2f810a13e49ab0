"""The embedded prior's arithmetic, against what follows from the definitions; and its training's repeatability."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from backend.cameras import Cameras
from backend.toybox.captions import VOCABULARY
from backend.toybox.data import ToyData, make_data
from backend.toybox.model import RESIDUAL_VARIANCE, VIEWS, TextStates, ToyboxModel, camera_features, over_background
from backend.toybox.training import TrainingSettings, new_model, train

CAPTIONS = ["red mushroom white stem", "blue car"]


@pytest.fixture(scope="module")
def model() -> ToyboxModel:
    model = new_model(3)
    for network in model.networks():
        network.eval()
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ToyData:
    return make_data(tmp_path_factory.mktemp("data"), 12, 5, lambda done, total: None)


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Cameras, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cameras = Cameras.orbit([10.0, 100.0, 190.0, 280.0] * 2, 15.0)
    noisy = torch.randn(8, 4, 32, 32, generator=generator)
    guess = torch.rand(8, 4, 32, 32, generator=generator) * 2 - 1
    return noisy, guess, cameras, torch.rand(8, 3, generator=generator)


@torch.no_grad()
def test_untrained_denoiser_is_the_best_linear_estimate(model: ToyboxModel) -> None:
    """With x0 ~ N(mu, r^2), the posterior mean of x0 given x_t has a closed form by Bayes' rule for Gaussians."""
    noisy, guess, cameras, background = inputs()
    text = model.encode(CAPTIONS).repeat_each(VIEWS)
    for t in (5, 300, 700, 990):
        timesteps = torch.full((8,), t)
        v, net, _ = model.predict_v(noisy, timesteps, guess, text, camera_features(cameras.azimuth, cameras.elevation), background)
        assert net.abs().max() == 0, "conv_out starts at zero"
        abar = model.alphas_cumprod[t].double()
        precision = 1 / RESIDUAL_VARIANCE + abar / (1 - abar)
        mean = (guess.double() / RESIDUAL_VARIANCE + abar.sqrt() * noisy.double() / (1 - abar)) / precision
        x0 = abar.sqrt() * noisy.double() - (1 - abar).sqrt() * v.double()
        torch.testing.assert_close(x0, mean, rtol=0, atol=2e-4)


@torch.no_grad()
def test_views_of_a_group_see_one_another_and_groups_do_not() -> None:
    model = new_model(3)
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    model.unet.eval()
    noisy, guess, cameras, background = inputs()
    states = model.encode(CAPTIONS)
    camera = camera_features(cameras.azimuth, cameras.elevation)

    def predict(x: torch.Tensor) -> torch.Tensor:
        return model.predict_v(x, torch.full((8,), 500), guess, states.repeat_each(VIEWS), camera, background)[1]

    other = noisy.clone()
    other[1] += 1.0
    change = (predict(other) - predict(noisy)).flatten(1).abs().amax(1)
    assert (change[:4] > 1e-4).all(), "the other three views of the group must react"
    assert (change[4:] == 0).all(), "the other object must not"


@torch.no_grad()
def test_padding_of_a_caption_changes_nothing(model: ToyboxModel) -> None:
    alone, beside = model.encode(["blue car"]), model.encode([*CAPTIONS])
    volume = model.template.volume(alone.tokens, alone.mask, alone.pooled)
    padded = model.template.volume(*(x[1:] for x in (beside.tokens, beside.mask, beside.pooled)))
    for a, b in zip(volume, padded):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_template_skips_only_what_is_not_seen(model: ToyboxModel) -> None:
    """The fast path without gradients against the plain sum."""
    cameras = Cameras.orbit([30.0, 120.0, 210.0, 300.0] * 2, 20.0)
    text = model.encode(CAPTIONS)
    full = model.render(model.guess(text), cameras)
    with torch.no_grad():
        fast = model.render(model.guess(text), cameras)
    assert full[:, 3].max() > 0.9, "the start is a ball that is seen"
    torch.testing.assert_close(fast, full.detach(), rtol=0, atol=0.02)


@torch.no_grad()
def test_template_renders_a_sphere_where_the_sphere_is(model: ToyboxModel) -> None:
    """An opaque ball of radius r at distance 3 covers a disk of angular radius asin(r / 3)."""
    size = model.template.config.density_size
    axis = torch.linspace(-1, 1, size)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    density = (60.0 * (0.6 - radius))[None, None]
    parts = torch.zeros(1, 4, 16, 16, 16)
    volume = (density, parts, torch.full((1, 3, 3), 0.5))
    origins, directions = (x.reshape(1, -1, 3) for x in Cameras.orbit([40.0], 25.0).rays(32, 32))
    alpha = model.template.march(volume, origins, directions, 64)[0, :, 3]
    along = -(origins * directions).sum(-1)[0] / 3.0
    inside = along.acos() < torch.asin(torch.tensor(0.6 / 3.0))
    assert (alpha[inside].mean() > 0.95) and (alpha[~inside].mean() < 0.05)


@torch.no_grad()
def test_saved_model_loads_as_it_was(model: ToyboxModel, tmp_path: Path) -> None:
    model.save(tmp_path / "weights", torch.float32)
    again = ToyboxModel.load(tmp_path / "weights")
    a, b = model.encode(CAPTIONS), again.encode(CAPTIONS)
    assert isinstance(b, TextStates)
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=0)
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0] * 2, 0.0)
    torch.testing.assert_close(model.render(model.guess(a), cameras), again.render(again.guess(b), cameras), rtol=0, atol=0)
    assert len(again.tokenizer) == len(VOCABULARY) + 3


def test_over_background_is_compositing() -> None:
    rgba = torch.tensor([0.2, 0.1, 0.0, 0.5]).view(1, 4, 1, 1)
    picture = over_background(rgba, torch.tensor([[1.0, 0.0, 0.4]]))
    torch.testing.assert_close(picture.flatten(), torch.tensor([0.7, 0.1, 0.2, 0.5]) * 2 - 1)


def test_resumed_training_equals_uninterrupted(data: ToyData, tmp_path: Path) -> None:
    settings = TrainingSettings(
        template_steps=2, pictures_steps=2, unet_steps=2, template_batch=2, pictures_batch=2, unet_batch=2, rays=16
    )

    def weights(model: ToyboxModel) -> list[torch.Tensor]:
        return [value for network in model.networks() for value in network.state_dict().values()]

    whole = new_model(1)
    losses = [done.loss for done in train(whole, data, settings, tmp_path / "whole")]
    assert len(losses) == 6

    first = new_model(1)
    for _ in train(first, data, replace(settings, pictures_steps=1, unet_steps=0), tmp_path / "cut"):
        pass
    second = new_model(1)
    middle = [done.loss for done in train(second, data, replace(settings, unet_steps=1), tmp_path / "cut")]
    third = new_model(1)
    rest = [done.loss for done in train(third, data, settings, tmp_path / "cut")]
    assert middle == losses[3:5] and rest == losses[5:]
    for a, b in zip(weights(whole), weights(third)):
        assert torch.equal(a, b)
    assert whole.picture_encoder.tell.weight.any(), "what the denoiser is told about pictures is learned with it"


def test_training_data_is_the_same_for_a_seed_and_never_held_out(data: ToyData, tmp_path: Path) -> None:
    from backend.toybox.objects import HELD_OUT

    again = make_data(tmp_path, 12, 5, lambda done, total: None)
    assert torch.equal(data.images, again.images) and torch.equal(data.specs, again.specs)
    assert not any((data.spec(i).kind.name, data.spec(i).main) in HELD_OUT for i in range(len(data)))
    premultiplied = data.images[:, :, :, :3].amax(3) <= data.images[:, :, :, 3]
    assert premultiplied.float().mean() > 0.999, "premultiplied color never exceeds alpha"
    assert F.cosine_similarity(data.images[0].float().flatten(), data.images[1].float().flatten(), dim=0) < 0.999
