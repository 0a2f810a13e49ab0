"""The options that `generate` and `refine` share, how they fill the settings tree, and how a resumed job is held to them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec

from backend.cli.loading_arguments import add_loading_arguments, given_loading
from backend.cli.picture_arguments import PictureSource, add_picture_arguments, check_same_pictures, references_of
from backend.cli.region_arguments import GivenRegion
from backend.errors import InputError
from backend.recipes import Recipe, method_names, method_of, painting, shortened, with_method
from backend.recipes.planner import Plan
from protocol.settings import JobSettings


METHODS = tuple(method_names())


class MeshSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mesh file that a job began with: its absolute path, its up axis, and a fingerprint of what was read from it."""

    path: str
    up: str
    fingerprint: str


class JobFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job/job.json`: what an unfinished job needs to be taken up again.

    `minutes` were asked for; the `plan` for them is made once, as soon as the prior is loaded, and its stages are in `settings`.
    """

    command: str
    settings: JobSettings
    mesh: MeshSource | None = None
    pictures: tuple[PictureSource, ...] = ()
    minutes: float | None = None
    plan: Plan | None = None
    regions: tuple[GivenRegion, ...] = ()

    def title(self) -> str:
        """What the job is called: its prompt, or the name of its first picture."""
        return self.settings.prompt or Path(self.pictures[0].path).stem


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Options default to None where a resumed job must know whether they were given."""
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="what to make, in words")
    parser.add_argument("--negative", metavar="PROMPT", help="what it should not look like")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed, another result (default 0)")
    parser.add_argument("--recipe", metavar="NAME", help="a preset of stages and settings (`recipes` lists them)")
    parser.add_argument("--method", choices=METHODS, metavar="NAME", help=f"distill in all stages by {', '.join(METHODS)}")
    parser.add_argument("--steps", type=int, metavar="N", help="optimization steps over all stages")
    parser.add_argument("--minutes", type=float, metavar="M", help="plan steps, views and resolution to be done by then")
    parser.add_argument("--prior", metavar="NAME", help="toybox (default), a model folder or a hub id")
    parser.add_argument("--perceptual", metavar="NAME", help="VGG16 with LPIPS's layers for losses that need it: a folder or a hub id")
    parser.add_argument("--clip", metavar="NAME", help="a CLIP model for losses that need it: a folder or a hub id")
    parser.add_argument("--strength", type=float, metavar="S", help="how far a mesh may change: 0 not at all, to 0.2 its colors, 1 freely (default 0.5)")
    parser.add_argument(
        "--texture",
        type=int,
        metavar="N",
        help="paint a texture of N x N texels instead of vertex colors; a mesh with usable UVs keeps them, and its texture's size",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (default output/...)")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished job in that folder")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default 1); results depend on it")
    add_picture_arguments(parser)
    add_loading_arguments(parser)


def checked_prompt(prompt: str | None) -> str:
    """The prompt without surrounding blanks.

    Raises:
        InputError: it is missing or empty.
    """
    if prompt is None or not prompt.strip():
        raise InputError(
            'The prompt is empty; say what to make in words, for example "a red mushroom", or give a picture of it with --image.'
        )
    return prompt.strip()


def prompt_of(arguments: argparse.Namespace) -> str:
    """The prompt without surrounding blanks; empty where a reference picture was given without one.

    Raises:
        InputError: there is neither.
    """
    if arguments.pictures and not (arguments.prompt or "").strip():
        return ""
    return checked_prompt(arguments.prompt)


def family_of(arguments: argparse.Namespace) -> str:
    """The family of recipes for the prior that was asked for."""
    from backend.priors.family import recipe_family_of

    return recipe_family_of(arguments.prior or "toybox")


def settings_of(arguments: argparse.Namespace, name: str, recipe: Recipe, **more: object) -> JobSettings:
    """The settings tree for a new job from its options and a recipe, held to the tree's own limits.

    Raises:
        InputError: a value is out of bounds; says which, and what is allowed.
    """
    stages = recipe.stages
    if arguments.minutes is not None and arguments.steps is not None:
        raise InputError("--minutes and --steps were both given; the steps follow from the minutes, so give one of them.")
    if arguments.minutes is not None and not 0 < arguments.minutes < 1e5:
        raise InputError(f"--minutes is {arguments.minutes:g}; give the time that the job may take, for example --minutes 5.")
    if arguments.texture is not None:
        if not 128 <= arguments.texture <= 8192:
            raise InputError(f"--texture is {arguments.texture}; give a number of texels from 128 to 8192.")
        stages = painting(stages, arguments.texture)
    if arguments.steps is not None:
        stages = shortened(stages, arguments.steps)
    if arguments.method is not None:
        stages = with_method(stages, arguments.method)
    given = {
        "negative_prompt": recipe.negative_prompt if arguments.negative is None else arguments.negative,
        "seed": arguments.seed,
        "prior": _prior_name(arguments.prior),
        "threads": arguments.threads,
        "strength": arguments.strength,
    }
    tree = {"prompt": prompt_of(arguments), "recipe": name, "stages": msgspec.to_builtins(stages)}
    networks = {"perceptual": arguments.perceptual, "clip": arguments.clip}
    tree["features"] = {name: _network_name(given) for name, given in networks.items() if given is not None}
    tree["references"] = msgspec.to_builtins(references_of(arguments))
    tree |= {name: value for name, value in given.items() if value is not None} | {"loading": given_loading(arguments)} | more
    try:
        return msgspec.convert(tree, JobSettings)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`").replace("_", " ") or "setting"
        raise InputError(f"The {name} cannot be used: {reason[:1].lower()}{reason[1:]}.") from error


