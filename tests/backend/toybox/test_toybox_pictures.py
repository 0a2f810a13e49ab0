"""What pictures of an object do to the prior's 3D guess and to its denoiser; before any training, nothing to the guess."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.cameras import Cameras
from backend.toybox.data import ToyData, make_data
from backend.toybox.model import VIEWS, CleanViews, References, ToyboxModel, camera_features
from backend.toybox.picture_encoder import fit_part_colors, grid_points, unproject
from backend.toybox.sampling import sample
from backend.toybox.training import TrainingSettings, draw_batch, new_model, pictures_loss, unet_loss

CAPTIONS = ["red mushroom white stem", ""]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ToyData:
    return make_data(tmp_path_factory.mktemp("data"), 6, 7, lambda done, total: None)


@pytest.fixture(scope="module")
def references(data: ToyData) -> References:
    """Two pictures of two objects each."""
    return draw_batch(data, 2, torch.Generator().manual_seed(2), "cpu", 2).references


@pytest.fixture
def model() -> ToyboxModel:
    """With random weights where training starts from zeros."""
    model = new_model(3)
    generator = torch.Generator().manual_seed(0)
    for network in model.networks():
        network.eval()
    for weight in (*model.picture_encoder.parameters(), model.unet.conv_out.weight):
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return model.to("cpu")


@torch.no_grad()
def test_untrained_it_changes_nothing(references: References) -> None:
    model = new_model(3)
    text = model.encode(CAPTIONS)
    told, _, _ = model.look(text, references)
    assert torch.equal(told.pooled, text.pooled)
    volume, _ = model.correct(text, references)
    density, parts, colors = model.guess(text)
    assert torch.equal(volume[0], density) and torch.equal(volume[1], parts)
    torch.testing.assert_close(volume[2], colors, rtol=0, atol=1e-5)


def test_a_place_is_told_what_the_pixel_in_front_of_it_shows() -> None:
    """The picture shows each of its rays' own direction; the direction from the camera to a place must come back there."""
    cameras = Cameras.orbit([30.0, 250.0], [20.0, -5.0])
    origins, directions = cameras.rays(32, 32)
    found = unproject(directions.permute(0, 3, 1, 2), cameras, 9).flatten(2).transpose(1, 2)
    points = grid_points(9, "cpu")
    inside = points.norm(dim=1) < 0.97
    expected = torch.nn.functional.normalize(points - cameras.position()[:, None], dim=-1)
    torch.testing.assert_close(found[:, inside], expected[:, inside], rtol=0, atol=1e-3)
    corner = points.abs().sum(1) > 2.9
    assert (found[:, corner].norm(dim=-1).amin(1) < 0.1).all(), "a corner of the volume lies outside of the picture"


def test_samples_of_the_volume_lie_where_the_template_has_them(model: ToyboxModel) -> None:
    """A small ball at one sample is seen in the direction in which `unproject` looks for that sample."""
    size = model.template.config.density_size
    points = grid_points(size, "cpu").view(size, size, size, 3)
    z, y, x = 16, 8, 14
    density = 60.0 * (0.15 - (points - points[z, y, x]).norm(dim=-1))[None, None]
    volume = (density, torch.zeros(1, 4, 16, 16, 16), torch.full((1, 3, 3), 0.5))
    cameras = Cameras.orbit([50.0], 25.0)
    alpha = model.render(volume, cameras, 64)[:, 3:]
    assert unproject(alpha, cameras, size)[0, 0, z, y, x] > 0.9
    assert alpha.mean() < 0.03


