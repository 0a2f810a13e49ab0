"""ImageDream and Zero123 against the original networks written out; the reference picture and what is told of cameras."""

import json
import shutil
from math import radians
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from msgspec.structs import replace
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModel

from backend.cameras.orbit import Cameras
from backend.clip_input import clip_input
from backend.errors import InputError
from backend.optimize.events import Finished, StepDone
from backend.optimize.inputs import Picture
from backend.optimize.run import run_job
from backend.priors.family import recipe_family_of
from backend.priors.imagedream import ImageDreamPrior
from backend.priors.ldm_configs import unet_config
from backend.priors.load import load_prior
from backend.priors.multiview_unet import camera_vectors
from backend.priors.pretrained_models import quiet
from backend.priors.prior import PictureConditioned, ReferenceView, Views
from backend.priors.reference import reference_picture
from backend.priors.zero123 import PictureCamera, Zero123Prior, relative_pose
from protocol.settings import CameraSettings, Constant, GridStage, GuidanceSettings, JobSettings, MeshStage, ReferenceSettings
from tests.backend.priors.original_models import (
    OriginalUNet,
    Weights,
    autoencoder_weights,
    clip_image_embedding,
    clip_vision,
    clip_weights,
    double,
    prefixed,
    unet_weights,
)

CPU = torch.device("cpu")
T = torch.tensor(250)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "image_size": 16,
    "patch_size": 4,
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(seed: int = 5, height: int = 64, width: int = 64) -> Tensor:
    """[H, W, 4]: smooth colors, opaque in a disc, half transparent at its rim."""
    rgb = F.interpolate(torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed)), (height, width), mode="bicubic")
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    alpha = ((0.9 - (x**2 + y**2).sqrt()) * 8).clamp(0, 1)
    return torch.cat([rgb[0].clamp(0, 1).permute(1, 2, 0), alpha[..., None]], dim=-1)


def over_white(image: Tensor) -> Tensor:
    return (image[..., :3] * image[..., 3:] + 1 - image[..., 3:]).permute(2, 0, 1)[None]


def clip_pixels(picture: Tensor, **how: Any) -> Tensor:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)
    scaled = F.interpolate(picture, (16, 16), mode="bicubic", **how)
    return ((scaled.clamp(0, 1) if how.get("antialias") else scaled) - mean) / deviation


# ImageDream


@pytest.fixture(scope="module")
def imagedream_unet() -> Weights:
    return unet_weights((64, 64), layers=1, context=16, image_tokens=3, image_width=32)


