"""Every warning has a job that triggers it and one that does not; and no shipped recipe is warned of before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from backend.optimize import diagnostics
from backend.optimize.checks import of_reading, of_settings
from backend.optimize.events import StageStarted, Warned
from backend.optimize.janus import ViewReading
from backend.optimize.run import run_job
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.recipes import load_recipe
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import CameraSettings, Constant, GuidanceSettings, JobSettings, Linear, LightSettings, MeshStage

SIZE = 16
BALL = icosphere(2)
GUIDANCE = GuidanceSettings(scale=Constant(1.0), rescale=0.0, t_max=Constant(0.5))
STAGE = MeshStage(steps=4, guidance=GUIDANCE, supersample=1)


class Broken(GaussianMixturePrior):
    """Predicts what is not a number in one pixel."""

    def predict_noise(self, *args, **kwargs):
        answers = super().predict_noise(*args, **kwargs)
        for answer in answers:
            answer[0, 0, 0, 0] = torch.nan
        return answers


def disk(color: tuple[float, ...] = (0.8, 0.3, 0.2), views: int = 4, kind: type = GaussianMixturePrior) -> GaussianMixturePrior:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    inside = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.6).float()
    picture = (inside * torch.tensor(color)[:, None, None] + (1 - inside) * 0.5) * 2 - 1
    return kind({"disk": Component(picture.expand(views, 3, SIZE, SIZE), 0.1)}, linear_alphas_cumprod())


def scaled(factor: float, shift: float = 0.0) -> MeshData:
    return replace(BALL, positions=(BALL.positions * np.float32(factor) + np.float32([0, shift, 0])).astype(np.float32))


def stage(**changes: object) -> MeshStage:
    return msgspec.structs.replace(STAGE, **changes)


def guided(**changes: object) -> MeshStage:
    return stage(guidance=msgspec.structs.replace(GUIDANCE, **changes))


def views(spread: float) -> MeshStage:
    cameras = CameraSettings(views=4, layout="scattered", spread=Constant(spread))
    return stage(steps=16, cameras=cameras)


def bright(rate: float) -> MeshStage:
    light = LightSettings(ambient_min=1.0, ambient_max=1.0)
    return stage(steps=8, color_rate=Constant(rate), position_rate=Constant(0.0), light=light)


HOT, COOL = Constant(0.98), Linear(0.98, 0.5)
CASES: dict[str, tuple[str, Callable[[bool], dict]]] = {
    "same words": ("negative prompt are the same", lambda bad: {"negative": "Disk " if bad else ""}),
    "hot": ("whole shapes", lambda bad: {"stage": guided(t_max=HOT if bad else COOL), "strength": 0.4}),
    "hot, but free": ("whole shapes", lambda bad: {"stage": guided(t_max=HOT), "strength": 0.3 if bad else 0.7}),
    "temperature": ("temperature", lambda bad: {"stage": guided(temperature=Constant(1.0) if bad else Linear(1.0, 0.0))}),
    "render size": ("renders 128 pixels", lambda bad: {"stage": stage(render_size=128 if bad else 64, steps=1)}),
    "texture size": ("a texture of 512", lambda bad: {"stage": stage(texture_size=512 if bad else 128, steps=1)}),
    "camera inside": ("inside the object", lambda bad: {"mesh": scaled(9.0 if bad else 1.0)}),
    "near plane": ("near plane", lambda bad: {"mesh": scaled(4.8 if bad else 3.0)}),
    "large updates": ("lengths of an edge", lambda bad: {"stage": stage(position_rate=Constant(2.0 if bad else 0.01))}),
    "fine mesh": ("edges across each pixel", lambda bad: {"mesh": scaled(0.015 if bad else 0.3)}),
    "dominates": ("loss laplacian", lambda bad: {"stage": stage(laplacian=1e7 if bad else 0.1, remesh_every=3)}),
    "no gradient": ("Nothing pulls", lambda bad: {"mesh": scaled(0.5, 9.0 if bad else 0.0)}),
    "not finite": ("not finite", lambda bad: {"prior": disk(kind=Broken if bad else GaussianMixturePrior)}),
    "saturation": ("at its limit", lambda bad: {"stage": bright(0.2 if bad else 1e-4), "prior": disk((1.0, 0.0, 0.0))}),
    "views": ("90 to 270 degrees", lambda bad: {"stage": views(180.0 if bad else 360.0), "prior": disk(views=1)}),
}


def warnings_of(
    folder: Path, stage: MeshStage = STAGE, mesh: MeshData = BALL, strength: float = 0.6, negative: str = "", prior=None
) -> list[str]:
    job = JobSettings(
        "disk", (stage,), negative_prompt=negative, strength=strength, prior="analytic", checkpoint_seconds=1e6, preview_seconds=1e6
    )
    prior = prior or disk()
    prior.encode_prompt = lambda prompt, negative, encode=prior.encode_prompt: encode("disk", "")
    return [event.message for event in run_job(job, mesh, prior, folder) if isinstance(event, Warned)]


@pytest.mark.parametrize("case", CASES)
def test_a_job_that_triggers_it_and_one_that_does_not(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "EVERY", 1)
    said, job = CASES[case]
    (tmp_path / "good").mkdir()
    good, bad = warnings_of(tmp_path / "good", **job(False)), warnings_of(tmp_path, **job(True))
    assert good == []
    assert sum(said in message for message in bad) == 1, bad
    assert len(bad) == len(set(bad))


def test_sides_read_wrong() -> None:
    right = ViewReading(((0.0, 0.0), (90.0, 90.0), (180.0, 180.0), (270.0, 270.0)), True)
    two_fronts = ViewReading(((0.0, 0.0), (90.0, 90.0), (180.0, 0.0), (270.0, 270.0)), True)
    turned = ViewReading(((0.0, 90.0), (90.0, 180.0), (180.0, 270.0), (270.0, 0.0)), True)
    causes = [[cause for cause, _ in of_reading(reading)] for reading in (right, two_fronts, turned, ViewReading((), True))]
    assert causes == [[], ["janus"], ["turned"], []]


def test_warnings_of_the_settings_come_before_the_first_step(tmp_path: Path) -> None:
    job = JobSettings("disk", (guided(temperature=Constant(1.0)),), prior="analytic")
    events = takewhile(lambda event: not isinstance(event, StageStarted), run_job(job, BALL, disk(), tmp_path))
    assert [type(event) for event in events] == [Warned]


@pytest.mark.parametrize(
    ("family", "size"),
    [("toybox", 32), ("deepfloyd", 64), ("multiview", 256), ("image_conditioned", 256), ("stable_diffusion", 512), ("flow", 512)],
)
@pytest.mark.parametrize("name", ["generate", "refine", "detail", "texture"])
def test_shipped_recipes_are_silent(family: str, size: int, name: str) -> None:
    prior = disk()
    prior.image_size = size
    recipe = load_recipe(name, family)
    for strength in (0.3, 0.5, 1.0):
        job = JobSettings("a red mug", recipe.stages, negative_prompt=recipe.negative_prompt, strength=strength)
        assert list(of_settings(job, name != "generate", prior)) == []
