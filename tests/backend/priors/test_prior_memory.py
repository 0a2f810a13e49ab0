"""Memory said beforehand, against what is really there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.priors.memory import gigabytes, parameter_count, saved_for_backward


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7), "c": torch.zeros(())}, path, {"format": "pt"})
    return path


def test_parameters_are_counted_from_the_header(weights: Path) -> None:
    assert parameter_count(weights) == 3 * 5 + 7 + 1


@pytest.mark.parametrize("kept", [0, 5, 40, -4])
def test_a_file_cut_off_is_named(weights: Path, kept: int) -> None:
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(InputError, match="weights.safetensors is not a complete safetensors file"):
        parameter_count(weights)


def test_a_file_that_is_something_else_is_named(weights: Path) -> None:
    weights.write_text("<html>404, but saved as a model all the same</html>")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        parameter_count(weights)


def test_what_autograd_keeps_is_counted_once_and_without_weights() -> None:
    with torch.device("meta"):
        layer = torch.nn.Conv2d(2, 4, 1, bias=False)
    image = torch.empty(1, 2, 10, 10, device="meta", requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        hidden = layer(x)  # keeps x: 2 x 100 floats
        return (hidden.sigmoid() * hidden).sin()  # sigmoid keeps its result, the product that and hidden, sine its input

    assert saved_for_backward(function, image) == 4 * (200 + 400 + 400 + 400)


def test_sizes_are_said_in_words() -> None:
    assert (gigabytes(2_130_000_000), gigabytes(270_000)) == ("2.1 GB", "0.3 MB")
