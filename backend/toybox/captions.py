"""The words toybox knows: captions of objects in several phrasings, and prompts read back into what they ask for.

The grammar is small: a color belongs to the noun after it (or, at the end of a phrase, before it); a noun is a kind or
a part of that kind. A word that is not in the vocabulary is refused, never skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from backend.errors import InputError
from backend.toybox.kind import Kind
from backend.toybox.objects import KINDS, SIZES, ObjectSpec
from backend.toybox.palette import COLORS

_KIND_TOKENS: dict[str, Kind] = {kind.name.replace(" ", "-"): kind for kind in KINDS}
_PARTS: tuple[str, ...] = tuple(sorted({noun for kind in KINDS for noun in kind.main + kind.second}))

VOCABULARY: list[str] = [*COLORS, *(size for size in SIZES if size), *_KIND_TOKENS, *_PARTS]
"""Every token that `words` can give, in a fixed order. "ice cream" is the one token "ice-cream"."""

_FILLERS = frozenset(
    "a an the with and of has having that which is are its in on one single color colored colour coloured".split()
)
_IRREGULAR = {
    "leaves": "leaf", "leaved": "leaf", "iced": "icing", "frosted": "frosting", "icecream": "ice-cream", "grey": "gray",
}  # fmt: skip
_SYNONYMS = {word: name for name, kind in _KIND_TOKENS.items() for word in kind.synonyms}

_IRREGULAR_ADJECTIVES: dict[str, str | None] = {
    "leaf": "leaved", "icing": "iced", "frosting": "frosted", "glaze": "glazed",
    "plate": None, "base": None, "stand": None, "holder": None, "foot": None, "funnel": None, "label": "labeled",
}  # fmt: skip
_PLURALS = {"leaf": "leaves"} | {
    noun: noun + "s" for noun in ("leg", "wheel", "headlight", "fin", "wing", "wall", "arm")
}
_MASS_NOUNS = frozenset("icing frosting glaze foliage wax skin dough fabric".split())


@dataclass(frozen=True)
class ParsedPrompt:
    """What a prompt asks for; a color it does not mention is None, a size it does not mention is ""."""

    kind: Kind
    main: str | None
    second: str | None
    size: str


def caption(spec: ObjectSpec, rng: np.random.Generator) -> str:
    """One of the phrasings for `spec`; the size is always said if there is one, a color is sometimes left out."""
    phrasings = captions(spec, rng)
    weights = np.array([weight for weight, _ in phrasings])
    return phrasings[int(rng.choice(len(phrasings), p=weights / weights.sum()))][1]


def captions(spec: ObjectSpec, rng: np.random.Generator) -> list[tuple[float, str]]:
    """All phrasings for `spec` with their weights; `rng` draws the nouns of the parts."""
    kind, main, second = spec.kind.name, spec.main, spec.second
    cap = spec.kind.main[int(rng.integers(len(spec.kind.main)))]
    stem = spec.kind.second[int(rng.integers(len(spec.kind.second)))]
    size = f"{spec.size} " if spec.size else ""
    its_cap, its_stem = _with_article(cap, main), _with_article(stem, second)
    short_cap, short_stem = f"{main} {_spoken_part(cap)}", f"{second} {_spoken_part(stem)}"
    phrasings = [
        (5.0, _article(f"{size}{main} {kind} with {its_stem}")),
        (2.0, f"{size}{kind}, {short_cap}, {short_stem}"),
        (2.0, _article(f"{size}{kind} with {its_cap} and {its_stem}")),
        (2.0, _article(f"{size}{main} {kind}, {short_stem}")),
        (1.0, _article(f"{size}{main} and {second} {kind}")),
        (1.5, _article(f"{size}{main} {kind}")),
        (0.5, f"{size}{kind}, {short_cap}"),
        (0.5, _article(f"{size}{kind} with {its_stem}")),
        (0.5, _article(f"{size}{kind}")),
    ]
    adjective = _adjective(stem)
    return phrasings + ([(2.0, f"{size}{second}-{adjective} {main} {kind}")] if adjective else [])


def words(prompt: str) -> list[str]:
    """The prompt as tokens of `VOCABULARY`, in order: articles and the like dropped, plurals and "-ed" forms resolved.

    Raises InputError if the prompt is empty or has a word that toybox does not know (it names all of them).
    """
    text = re.sub(r"\bice[\s_-]+cream", "icecream", prompt.lower())
    found = [word.strip("'") for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)]
    if not found:
        raise InputError(f"The prompt {prompt!r} has no words; try \"a red mushroom with a white stem\".")
    tokens = [(word, _token(word)) for word in found if word not in _FILLERS]
    unknown = list(dict.fromkeys(word for word, token in tokens if token is None))
    if unknown:
        raise InputError(_unknown_words(unknown))
    return [token for _, token in tokens if token is not None]


def parse(prompt: str) -> ParsedPrompt:
    """What `prompt` asks for.

    Raises InputError for unknown words, no kind, two kinds, parts that the kind does not have and contradictions.
    """
    tokens = words(prompt)
    kind = _the_kind(prompt, tokens)
    sizes = {token for token in tokens if token in SIZES}
    if len(sizes) > 1:
        raise InputError(f"The prompt {prompt!r} says both tall and wide; toybox knows one of them at a time.")
    for token in tokens:
        if token in _PARTS and token not in kind.main + kind.second:
            parts = ", ".join(kind.main + kind.second)
            raise InputError(
                f"Toybox knows no {token!r} of {_article(kind.name)}; the parts it can color are: {parts}."
            )
    main, second = _colors(prompt, kind)
    return ParsedPrompt(kind, main, second, sizes.pop() if sizes else "")


def _the_kind(prompt: str, tokens: list[str]) -> Kind:
    named = list(dict.fromkeys(token for token in tokens if token in _KIND_TOKENS))
    if not named:
        raise InputError(f"The prompt {prompt!r} names no object. Toybox knows: {_kind_list()}.")
    if len(named) > 1:
        names = ", ".join(name.replace("-", " ") for name in named)
        raise InputError(f"The prompt {prompt!r} names more than one object ({names}); ask for one at a time.")
    return _KIND_TOKENS[named[0]]


def _colors(prompt: str, kind: Kind) -> tuple[str | None, str | None]:
    """Main and second color. A color belongs to the next noun of its phrase, else to the noun before it.

    Two colors of the kind itself ("a red and white mushroom") are main and second.
    """
    said: dict[str, set[str]] = {"main": set(), "second": set()}
    waiting: list[str] = []
    last = ""

    def assign(noun: str) -> None:
        if noun in _KIND_TOKENS and len(waiting) == 2:
            said["main"].add(waiting[0])
            said["second"].add(waiting[1])
        else:
            said["second" if noun in kind.second else "main"].update(waiting)
        waiting.clear()

    for phrase in re.split(r"\bwith\b|[,;:.]", prompt.lower()):
        for token in words(phrase) if re.search(r"\w", phrase) else []:
            if token in COLORS:
                waiting.append(token)
            elif token not in SIZES:
                assign(token)
                last = token
        if last:
            assign(last)
    for role, noun in (("main", kind.main[0]), ("second", kind.second[0])):
        if len(said[role]) > 1:
            raise InputError(
                f"The prompt {prompt!r} gives the {noun} of the {kind.name} more than one color "
                f"({' and '.join(sorted(said[role]))}); toybox colors {_article(kind.name)} "
                f"with one color for {'/'.join(kind.main)} and one for {'/'.join(kind.second)}."
            )
    return next(iter(said["main"]), None), next(iter(said["second"]), None)


def _token(word: str) -> str | None:
    """The vocabulary's token for one word, or None."""
    word = _IRREGULAR.get(word, word)
    for form in (word, *_singulars(word), *_nouns_of_adjective(word)):
        form = _SYNONYMS.get(form, form)
        if form in _TOKENS:
            return form
    return None