@pytest.fixture(scope="module")
def imagedream_folder(stable_diffusion_folder: Path, imagedream_unet: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published conversion: MVDreamPipeline with an image encoder, the UNet under original names."""
    folder = tmp_path_factory.mktemp("imagedream") / "imagedream"
    shutil.copytree(stable_diffusion_folder, folder)
    save_file(imagedream_unet, folder / "unet/diffusion_pytorch_model.safetensors", {"format": "pt"})
    config = {"_class_name": "MultiViewUNetModel", "camera_dim": 16, "image_size": 8, "ip_dim": 3, "num_head_channels": 64}
    (folder / "unet/config.json").write_text(json.dumps(config))
    with quiet():
        CLIPVisionModel(CLIPVisionConfig(**VISION, hidden_act="gelu")).save_pretrained(folder / "image_encoder")
    index = json.loads((folder / "model_index.json").read_text()) | {
        "_class_name": "MVDreamPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "unet": ["mv_unet", "MultiViewUNetModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def imagedream(imagedream_folder: Path) -> ImageDreamPrior:
    return load_prior(str(imagedream_folder), CPU)


def test_imagedream_equals_the_original_network_written_out(
    imagedream: ImageDreamPrior, imagedream_folder: Path, imagedream_unet: Weights
) -> None:
    """Groups of five: the picture's latents free of noise and a camera of zeros at the end; without the picture, zeros."""
    prior = imagedream
    assert prior.views_per_group == 4
    assert prior.recipe_family == recipe_family_of(str(imagedream_folder)) == "image_conditioned"
    image, cameras = photo(), Cameras.orbit([0.0, 90.0, 180.0, 270.0] * 2, [5.0] * 4 + [20.0] * 4)
    noisy, conditioning = random(8, 4, 8, 8), prior.encode_prompt("a red mug", "dull")
    ours = prior.with_references([ReferenceView(image, 0.0, 10.0)]).predict_noise(noisy, T, conditioning, Views(cameras, torch.ones(8, 3)))

    with quiet(), torch.no_grad():
        encoder = CLIPVisionModel.from_pretrained(imagedream_folder / "image_encoder").double()
        pixels = clip_pixels(over_white(image).double(), antialias=True)
        features = encoder(pixels, output_hidden_states=True).hidden_states[-2]
        vae = AutoencoderKL.from_pretrained(imagedream_folder / "vae").double()
        latents = vae.encode(over_white(image).double() * 2 - 1).latent_dist.mean * vae.config.scaling_factor
        text_encoder = CLIPTextModel.from_pretrained(imagedream_folder / "text_encoder").double()
    tokenizer = CLIPTokenizer.from_pretrained(imagedream_folder / "tokenizer")
    original = OriginalUNet(double(imagedream_unet), 5, head_width=64)
    told = camera_vectors(cameras.camera_to_world()).double()
    for epsilon, text, shown in zip(ours, ("a red mug", "dull"), (1.0, 0.0), strict=True):
        with torch.no_grad():
            hidden = text_encoder(tokenizer(text, padding="max_length", return_tensors="pt").input_ids).last_hidden_state
        for group in (slice(0, 4), slice(4, 8)):
            expected = original(
                torch.cat([noisy[group].double(), shown * latents]),
                250,
                hidden.expand(5, -1, -1),
                torch.cat([told[group], torch.zeros(1, 16, dtype=torch.double)]),
                (shown * features).expand(5, -1, -1),
            )
            torch.testing.assert_close(epsilon[group].double(), expected[:4], atol=3e-5, rtol=3e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-2


def test_a_prior_is_bound_to_its_picture_and_another_one_to_another(imagedream: ImageDreamPrior) -> None:
    prior = imagedream
    conditioning, noisy = prior.encode_prompt("", ""), random(4, 4, 8, 8)
    views = Views(Cameras.orbit([0.0, 90.0, 180.0, 270.0], 5.0), torch.ones(4, 3))
    first, second = (prior.with_references([ReferenceView(photo(seed))]) for seed in (1, 2))
    one, other = (bound.predict_noise(noisy, T, conditioning, views, ("text", "empty")) for bound in (first, second))
    assert (one[0] - other[0]).abs().max() > 1e-3
    torch.testing.assert_close(one[1], other[1])  # without the picture they are the same
    assert first.network is prior.network
    with pytest.raises(InputError, match="Give it a reference picture first"):
        prior.predict_noise(noisy, T, conditioning, views)


def test_a_picture_from_the_side_turns_imagedreams_cameras(imagedream: ImageDreamPrior) -> None:
    """To the network the picture is at azimuth 0, so a picture from 40 degrees means all cameras are told 40 degrees less."""
    conditioning, noisy = imagedream.encode_prompt("", ""), random(4, 4, 8, 8)

    def answer(of_picture: float, of_cameras: float) -> Tensor:
        bound = imagedream.with_references([ReferenceView(photo(), of_picture, 15.0)])
        cameras = Cameras.orbit([of_cameras + turn for turn in (0.0, 90.0, 180.0, 270.0)], 5.0)
        return bound.predict_noise(noisy, T, conditioning, Views(cameras, torch.ones(4, 3)), ("text",))[0]

    torch.testing.assert_close(answer(40.0, 65.0), answer(0.0, 25.0), atol=1e-5, rtol=1e-5)
    assert (answer(40.0, 65.0) - answer(0.0, 65.0)).abs().max() > 1e-4


def test_they_look_at_exactly_one_picture(imagedream: ImageDreamPrior, zero123: Zero123Prior) -> None:
    for prior in (imagedream, zero123):
        assert isinstance(prior, PictureConditioned)
        for count in (0, 2):
            with pytest.raises(InputError, match=f"exactly one reference picture and was given {count}. .* such as toybox"):
                prior.with_references([ReferenceView(photo())] * count)


def test_imagedream_from_the_original_file(
    imagedream: ImageDreamPrior, imagedream_unet: Weights, stable_diffusion_folder: Path, tmp_path: Path
) -> None:
    """The UNet as from the folder; image tokens against OpenCLIP's vision tower and the resampler written out."""
    vocabulary = len(json.loads((stable_diffusion_folder / "tokenizer/vocab.json").read_text()))
    clip = clip_weights(vocabulary, text=64, vision=32, layers=3)
    path = tmp_path / "sd-v2.1-base-4view-ipmv.safetensors"
    unused = {"input_blocks.1.1.transformer_blocks.0.attn1.to_k_ip.weight": torch.zeros(64, 64)}  # in some, and never asked
    tensors = prefixed(imagedream_unet | unused, "model.diffusion_model.") | prefixed(clip, "clip_model.model.")
    save_file(tensors | prefixed(autoencoder_weights(), "vae_model."), path)
    shutil.copytree(stable_diffusion_folder / "tokenizer", tmp_path / "tokenizer")
    prior = load_prior(str(path), CPU)
    assert isinstance(prior, ImageDreamPrior) and prior.image_size == 256
    assert recipe_family_of(str(path)) == prior.recipe_family
    state, expected = prior.network.state_dict(), imagedream.network.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)

    bound = prior.with_references([ReferenceView(photo())])
    pixels = clip_pixels(over_white(photo()), antialias=True).double()
    features = clip_vision(double(clip), pixels, heads=16, layers=2, quick=False)
    tokens = OriginalUNet(double(imagedream_unet), 5, head_width=64).resample(features)
    torch.testing.assert_close(bound._shown.tokens.double(), tokens, atol=1e-4, rtol=1e-4)


# Zero123


@pytest.fixture(scope="module")
def zero123_parts() -> dict[str, Weights]:
    build = torch.Generator().manual_seed(7)
    projection = {"weight": torch.randn(16, 20, generator=build) / 4, "bias": torch.randn(16, generator=build) / 10}
    return {
        "unet": unet_weights((32, 64), layers=1, context=16, channels=8, camera=0, linear=False),
        "clip": clip_weights(50, text=16, vision=32, layers=2),
        "vae": autoencoder_weights(),
        "projection": projection,
    }


@pytest.fixture(scope="module")
def zero123_file(zero123_parts: dict[str, Weights], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as its authors publish it. The averages are the true weights here; the others are spoiled."""
    path = tmp_path_factory.mktemp("zero123") / "zero123-xl.safetensors"
    unet = zero123_parts["unet"]
    tensors = prefixed({name: value + 1 for name, value in unet.items()}, "model.diffusion_model.")
    tensors |= {f"model_ema.diffusion_model{name.replace('.', '')}": value for name, value in unet.items()}
    tensors |= prefixed(zero123_parts["clip"], "cond_stage_model.model.") | prefixed(zero123_parts["vae"], "first_stage_model.")
    tensors |= prefixed(zero123_parts["projection"], "cc_projection.") | {"model_ema.decay": torch.zeros(())}
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def zero123(zero123_file: Path) -> Zero123Prior:
    return load_prior(str(zero123_file), CPU)


def pose_of(azimuth: float, elevation: float, distance: float, from_elevation: float, from_distance: float) -> list[float]:
    polar, reference = radians(90 - elevation), radians(90 - from_elevation)
    return [polar - reference, float(np.sin(radians(azimuth))), float(np.cos(radians(azimuth))), distance - from_distance]


def test_zero123_equals_the_original_network_written_out(zero123: Zero123Prior, zero123_parts: dict[str, Weights]) -> None:
    image, elevation = photo(height=256, width=256), 12.0
    angles = ((0.0, 12.0), (60.0, 40.0), (-130.0, -5.0))
    cameras = Cameras.orbit([a for a, _ in angles], [e for _, e in angles], distance=4.1, fov=40.0)
    noisy = random(3, 4, 8, 8)
    bound = zero123.with_references([ReferenceView(image, 25.0, elevation)])
    # The network works at any size; so few latents keep the dense reference fast.
    small = bound._shown.latents[:, :, ::4, ::4]
    object.__setattr__(bound._shown, "latents", small)
    ours = bound.predict_noise(noisy, T, zero123.encode_prompt("", ""), Views(cameras, torch.ones(3, 3)))

    embedding = clip_image_embedding(
        double(zero123_parts["clip"]), clip_pixels(over_white(image).double(), align_corners=True), 16, 2, quick=True
    )
    pose = torch.tensor([pose_of(a - 25, e, 4.1, elevation, 3.0) for a, e in angles], dtype=torch.double)
    projection = double(zero123_parts["projection"])
    token = F.linear(torch.cat([embedding.expand(3, -1), pose], 1), projection["weight"], projection["bias"])[:, None]
    original = OriginalUNet(double(zero123_parts["unet"]), 1, heads=8)
    for epsilon, shown in zip(ours, (1.0, 0.0), strict=True):
        expected = original(torch.cat([noisy.double(), shown * small.double().expand(3, -1, -1, -1)], 1), 250, shown * token)
        torch.testing.assert_close(epsilon.double(), expected, atol=5e-5, rtol=5e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-2


def test_zero123_is_shown_latents_that_are_not_scaled(zero123: Zero123Prior, zero123_parts: dict[str, Weights]) -> None:
    image = photo(height=256, width=256)
    vae = AutoencoderKL(
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    ).eval()
    vae.load_state_dict(convert_ldm_vae_checkpoint(prefixed(zero123_parts["vae"], "first_stage_model."), vae.config))
    with torch.no_grad():
        expected = vae.encode(over_white(image) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(zero123.with_references([ReferenceView(image)])._shown.latents, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("pipeline", "folder", "layer"),
    [("Zero123Pipeline", "clip_camera_projection", "proj"), ("Zero1to3StableDiffusionPipeline", "cc_projection", "projection")],
)
def test_zero123_from_folders_is_the_same_model(
    zero123: Zero123Prior, zero123_parts: dict[str, Weights], tmp_path: Path, pipeline: str, folder: str, layer: str
) -> None:
    """Both published conversions, written with diffusers' own conversion of original names."""
    path = write_zero123(tmp_path / "zero123", zero123_parts, zero123, pipeline, folder, layer)
    loaded = load_prior(str(path), CPU)
    assert isinstance(loaded, Zero123Prior) and not loaded.stable and loaded.views_per_group == 1
    assert recipe_family_of(str(path)) == loaded.recipe_family
    image, views = photo(), Views(Cameras.orbit([20.0, 80.0], 30.0), torch.ones(2, 3))
    noisy = random(2, 4, 32, 32)
    one, other = (
        prior.with_references([ReferenceView(image, 0.0, 5.0)]).predict_noise(noisy, T, prior.encode_prompt("", ""), views)
        for prior in (zero123, loaded)
    )
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def write_zero123(
    path: Path, parts: dict[str, Weights], zero123: Zero123Prior, pipeline: str, folder: str, layer: str
) -> Path:
    config = unet_config(parts["unet"], "a test", 32, heads=8)
    for name in ("unet", "scheduler", folder):
        (path / name).mkdir(parents=True)
    unet = convert_ldm_unet_checkpoint(prefixed(parts["unet"], "model.diffusion_model."), config)
    save_file(unet, path / "unet/diffusion_pytorch_model.safetensors", {"format": "pt"})
    (path / "unet/config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", **config}))
    save_file(prefixed(parts["projection"], f"{layer}."), path / folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (path / folder / "config.json").write_text(json.dumps({"_class_name": "CLIPCameraProjection", "embedding_dim": 16}))
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    (path / "scheduler/scheduler_config.json").write_text(json.dumps(schedule | {"_class_name": "DDIMScheduler"}))
    zero123._latents._vae.save_pretrained(path / "vae")
    with quiet():
        zero123._image_encoder.save_pretrained(path / "image_encoder")
    components = ("vae", "image_encoder", "unet", "scheduler", folder)
    (path / "model_index.json").write_text(json.dumps({"_class_name": pipeline} | {name: ["x", "y"] for name in components}))
    return path


def test_stable_zero123_is_told_the_pictures_own_polar_angle(zero123_file: Path, tmp_path: Path) -> None:
    cameras, picture = Cameras.orbit([0.0, 200.0], [10.0, -20.0], distance=4.0), PictureCamera(50.0, 25.0)
    expected = [pose_of(-50.0, 10.0, 4.0, 25.0, 3.0), pose_of(150.0, -20.0, 4.0, 25.0, 3.0)]
    np.testing.assert_allclose(relative_pose(cameras, picture, stable=False).numpy(), expected, atol=1e-6)
    stable = np.array(expected)
    stable[:, 3] = radians(65)
    np.testing.assert_allclose(relative_pose(cameras, picture, stable=True).numpy(), stable, atol=1e-6)

    # Another lens that frames the object alike, at the object's own depth, changes nothing.
    close = Cameras.orbit([0.0], 25.0, distance=float(np.tan(radians(20)) / np.tan(radians(35)) * 3), fov=70.0)
    np.testing.assert_allclose(relative_pose(close, PictureCamera(0.0, 25.0), stable=False).numpy(), [[0, 0, 1, 0]], atol=1e-6)

    path, said = tmp_path / "stable_zero123.safetensors", []
    path.symlink_to(zero123_file)
    assert load_prior(str(path), CPU, said.append).stable
    assert any("told cameras as Stable Zero123 knows them, going by its name" in line for line in said)


def test_zero123_before_it_has_a_picture_and_with_weights_of_another_kind(
    zero123: Zero123Prior, zero123_parts: dict[str, Weights], zero123_file: Path, tmp_path: Path
) -> None:
    views = Views(Cameras.orbit([0.0], 0.0), torch.ones(1, 3))
    with pytest.raises(InputError, match="makes views of an object in a picture and has none yet"):
        zero123.predict_noise(random(1, 4, 8, 8), T, zero123.encode_prompt("", ""), views)
    with pytest.raises(InputError, match="cannot be asked 'near'"):
        zero123.with_references([ReferenceView(photo())]).predict_noise(
            random(1, 4, 32, 32), T, zero123.encode_prompt("", ""), views, ("near",)
        )
    tensors = load_file(zero123_file)
    del tensors["cond_stage_model.model.visual.transformer.resblocks.1.attn.in_proj_weight"]
    save_file(tensors, tmp_path / "damaged.safetensors")
    with pytest.raises(InputError, match=r"missing: visual\.transformer\.resblocks\.1\.attn\.in_proj_weight\)"):
        load_prior(str(tmp_path / "damaged.safetensors"), CPU)
    folder = write_zero123(tmp_path / "four", zero123_parts, zero123, "Zero123Pipeline", "clip_camera_projection", "proj")
    config = json.loads((folder / "unet/config.json").read_text()) | {"in_channels": 4}
    (folder / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="not a model of the Zero123 kind .in_channels is 4 instead of 8"):
        load_prior(str(folder), CPU)


# Jobs


@pytest.mark.parametrize("which", ["imagedream", "zero123"])
def test_a_job_is_shown_its_picture_without_a_word(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Straight and whole: the prior of the job is bound to the picture that came with it, from where it was taken."""
    prior = request.getfixturevalue(which)
    seen = {"guidance": GuidanceSettings(scale=Constant(3.0)), "cameras": CameraSettings(views=prior.views_per_group)}
    grid = GridStage(steps=1, resolution=8, samples_per_ray=8, target_vertices=60, **seen)
    mesh = MeshStage(steps=1, supersample=1, target_vertices=60, **seen)
    references = (ReferenceSettings(azimuth=30.0, elevation=10.0),)
    job = JobSettings("", (grid, mesh), prior="tiny", references=references, checkpoint_seconds=1e6)
    pixels = (photo() * 255).round().to(torch.uint8).numpy()
    *events, last = run_job(job, None, prior, tmp_path, pictures=[Picture(pixels)])
    assert isinstance(last, Finished) and len(last.mesh.faces)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == 2 and all(event.numbers["reference_color"] > 0 for event in steps)
    assert prior._shown is None  # the one that was asked is as it was
    with pytest.raises(InputError, match="exactly one reference picture and was given 2"):
        next(run_job(replace(job, references=references * 2), None, prior, tmp_path, pictures=[Picture(pixels)] * 2))
    with pytest.raises(InputError, match="Give it a reference picture first"):
        list(run_job(replace(job, prompt="a mug", references=()), None, prior, tmp_path))


# The reference picture


def test_a_picture_lies_square_on_white() -> None:
    image = torch.zeros(16, 24, 4)
    image[..., 0] = 1.0
    image[4:, :, 3] = 1.0
    image[2:4, :, 3] = 0.25
    picture = reference_picture(image)
    assert picture.shape == (1, 3, 24, 24)
    rows = picture[0, :, :, 3].T  # four rows of padding, four transparent ones of which two a quarter red, then red
    assert torch.equal(rows[:6], torch.ones(6, 3)) and torch.equal(rows[20:], torch.ones(4, 3))
    torch.testing.assert_close(rows[6:8], torch.tensor([1.0, 0.75, 0.75]).expand(2, 3))
    torch.testing.assert_close(rows[8:20], torch.tensor([1.0, 0.0, 0.0]).expand(12, 3))


def test_clip_sees_it_as_its_own_preprocessing_shows_it() -> None:
    """Up to the rounding to 8 bits on the way."""
    picture = over_white(photo(height=96, width=96))
    pixels = (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = torch.as_tensor(np.asarray(processor(Image.fromarray(pixels)).pixel_values[0]))
    torch.testing.assert_close(clip_input(picture, 32)[0], expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.ones(32, 32, 3), r"has the shape \[32, 32, 3\]; expected \[height, width, 4\]"),
        (torch.ones(8, 32, 4), "at least 16 x 16 pixels"),
        (torch.full((32, 32, 4), 255.0), "Divide 8-bit values by 255"),
        (torch.full((32, 32, 4), float("nan")), "are no numbers"),
        (torch.zeros(32, 32, 4), "shows nothing"),
    ],
)
def test_other_pictures_are_refused(image: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reference_picture(image)