@torch.no_grad()
def test_part_colors_are_found_in_a_picture_that_they_made(model: ToyboxModel, references: References) -> None:
    """Two parts, above and below, with colors that the guess does not have; the third part is nowhere and keeps its own."""
    size = model.template.config.part_size
    parts = torch.zeros(1, 4, size, size, size)
    parts[:, 3] = -50.0
    parts[:, 1, :, size // 2 :], parts[:, 2, :, : size // 2] = 50.0, 50.0
    density = 30.0 * (0.6 - grid_points(24, "cpu").norm(dim=1)).view(1, 1, 24, 24, 24)
    true = torch.tensor([[[0.9, 0.1, 0.3], [0.2, 0.8, 0.1], [0.5, 0.5, 0.5]]])
    cameras = Cameras.orbit([30.0], 10.0)
    picture = model.render((density, parts, true), cameras, 20)
    membership = model.render((density, parts, torch.eye(3)[None]), cameras, 20)[:, :3]
    guess = torch.full((1, 3, 3), 0.4)
    found = fit_part_colors(membership[:, None], picture[:, None], guess)
    torch.testing.assert_close(found[:, :2], true[:, :2], rtol=0, atol=0.03)
    torch.testing.assert_close(found[:, 2], guess[:, 2], rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_guess_beside_a_picture_is_the_volume_from_its_camera(model: ToyboxModel, references: References) -> None:
    _, volume, clean = model.look(model.encode(CAPTIONS), references)
    cameras = Cameras.orbit(references.azimuth.flatten(), references.elevation.flatten())
    torch.testing.assert_close(clean.guess.flatten(0, 1), model.render(volume, cameras), rtol=0, atol=5e-3)
    expected = camera_features(references.azimuth.flatten(), references.elevation.flatten())
    assert torch.equal(clean.camera.flatten(0, 1), expected) and torch.equal(clean.pictures, references.pictures)


@torch.no_grad()
def test_the_order_of_pictures_does_not_matter(model: ToyboxModel, references: References) -> None:
    text = model.encode(CAPTIONS)
    turned = References(*(x.flip(1) for x in (references.pictures, references.azimuth, references.elevation)))
    told, volume, _ = model.look(text, references)
    told_turned, volume_turned, _ = model.look(text, turned)
    torch.testing.assert_close(told.pooled, told_turned.pooled, rtol=0, atol=1e-5)
    for a, b, before in zip(volume, volume_turned, model.guess(text)):
        assert (a - before).abs().max() > 1e-2, "the pictures must change the guess for this to mean anything"
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_angle_of_a_picture_matters(model: ToyboxModel, references: References) -> None:
    text = model.encode(CAPTIONS)
    _, volume, _ = model.look(text, references)
    _, turned, _ = model.look(text, References(references.pictures, references.azimuth + 90, references.elevation))
    assert (volume[0] - turned[0]).abs().max() > 1e-2


@torch.no_grad()
def test_noisy_views_see_the_pictures_of_their_own_group(model: ToyboxModel, references: References) -> None:
    generator = torch.Generator().manual_seed(1)
    noisy, guess = torch.randn(8, 4, 32, 32, generator=generator), torch.rand(8, 4, 32, 32, generator=generator) * 2 - 1
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0] * 2, 15.0)
    text, camera = model.encode(CAPTIONS).repeat_each(VIEWS), camera_features(cameras.azimuth, cameras.elevation)
    clean = CleanViews(
        references.pictures,
        references.pictures.flip(0),
        camera_features(references.azimuth.flatten(), references.elevation.flatten()).view(2, 2, 4),
    )

    def net(clean: CleanViews | None) -> torch.Tensor:
        return model.predict_v(noisy, torch.full((8,), 500), guess, text, camera, torch.full((8, 3), 0.5), clean)[1]

    pictures = references.pictures.clone()
    pictures[0, 1] = 0.0
    plain, shown, other = net(None), net(clean), net(CleanViews(pictures, clean.guess, clean.camera))
    assert plain.shape == shown.shape == noisy.shape
    assert ((plain - shown).flatten(1).abs().amax(1) > 1e-4).all()
    change = (shown - other).flatten(1).abs().amax(1)
    assert (change[:4] > 1e-4).all() and (change[4:] == 0).all()
    order = CleanViews(*(x.flip(1) for x in (clean.pictures, clean.guess, clean.camera)))
    torch.testing.assert_close(net(order), shown, rtol=0, atol=1e-4)


