"""How alike pictures and texts are to CLIP (Radford et al. 2021), and whether a change of one follows that of the other.

All of them compare embeddings [N, d] of unit length, as `Clip` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.clip_input import clip_input
from backend.errors import InputError

if TYPE_CHECKING:  # seconds that jobs without CLIP do not pay
    from transformers import CLIPModel, CLIPTokenizer

NOTICED = 0.02
"""Length of a change of an embedding below which its direction means little."""


def similarity_loss(embeddings: Tensor, others: Tensor) -> Tensor:
    """1 - cosine, averaged: of pictures with pictures (CLIP image loss) or with texts. `others` is [N, d] or [1, d]."""
    return (1 - (embeddings * others).sum(dim=-1)).mean()


def direction_loss(pictures: Tensor, start_pictures: Tensor, text: Tensor, start_text: Tensor) -> Tensor:
    """The directional loss of StyleGAN-NADA (Gal et al. 2022, eq. 2), averaged over the views [N, d]:

        1 - cos(E_I(picture) - E_I(start), E_T(text) - E_T(start text)).

    Changes of pictures count as at least about `NOTICED` long: a picture that has not changed yet has no direction, and the
    gradient of its angle would drown all others.
    """
    changes, wanted = pictures - start_pictures, text - start_text
    lengths = (changes.square().sum(dim=-1) + NOTICED**2).sqrt()
    return (1 - (changes * F.normalize(wanted, dim=-1)).sum(dim=-1) / lengths).mean()


class Clip:
    """A CLIP model and its tokenizer. `name` is for messages."""

    def __init__(self, name: str, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.name, self._model, self._tokenizer = name, model.requires_grad_(False).eval(), tokenizer

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """[N, d] of `pictures` [N, 3, S, S] in [0, 1], which are resized as CLIP's own preprocessing does it; differentiable."""
        model = self._model
        pixels = clip_input(pictures, model.config.vision_config.image_size)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[K, d] of the texts.

        Raises:
            InputError: a text is longer than CLIP can read (it would be cut off silently otherwise).
        """
        model, limit = self._model, self._model.config.text_config.max_position_embeddings
        for text in texts:
            length = len(self._tokenizer(text, verbose=False).input_ids)
            if length > limit:
                raise InputError(
                    f"The CLIP model {self.name!r} reads at most {limit} tokens and {text[:40] + '...'!r} has {length}. Shorten the "
                    "text, or set losses.clip_text and losses.clip_direction to 0."
                )
        tokens = self._tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device)
        return F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=-1)
