"""Reference pictures compared by features of networks: the same terms by hand, and jobs that come nearer to their picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from backend.cameras import Cameras
from backend.losses.clip import similarity_loss
from backend.optimize.events import Finished, StepDone
from backend.optimize.feature_networks import FeatureNetworks, load_clip, load_perceptual
from backend.optimize.inputs import Picture
from backend.optimize.look import Look
from backend.optimize.objectives import Seen
from backend.optimize.pictures import ShownMesh, even_light
from backend.optimize.reference_objective import ReferenceObjective
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.rendering import Light
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import (
    Constant,
    FeatureSettings,
    GuidanceSettings,
    JobSettings,
    LossSettings,
    MeshStage,
    ReferenceSettings,
)
from tests.backend.losses.tiny_features import write_clip, write_perceptual

SIDE = 64
OFF = LossSettings(reference_color=Constant(0.0), reference_mask=Constant(0.0), reference_light="white")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> FeatureSettings:
    root = tmp_path_factory.mktemp("features")
    return FeatureSettings(str(write_perceptual(root / "lpips")), str(write_clip(root / "clip")))


@pytest.fixture(scope="module")
def networks(folders: FeatureSettings) -> FeatureNetworks:
    return FeatureNetworks(load_perceptual(folders.perceptual), load_clip(folders.clip, torch.device("cpu")))


def ball(color: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> MeshData:
    mesh = icosphere(2)
    return MeshData(mesh.positions * 0.6, mesh.faces, np.tile(np.float32(color), (len(mesh.positions), 1)))


def picture() -> Picture:
    """A small red ball from the front in white light."""
    mesh, cameras = ball((0.9, 0.1, 0.1)), Cameras.orbit([0.0], 0.0)
    white = Light(torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1))
    rendered = ShownMesh(MeshData(mesh.positions * 0.7, mesh.faces, mesh.colors)).render(cameras, SIDE, white)
    rgba = torch.cat([rendered.rgb / rendered.alpha.clamp_min(1e-4), rendered.alpha], -1)[0].clamp(0, 1)
    return Picture((rgba * 255).round().to(torch.uint8).numpy())


def over(rgb: torch.Tensor, alpha: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    return (rgb + (1 - alpha) * background).permute(0, 3, 1, 2)


def test_the_terms_are_those_of_both_pictures_over_the_steps_background(networks: FeatureNetworks) -> None:
    losses = replace(OFF, reference_perceptual=Constant(2.0), reference_clip=Constant(3.0))
    stage, cameras = MeshStage(steps=1, losses=losses), Cameras.orbit([0.0], 0.0)
    shape, cpu = TriangleMesh(ball(), stage, torch.device("cpu")), torch.device("cpu")
    background = torch.tensor([[0.2, 0.6, 0.3]])
    look = Look(cameras, even_light(cameras), "lit", background)
    given = picture()
    objective = ReferenceObjective(stage, (given,), (ReferenceSettings(),), SIDE, cpu, networks)
    seen = Seen(shape, look, shape.render(cameras, SIDE, look.light), 0.0, 0.5, torch.Generator())
    terms = objective.terms(seen)

    own = shape.render(cameras, SIDE, shading="albedo")
    straight = torch.from_numpy(given.pixels.astype(np.float32) / 255)[None]
    one = over(own.rgb, own.alpha, background)
    other = over(straight[..., :3] * straight[..., 3:], straight[..., 3:], background)
    clip = networks.clip
    expected = {
        "reference_perceptual": 2 * networks.perceptual(one, other)[0],
        "reference_clip": 3 * similarity_loss(clip.embed_pictures(one), clip.embed_pictures(other)),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-4, rtol=1e-4)
        terms[name].backward(retain_graph=True)
    assert all(parameter.grad.abs().max() > 0 for group in shape.parameter_groups() for parameter in group["params"])


@pytest.mark.parametrize("loss", ["reference_perceptual", "reference_clip"])
def test_a_job_comes_nearer_to_its_picture(loss: str, folders: FeatureSettings, tmp_path: Path) -> None:
    gray = torch.zeros(4, 3, 16, 16)
    prior = GaussianMixturePrior({"gray": Component(gray, 1.0)}, linear_alphas_cumprod())
    guidance = GuidanceSettings(scale=Constant(1.0), rescale=0.0)
    stage = MeshStage(
        steps=8, guidance=guidance, losses=replace(OFF, **{loss: Constant(500.0)}), laplacian=0.1, supersample=1, color_rate=Constant(0.05)
    )
    references = (ReferenceSettings(framing="keep", background="keep"),)
    job = JobSettings("gray", (stage,), prior="analytic", features=folders, references=references)
    *events, last = run_job(job, ball(), prior, tmp_path, pictures=[picture()])
    assert isinstance(last, Finished)
    told = [event.numbers[loss] for event in events if isinstance(event, StepDone)]
    assert told[-1] < 0.8 * told[0]