def _singulars(word: str) -> list[str]:
    endings = (("s", ""), ("es", ""), ("ves", "f"), ("i", "us"))
    return [word.removesuffix(end) + instead for end, instead in endings if word.endswith(end)]


def _nouns_of_adjective(word: str) -> list[str]:
    """What "stemmed", "handled", "legged", "finned" may be made from; only nouns of parts are looked up in this way."""
    if not word.endswith("ed"):
        return []
    stem = word[:-2]
    forms = [stem, stem + "e"] + ([stem[:-1]] if len(stem) > 2 and stem[-1] == stem[-2] else [])
    return [form for form in forms if form in _PARTS]


def _adjective(noun: str) -> str | None:
    """"stem" -> "stemmed", "handle" -> "handled", "leaf" -> "leaved"; None if there is no such word."""
    if noun in _IRREGULAR_ADJECTIVES:
        return _IRREGULAR_ADJECTIVES[noun]
    if noun.endswith("e"):
        return noun + "d"
    doubled = re.fullmatch(r".*[^aeiou][aeiou][bdgmnpt]", noun) and noun not in ("cabin", "headboard")
    return noun + (noun[-1] if doubled else "") + "ed"


def _spoken_part(noun: str) -> str:
    return _PLURALS.get(noun, noun)


def _with_article(noun: str, color: str) -> str:
    """"a white stem", "an orange cap", "blue legs", "pink icing"."""
    phrase = f"{color} {_spoken_part(noun)}"
    return phrase if noun in _PLURALS or noun in _MASS_NOUNS else _article(phrase)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _kind_list() -> str:
    return ", ".join(kind.name for kind in KINDS)


def _unknown_words(unknown: list[str]) -> str:
    listed = ", ".join(repr(word) for word in unknown)
    return (
        f"The embedded prior toybox does not know the word{'s' if len(unknown) > 1 else ''} {listed}. "
        f"It knows the objects {_kind_list()}; the colors {', '.join(COLORS)}; the sizes tall and wide; "
        "and the names of parts (\"a red mushroom with a white stem\"). "
        "A large pretrained model handles other words: --prior FOLDER|HUB_ID."
    )


_TOKENS = frozenset(VOCABULARY)