@torch.no_grad()
def test_pictures_are_shown_without_noise_at_timestep_zero(
    model: ToyboxModel, references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows as the UNet gets them: four noisy views of an object, then its pictures over the object's own background."""
    asked, forward = {}, model.unet.forward

    def spy(inputs: torch.Tensor, timesteps: torch.Tensor, **others: torch.Tensor) -> object:
        asked.update(others, inputs=inputs, timesteps=timesteps)
        return forward(inputs, timesteps, **others)

    monkeypatch.setattr(model.unet, "forward", spy)
    text, _, clean = model.look(model.encode(CAPTIONS), references)
    noisy, background = torch.randn(8, 4, 32, 32), torch.tensor([[0.1, 0.5, 0.9], [1.0, 0.0, 0.3]]).repeat_interleave(VIEWS, 0)
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0] * 2, 15.0)
    camera = camera_features(cameras.azimuth, cameras.elevation)
    model.predict_v(noisy, torch.full((8,), 600), noisy, text.repeat_each(VIEWS), camera, background, clean)
    assert asked["timesteps"].tolist() == [600] * 4 + [0] * 2 + [600] * 4 + [0] * 2
    shown = torch.nn.functional.pixel_shuffle(asked["inputs"][:, :16], 2)
    picture = references.pictures[1, 1]
    expected = torch.cat([picture[:3] + (1 - picture[3:]) * background[4][:, None, None], picture[3:]]) * 2 - 1
    torch.testing.assert_close(shown[11], expected)
    torch.testing.assert_close(shown[6], noisy[4])
    assert torch.equal(asked["class_labels"][11, 64:68], clean.camera[1, 1])
    assert torch.equal(asked["class_labels"][11, :64], text.pooled[1])


def test_each_weight_of_the_encoder_is_trained_in_its_phase(model: ToyboxModel, data: ToyData) -> None:
    settings = TrainingSettings(pictures_batch=2, unet_batch=2, rays=32)
    encoder = model.picture_encoder
    pictures_loss(model, data, settings, torch.Generator().manual_seed(4)).backward()
    without = {name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert without == {"tell.weight", "tell.bias"}
    encoder.zero_grad()
    encoder.requires_grad_(False)
    encoder.tell.requires_grad_(True)
    unet_loss(model, data, settings, torch.Generator().manual_seed(4)).backward()
    assert {name for name, weight in encoder.named_parameters() if weight.grad is not None} == {"tell.weight", "tell.bias"}


def test_pictures_of_a_batch_are_of_the_same_objects_and_from_elsewhere(data: ToyData) -> None:
    batch = draw_batch(data, 6, torch.Generator().manual_seed(0), "cpu", 2)
    stored = data.images.float() / 255
    for i, (rgba, shown) in enumerate(zip(batch.rgba, batch.references.pictures)):
        groups = [(o, g) for o in range(len(data)) for g in range(2) if torch.equal(stored[o, g], rgba)]
        [(thing, group)] = groups
        for picture, azimuth, elevation in zip(shown, batch.references.azimuth[i], batch.references.elevation[i]):
            # A round object looks alike from several sides.
            there = [v for v in range(VIEWS) if torch.equal(stored[thing, 1 - group, v], picture)]
            assert azimuth in data.azimuth[thing, 1 - group, there] and elevation in data.elevation[thing, 1 - group, there]


def test_samples_can_be_drawn_with_pictures(model: ToyboxModel, references: References, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.toybox.sampling.STEPS", 2)
    cameras, background = Cameras.orbit([0.0, 90.0, 180.0, 270.0] * 2, 15.0), torch.full((8, 3), 0.9)
    drawn = [sample(model, CAPTIONS, cameras, background, torch.Generator().manual_seed(0), shown) for shown in (None, references)]
    for pictures, guess in drawn:
        assert pictures.shape == guess.shape == (8, 4, 32, 32) and pictures.isfinite().all()
    assert (drawn[0][0] - drawn[1][0]).abs().max() > 1e-2 and (drawn[0][1] - drawn[1][1]).abs().max() > 1e-2


def test_a_folder_without_the_encoder_is_not_loaded(model: ToyboxModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    ToyboxModel.load(tmp_path)
    for part in (tmp_path / "picture_encoder").iterdir():
        part.unlink()
    with pytest.raises(OSError, match="picture_encoder"):
        ToyboxModel.load(tmp_path)
