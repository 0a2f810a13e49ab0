"""CLIP's losses against transformers' own CLIP, and its input against a picture that needs no resizing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from backend.errors import InputError
from backend.losses.clip import NOTICED, Clip, direction_loss, similarity_loss
from backend.optimize.feature_networks import load_clip
from backend.priors.pretrained_models import quiet
from tests.backend.losses.tiny_features import write_clip

CPU = torch.device("cpu")
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(str(folder), CPU)


def pictures(seed: int, count: int = 3, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_cosines_are_those_of_transformers_own_model(clip: Clip, folder: Path) -> None:
    texts = ["a red mug", "ab"]
    with quiet(), torch.no_grad():
        model = CLIPModel.from_pretrained(folder)
        tokens = CLIPTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        answer = model(**tokens, pixel_values=(pictures(0) - MEAN) / DEVIATION)
        cosines = answer.logits_per_image / model.logit_scale.exp()
    embedded, texts_embedded = clip.embed_pictures(pictures(0)), clip.embed_texts(texts)
    torch.testing.assert_close(embedded @ texts_embedded.T, cosines, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(similarity_loss(embedded, texts_embedded[:1]), 1 - cosines[:, 0].mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clip.embed_texts(["ab"]), texts_embedded[1:], atol=1e-5, rtol=1e-5)
    assert cosines.std() > 0.01


def test_equal_pictures_cost_nothing_and_pull_nowhere(clip: Clip) -> None:
    picture = pictures(1, 2, 24).requires_grad_()
    own = clip.embed_pictures(picture)
    loss = similarity_loss(own, own.detach())
    assert abs(loss.item()) < 1e-6
    (gradient,) = torch.autograd.grad(loss, picture)
    other = torch.autograd.grad(similarity_loss(clip.embed_pictures(picture), clip.embed_texts(["b"])), picture)[0]
    assert gradient.abs().max() < 1e-3 * other.abs().max()


def test_a_change_along_the_texts_costs_nothing_and_against_it_two(clip: Clip) -> None:
    start, neutral, prompt = clip.embed_pictures(pictures(2)), *clip.embed_texts(["a thing", "a mug"]).split(1)
    toward = prompt - neutral
    assert direction_loss(start + 30 * toward, start, prompt, neutral).item() == pytest.approx(0.0, abs=1e-3)
    assert direction_loss(start - 30 * toward, start, prompt, neutral).item() == pytest.approx(2.0, abs=1e-3)
    assert direction_loss(start, start, prompt, neutral).item() == 1.0


def test_the_direction_is_the_papers_formula(clip: Clip) -> None:
    after, before = clip.embed_pictures(pictures(3)).double(), clip.embed_pictures(pictures(4)).double()
    neutral, prompt = clip.embed_texts(["a thing", "a mug"]).double()
    change, wanted = after - before, prompt - neutral
    expected = [1 - float(torch.dot(c, wanted) / (c.norm() * wanted.norm())) for c in change]
    shortest = change.norm(dim=1).min().item()
    assert direction_loss(after, before, prompt, neutral).item() == pytest.approx(sum(expected) / 3, abs=(NOTICED / shortest) ** 2)


def test_gradients_are_those_of_the_losses(clip: Clip) -> None:
    draw = torch.Generator().manual_seed(5)
    own, start, prompt, neutral = torch.randn(4, 3, 7, generator=draw, dtype=torch.double)
    own.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, prompt[:1]), own)
    assert torch.autograd.gradcheck(lambda x: direction_loss(x, start, prompt[:1], neutral[:1]), own)


def test_pictures_of_any_size_pass_gradients(clip: Clip) -> None:
    """Against central differences through the resizing and the whole network, in float64."""
    model = clip._model.double()
    try:
        picture, text = pictures(6, 1, 24).double() * 0.8 + 0.1, torch.ones(1, 12, dtype=torch.double)
        assert torch.autograd.gradcheck(
            lambda x: similarity_loss(clip.embed_pictures(x), text), picture.requires_grad_(), eps=1e-6, atol=1e-5, fast_mode=True
        )
    finally:
        model.float()


def test_a_text_is_never_cut_off_silently(clip: Clip) -> None:
    with pytest.raises(InputError, match="reads at most 24 tokens and 'abcdefghij.* has 32"):
        clip.embed_texts(["abcdefghij" * 3])
