"""Jobs that are drawn toward their prompt by CLIP: a tiny random one, which an object can please all the same."""

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from backend.cameras import Cameras
from backend.errors import InputError
from backend.losses.clip import Clip, direction_loss, similarity_loss
from backend.optimize.control import Control
from backend.optimize.events import CheckpointSaved, Finished, StepDone
from backend.optimize.feature_networks import load_clip, load_feature_networks, load_perceptual
from backend.optimize.pictures import ShownMesh, even_light
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import (
    Constant,
    FeatureSettings,
    GuidanceSettings,
    JobSettings,
    LossSettings,
    MeshStage,
    ReferenceSettings,
    StartShape,
)
from tests.backend.losses.tiny_features import write_clip, write_perceptual

SIZE = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(str(folder), CPU)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    gray = torch.zeros(4, 3, SIZE, SIZE)
    return GaussianMixturePrior({"gray": Component(gray, 1.0), "dark": Component(gray - 0.5, 1.0)}, linear_alphas_cumprod())


def settings(folder: Path, losses: LossSettings, **changes: object) -> JobSettings:
    guidance = GuidanceSettings(scale=Constant(1.0), rescale=0.0)
    stage = MeshStage(steps=12, guidance=guidance, losses=losses, laplacian=0.1, supersample=1, color_rate=Constant(0.05))
    features = FeatureSettings(clip=str(folder))
    return replace(JobSettings("gray", (stage,), prior="analytic", features=features, checkpoint_seconds=1e-6), **changes)


def ball() -> MeshData:
    mesh = icosphere(2)
    return MeshData(mesh.positions, mesh.faces, np.full_like(mesh.positions, 0.5))


def run(job: JobSettings, prior: GaussianMixturePrior, folder: Path) -> MeshData:
    folder.mkdir()
    *_, last = run_job(job, ball(), prior, folder)
    assert isinstance(last, Finished)
    return last.mesh


def seen_by(clip: Clip, mesh: MeshData) -> torch.Tensor:
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 20.0)
    rendered = ShownMesh(mesh).render(cameras, SIZE, even_light(cameras))
    return clip.embed_pictures((rendered.rgb + 0.5 * (1 - rendered.alpha)).permute(0, 3, 1, 2))


def test_a_job_comes_nearer_to_its_prompt(clip: Clip, folder: Path, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    job = settings(folder, LossSettings(clip_text=Constant(300.0)))
    plain = run(replace(job, stages=(replace(job.stages[0], losses=LossSettings()),)), prior, tmp_path / "plain")
    drawn = run(job, prior, tmp_path / "drawn")
    text = clip.embed_texts(["gray"])
    before, without, after = (similarity_loss(seen_by(clip, mesh), text).item() for mesh in (ball(), plain, drawn))
    assert after < before - 0.02 and after < without - 0.02


def test_a_job_changes_the_way_that_the_texts_do(clip: Clip, folder: Path, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    job = settings(folder, LossSettings(clip_direction=Constant(300.0), clip_neutral="a ball"))
    drawn = run(job, prior, tmp_path / "drawn")
    prompt, neutral = clip.embed_texts(["gray", "a ball"]).split(1)
    assert direction_loss(seen_by(clip, drawn), seen_by(clip, ball()), prompt, neutral).item() < 0.8


def test_it_goes_on_bit_for_bit_and_follows_the_prompt(folder: Path, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    losses = LossSettings(clip_text=Constant(300.0), clip_direction=Constant(100.0))
    job = settings(folder, losses)
    whole = run(job, prior, tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()
    for event in run_job(job, ball(), prior, cut):
        if isinstance(event, CheckpointSaved) and event.step == 5:
            break
    *events, last = run_job(job, ball(), prior, cut, resume=True)
    assert np.array_equal(last.mesh.positions, whole.positions) and np.array_equal(last.mesh.colors, whole.colors)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == 7 and all({"clip_text", "clip_direction"} <= event.numbers.keys() for event in steps)

    control = Control()
    control.steer(prompt="dark")
    first = next(event for event in run_job(job, ball(), prior, tmp_path, control) if isinstance(event, StepDone))
    other = next(event for event in run_job(job, ball(), prior, tmp_path) if isinstance(event, StepDone))
    assert first.numbers["clip_text"] != pytest.approx(other.numbers["clip_text"], rel=1e-3)


def test_networks_that_nothing_needs_are_not_looked_for(tmp_path: Path) -> None:
    features = FeatureSettings("nowhere", "nowhere")
    job = settings(tmp_path, LossSettings(reference_perceptual=Constant(1.0), reference_clip=Constant(1.0)), features=features)
    networks = load_feature_networks(job, CPU)  # there are no reference pictures
    assert networks.perceptual is None and networks.clip is None


def test_a_loss_without_its_network_says_how_to_name_it(prior: GaussianMixturePrior, tmp_path: Path) -> None:
    text = LossSettings(clip_text=Constant(1.0))
    with pytest.raises(InputError, match=r"losses.clip_text .* none is named.*a CLIP model \(--clip, features.clip\)"):
        next(run_job(settings(tmp_path, text, features=FeatureSettings()), ball(), prior, tmp_path))
    look = LossSettings(reference_perceptual=Constant(1.0))
    job = settings(tmp_path, look, features=FeatureSettings(), references=(ReferenceSettings(),))
    with pytest.raises(InputError, match=r"losses.reference_perceptual .*LPIPS's layers \(--perceptual, features.perceptual\)"):
        load_feature_networks(job, CPU)
    whole = replace(job, features=FeatureSettings(perceptual=str(write_perceptual(tmp_path / "lpips"))))
    assert load_feature_networks(whole, CPU).perceptual is not None


def test_what_cannot_be_compared_is_refused(folder: Path, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    change = LossSettings(clip_direction=Constant(1.0))
    job = settings(folder, change, start=StartShape("sphere"))
    with pytest.raises(InputError, match="since the start mesh, and this job has none. Refine a mesh"):
        next(run_job(job, None, prior, tmp_path))
    long = settings(folder, replace(change, clip_neutral="abcdefgh " * 6))
    with pytest.raises(InputError, match="reads at most 24 tokens"):
        list(run_job(long, ball(), prior, tmp_path))


def test_broken_and_absent_models_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="There is no folder 'no such'.*owner/name.*in which the weights lie"):
        load_perceptual("no such")
    with pytest.raises(InputError, match=r"is no model for perceptual losses: it has neither .safetensors nor .pth"):
        load_perceptual(str(tmp_path))
    broken = write_clip(tmp_path / "broken")
    (broken / "vocab.json").unlink()
    with pytest.raises(InputError, match="not a complete CLIP model in transformers' layout. Missing: tokenizer.json."):
        load_clip(str(broken), CPU)
    broken = write_clip(tmp_path / "damaged")
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="model.safetensors cannot be loaded"):
        load_clip(str(broken), CPU)
    other = write_clip(tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(InputError, match="is a 'siglip' according to its config.json; expected a 'clip' model"):
        load_clip(str(other), CPU)

    said: list[str] = []

    def offered(self: object, model: str, files_metadata: bool) -> object:
        file = type("File", (), {"rfilename": "pytorch_model.bin", "size": 10**9})
        return type("Info", (), {"siblings": [file]})

    monkeypatch.setattr("backend.optimize.feature_networks.cached_folder", lambda model: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offered)
    with pytest.raises(InputError, match="'owner/clip' of the hub is not a complete CLIP model .* Missing: config.json"):
        load_clip("owner/clip", CPU, said.append)
    assert not said