def _prior_name(given: str | None) -> str | None:
    """"toybox" as it is; others as `_network_name`."""
    return given if given == "toybox" else _network_name(given)


def _network_name(given: str | None) -> str | None:
    """A network's folder as an absolute path, so that a job can be resumed from elsewhere; hub ids as they are."""
    return str(Path(given).resolve()) if given and Path(given).is_dir() else given


def differences(given: dict[str, object], stored: dict[str, object]) -> Iterator[str]:
    """For each option that was given (is not None) and differs from the stored job, "seed 3, not 4"."""
    for name, value in given.items():
        if value is not None and stored[name] != value:
            yield f"{name} {stored[name]!r}, not {value!r}"


def read_job_file(folder: Path) -> JobFile:
    """The job in an unfinished output folder.

    Raises:
        InputError: the file is damaged or from another version of Galatea.
    """
    try:
        return msgspec.json.decode((folder / "job" / "job.json").read_bytes(), type=JobFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"The job in {folder} cannot be read ({error}); it was damaged or made by another version of Galatea. "
            "Remove the folder and start the job again."
        ) from error


def hold_to_stored(arguments: argparse.Namespace, command: str, stored: JobFile, folder: Path) -> None:
    """Checks that the options given beside --resume are those the job was begun with; options left out are fine.

    Raises:
        InputError: names every difference.
    """
    if stored.command != command:
        raise InputError(f"The job in {folder} was begun with `{stored.command}`; resume it with that command.")
    settings = stored.settings
    check_same_pictures(arguments, settings.references, stored.pictures, folder)
    given = {
        "prompt": None if arguments.prompt in (None, settings.prompt) else checked_prompt(arguments.prompt),
        "negative": arguments.negative,
        "seed": arguments.seed,
        "recipe": arguments.recipe,
        "steps": arguments.steps,
        "minutes": arguments.minutes,
        "method": arguments.method,
        "prior": _prior_name(arguments.prior),
        "perceptual": _network_name(arguments.perceptual),
        "clip": _network_name(arguments.clip),
        "threads": arguments.threads,
        "strength": arguments.strength,
        "texture": arguments.texture,
        **given_loading(arguments),
    }
    known = {
        "prompt": settings.prompt,
        "negative": settings.negative_prompt,
        "seed": settings.seed,
        "recipe": settings.recipe,
        "steps": sum(stage.steps for stage in settings.stages),
        "minutes": stored.minutes,
        "method": method_of(settings.stages),
        "prior": settings.prior,
        "threads": settings.threads,
        "strength": settings.strength,
        "perceptual": settings.features.perceptual,
        "clip": settings.features.clip,
        "texture": max(getattr(stage, "texture_size", 0) for stage in settings.stages),
        **msgspec.structs.asdict(settings.loading),
    }
    different = list(differences(given, known))
    if different:
        raise InputError(
            f"The job in {folder} was begun with {'; '.join(different)}: leave those options out to go on with it, "
            "or name another folder with --output for a new job."
        )
