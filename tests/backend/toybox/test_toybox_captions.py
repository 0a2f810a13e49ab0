"""Captions in all phrasings read back to what they describe; what toybox does not know is refused in plain words."""

import numpy as np
import pytest

from backend.errors import InputError
from backend.toybox.captions import VOCABULARY, caption, captions, parse, words
from backend.toybox.objects import KINDS, draw_spec


def test_every_phrasing_reads_back():
    rng = np.random.default_rng(0)
    for number in range(1500):
        spec = draw_spec(rng, held_out=number % 2 == 1)
        for _, text in captions(spec, rng):
            parsed = parse(text)
            assert parsed.kind is spec.kind and parsed.size == spec.size, text
            assert parsed.main == (spec.main if spec.main in words(text) else None), text
            assert parsed.second == (spec.second if spec.second in words(text) else None), text


def test_captions_vary_and_mostly_name_both_colors():
    rng = np.random.default_rng(1)
    spec = draw_spec(rng)
    texts = [caption(spec, rng) for _ in range(300)]
    assert len(set(texts)) >= 8
    both = np.mean([spec.main in words(text) and spec.second in words(text) for text in texts])
    assert 0.6 < both < 0.95


def test_vocabulary_is_unambiguous_and_parts_are_not_kinds():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    names = {kind.name for kind in KINDS}
    assert not names & {noun for kind in KINDS for noun in kind.main + kind.second}
    assert all(not set(kind.main) & set(kind.second) for kind in KINDS)
    for kind in KINDS:
        assert {*kind.main, *kind.second} <= set(VOCABULARY)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a red mushroom with a white stem", ("mushroom", "red", "white", "")),
        ("White-Stemmed RED mushroom!", ("mushroom", "red", "white", "")),
        ("mushroom, red cap, white stalk", ("mushroom", "red", "white", "")),
        ("a tall red mushroom", ("mushroom", "red", None, "tall")),
        ("a mushroom", ("mushroom", None, None, "")),
        ("the chair with brown legs", ("chair", None, "brown", "")),
        ("a teal ice cream with an orange cone", ("ice cream", "teal", "orange", "")),
        ("Ice-Cream, pink scoops", ("ice cream", "pink", None, "")),
        ("a grey doughnut with pink icing", ("donut", "gray", "pink", "")),
        ("a plane that is red with blue wings", ("airplane", "red", "blue", "")),
        ("a red and white rocket", ("rocket", "red", "white", "")),
        ("rocket, red and white", ("rocket", "red", "white", "")),
        ("green-leaved red apple", ("apple", "red", "green", "")),
        ("a wide orange-colored cactus", ("cactus", "orange", None, "wide")),
    ],
)
def test_prompts_a_person_might_type(prompt, expected):
    parsed = parse(prompt)
    assert (parsed.kind.name, parsed.main, parsed.second, parsed.size) == expected
    assert set(words(prompt)) <= set(VOCABULARY)


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("a dragon breathing fire", ["'dragon'", "'breathing'", "'fire'", "mushroom", "teal", "--prior FOLDER|HUB_ID"]),
        ("a crimson mug", ["'crimson'", "purple"]),
        ("", ["no words"]),
        (" ,.! ", ["no words"]),
        ("red", ["names no object", "snowman"]),
        ("a red mug and a blue chair", ["more than one object", "mug", "chair"]),
        ("a red mug with a blue roof", ["'roof'", "handle"]),
        ("a red mushroom with a blue cap", ["more than one color", "blue", "red"]),
        ("a red green blue mug", ["more than one color"]),
        ("a teapot with a red spout and a blue lid", ["more than one color"]),
        ("a tall wide mug", ["tall and wide"]),
    ],
)
def test_refusals_say_what_is_wrong(prompt, said):
    with pytest.raises(InputError) as refusal:
        parse(prompt)
    for phrase in said:
        assert phrase in str(refusal.value)
