"""The prior's words: a whole-word tokenizer over a closed vocabulary, and a very small CLIP text encoder."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<start>", "<end>")
MAX_WORDS = 20


def build_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """One token a word. Words outside the vocabulary are refused before they get here, so there is no unknown token."""
    table = {word: index for index, word in enumerate([*SPECIAL, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[1]} $A {SPECIAL[2]}", special_tokens=[(SPECIAL[1], 1), (SPECIAL[2], 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        model_max_length=MAX_WORDS,
        padding_side="right",
    )


def build_text_encoder(vocabulary_size: int, width: int = 64) -> CLIPTextModel:
    """Two layers over whole words (Radford et al. 2021, at toy size)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size + len(SPECIAL),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_WORDS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
