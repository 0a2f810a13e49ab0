"""Whether an object has two fronts, as a prior reads it that is told the view in words, known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.optimize.janus import AZIMUTHS, ViewReading, read_views
from backend.optimize.pictures import even_light
from backend.priors.analytic import Component, GaussianMixturePrior, ViewPromptedMixture, linear_alphas_cumprod
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import MeshStage

SIZE = 16
STAGE = MeshStage(steps=1)
RED, BLUE, GRAY = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.6, 0.6, 0.6)


def ball(front: tuple, back: tuple) -> TriangleMesh:
    """A gray ball with a colored cap toward +z and one toward -z."""
    mesh = icosphere(3)
    z = mesh.positions[:, 2]
    colors = np.where((z > 0.3)[:, None], front, np.where((z < -0.3)[:, None], back, GRAY)).astype(np.float32)
    return TriangleMesh(MeshData(mesh.positions, mesh.faces, colors), STAGE)


def pictures(mesh: TriangleMesh) -> torch.Tensor:
    """What a prior is shown from the four sides, [4, 3, S, S] in [-1, 1]."""
    cameras = Cameras.orbit(list(AZIMUTHS), (STAGE.cameras.elevation_min + STAGE.cameras.elevation_max) / 2)
    with torch.no_grad():
        return mesh.render(cameras, SIZE, even_light(cameras)).composite(0.5).permute(0, 3, 1, 2) * 2 - 1


def told_in_words(true: TriangleMesh) -> ViewPromptedMixture:
    """Knows the four views of `true`; the words front, side, back and overhead make each of them likely or not."""
    views = pictures(true)
    names = ("front", "one side", "back", "other side")
    components = {name: Component(view[None], 0.1) for name, view in zip(names, views, strict=True)}
    rare = 1e-4
    shares = torch.tensor([[1, rare, rare, rare], [rare, 0.5, rare, 0.5], [rare, rare, 1, rare], [0.25] * 4])
    return ViewPromptedMixture(components, shares, linear_alphas_cumprod())


@pytest.fixture(scope="module")
def prior() -> ViewPromptedMixture:
    return told_in_words(ball(RED, BLUE))


def read(mesh: TriangleMesh, prior) -> ViewReading:
    return read_views(mesh, STAGE, prior, prior.encode_prompt("anything", ""))


def test_a_right_object_is_read_right(prior: ViewPromptedMixture) -> None:
    reading = read(ball(RED, BLUE), prior)
    assert reading.views == tuple((azimuth, azimuth) for azimuth in AZIMUTHS)
    assert reading.janus == 0.0 and reading.turned is None and reading.hears_cameras


def test_the_back_of_a_two_faced_object_is_read_as_its_front(prior: ViewPromptedMixture) -> None:
    reading = read(ball(RED, RED), prior)
    assert dict(reading.views)[0.0] == 0.0 and dict(reading.views)[180.0] == 0.0
    assert reading.janus >= 0.25 and reading.turned is None


def test_a_prior_that_hears_no_camera_reads_nothing() -> None:
    view = pictures(ball(RED, BLUE))
    deaf = GaussianMixturePrior({"it": Component(view, 0.1)}, linear_alphas_cumprod())
    reading = read(ball(RED, BLUE), deaf)
    assert reading == ViewReading((), False) and reading.janus is None


def test_an_object_alike_from_all_sides_is_not_read() -> None:
    plain = ball(GRAY, GRAY)
    reading = read(plain, told_in_words(plain))
    assert reading.janus is None


def test_turned_as_a_whole() -> None:
    turned = ViewReading(tuple((azimuth, (azimuth + 270) % 360) for azimuth in AZIMUTHS), True)
    assert turned.janus == 1.0 and turned.turned == 270.0
    assert ViewReading(((0.0, 0.0), (180.0, 0.0)), True).turned is None


def test_reading_draws_nothing_of_anybodys_and_changes_nothing(prior: ViewPromptedMixture) -> None:
    mesh = ball(RED, RED)
    before, state = mesh.to_mesh(), torch.get_rng_state()
    assert read(mesh, prior) == read(mesh, prior)
    after = mesh.to_mesh()
    assert np.array_equal(before.positions, after.positions) and np.array_equal(before.colors, after.colors)
    assert torch.equal(torch.get_rng_state(), state)
