"""LPIPS against its formula written out in float64, and weights that are not what they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.errors import InputError
from backend.losses.perceptual import Lpips, lpips_from, read_lpips
from tests.backend.losses.tiny_features import lpips_weights, vgg_weights, write_both_in_one, write_perceptual


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return lpips_from(vgg_weights() | lpips_weights(), "a test").double()


def pictures(seed: int, count: int = 2, side: int = 20) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]


def written_out(one: np.ndarray, other: np.ndarray) -> float:
    """Zhang et al. 2018, equation 1, on pictures [3, S, S] in [0, 1]."""
    weights = {name: value.double().numpy() for name, value in (vgg_weights() | lpips_weights()).items()}
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    both = [((2 * x - 1) - shift[:, None, None]) / scale[:, None, None] for x in (one, other)]
    blocks, distance = [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]], 0.0
    for number, block in enumerate(blocks):
        if number:
            even = [x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2] for x in both]
            both = [x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max(axis=(2, 4)) for x in even]
        for index in block:
            layer = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            both = [np.maximum(convolved(x, *layer), 0) for x in both]
        unit = [x / (np.sqrt((x**2).sum(axis=0)) + 1e-10) for x in both]
        of_channels = weights[f"lin{number}.model.1.weight"][0, :, 0, 0]
        distance += np.einsum("chw,c->hw", (unit[0] - unit[1]) ** 2, of_channels).mean()
    return distance


def test_the_distance_is_the_formula_written_out(lpips: Lpips) -> None:
    one, other = pictures(0), pictures(1)
    expected = [written_out(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(lpips(one, other).numpy(), expected, rtol=1e-6)  # the constants are float32
    assert min(expected) > 0.05


def test_equal_pictures_cost_nothing_and_pull_nowhere(lpips: Lpips) -> None:
    picture = pictures(2).requires_grad_()
    distance = lpips(picture, picture.detach())
    assert torch.equal(distance, torch.zeros(2, dtype=torch.double))
    (gradient,) = torch.autograd.grad(distance.sum(), picture)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_gradient_is_that_of_the_distance(lpips: Lpips) -> None:
    one, other = pictures(3, 1, 16).requires_grad_(), pictures(4, 1, 16)
    assert torch.autograd.gradcheck(lambda x: lpips(x, other), one, eps=1e-7, atol=1e-4, fast_mode=True)


def test_what_is_kept_of_one_picture_serves_many(lpips: Lpips) -> None:
    one, other = pictures(5), pictures(6, 1)
    kept = lpips.directions(other)
    torch.testing.assert_close(lpips.between(lpips.directions(one), kept), lpips(one, other.expand(2, -1, -1, -1)))


def test_a_flat_picture_has_a_finite_gradient(lpips: Lpips) -> None:
    flat = torch.zeros(1, 3, 16, 16, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(lpips(flat, pictures(7, 1, 16)).sum(), flat)
    assert gradient.isfinite().all()


def test_both_ways_of_publishing_give_one_network(tmp_path: Path) -> None:
    two, one = read_lpips(write_perceptual(tmp_path / "two")), read_lpips(write_both_in_one(tmp_path / "one"))
    a, b = pictures(8).float(), pictures(9).float()
    assert torch.equal(two(a, b), one(a, b))
    assert not any(parameter.requires_grad for parameter in two.parameters())


def test_too_small_pictures_are_refused(lpips: Lpips) -> None:
    with pytest.raises(InputError, match="pictures of 8 x 8 pixels; VGG16 needs at least 16 x 16"):
        lpips(pictures(0, 1, 8), pictures(1, 1, 8))


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There are no weights in .*expected .safetensors or .pth"):
        read_lpips(tmp_path)
    whole = vgg_weights() | lpips_weights()
    alone = vgg_weights()
    with pytest.raises(InputError, match="5 of 31 weights are missing, the first is lin0.model.1.weight; .* Put torchvision's"):
        lpips_from(alone, "x")
    renamed = {f"net.{name}": value for name, value in whole.items()}
    with pytest.raises(InputError, match="31 of 31 weights are missing, the first is features.0.weight; it begins with net.class"):
        lpips_from(renamed, "x")
    wrong = whole | {"lin2.model.1.weight": torch.rand(1, 5, 1, 1)}
    with pytest.raises(InputError, match=r"lin2.model.1.weight has the shape \[1, 5, 1, 1\] .* ask for \[1, 8, 1, 1\]"):
        lpips_from(wrong, "x")
    gray = whole | {"features.0.weight": torch.rand(4, 1, 3, 3)}
    with pytest.raises(InputError, match=r"features.0.weight has the shape \[4, 1, 3, 3\]"):
        lpips_from(gray, "x")


def test_files_that_are_no_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vgg.pth"
    torch.save({"lin0.model.1.weight": Path("run me")}, file)
    with pytest.raises(InputError, match="holds Python objects, which are not opened"):
        read_lpips(tmp_path)
    torch.save([torch.zeros(2)], file)
    with pytest.raises(InputError, match="something else than a table of weights"):
        read_lpips(tmp_path)
    monkeypatch.setattr("backend.losses.perceptual.LARGEST_FILE", 100)
    with pytest.raises(InputError, match="more than VGG16 can have"):
        read_lpips(tmp_path)
    file.unlink()
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="broken.safetensors cannot be read"):
        read_lpips(tmp_path)
