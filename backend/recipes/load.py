"""Read a recipe: a TOML file whose stages fill the settings tree. A recipe has no power of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from backend.errors import InputError
from protocol.settings import Settings, Stage

PRESETS = Path(__file__).resolve().parent / "presets"


class Recipe(Settings):
    """`summary` is one sentence for a person; `stages` go into `JobSettings` as they are."""

    summary: str
    stages: tuple[Stage, ...]


def recipe_names() -> list[str]:
    """The names that `load_recipe` accepts."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """The preset of this name. Raises InputError for a name that is not there."""
    if name not in recipe_names():
        raise InputError(f"There is no recipe {name!r}. Recipes: {', '.join(recipe_names())}.")
    with open(PRESETS / f"{name}.toml", "rb") as file:
        return msgspec.convert(tomllib.load(file), Recipe)


def shortened(stages: tuple[Stage, ...], steps: int) -> tuple[Stage, ...]:
    """The same stages with `steps` steps in all, in the same proportions, at least one each.

    Raises InputError if there are fewer steps than stages.
    """
    if steps < len(stages):
        raise InputError(f"{steps} steps were asked for, but the recipe has {len(stages)} stages; ask for at least {len(stages)}.")
    total = sum(stage.steps for stage in stages)
    counts = [max(1, round(steps * stage.steps / total)) for stage in stages]
    counts[counts.index(max(counts))] += steps - sum(counts)
    return tuple(msgspec.structs.replace(stage, steps=count) for stage, count in zip(stages, counts))
