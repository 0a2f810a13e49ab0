"""`galatea generate PROMPT`: a new mesh from words."""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec.structs import replace

from backend.cli.job_arguments import (
    JobFile,
    add_job_arguments,
    family_of,
    hold_to_stored,
    read_job_file,
    settings_of,
)
from backend.cli.output_folder import begin, default_output, take_up
from backend.errors import InputError
from backend.recipes import load_recipe
from protocol.settings import FieldStage, GridStage, JobSettings

START_KINDS = ("none", "sphere", "cube", "cylinder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--start", choices=START_KINDS, help="begin with a primitive instead of a shape of its own")
    parser.add_argument("--start-mesh", type=Path, metavar="FILE", help="begin with this mesh instead")
    parser.add_argument("--up", choices=("y", "z"), help="which axis points up in the start mesh (default y)")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for what the user can mend."""
    from backend.cli.job_session import PROGRAM, work
    from backend.cli.picture_files import ReadPictures
    from backend.cli.start_mesh import StartMesh, check_same_mesh

    if arguments.resume:
        folder = take_up(_output(arguments))
        job = read_job_file(folder.path)
        hold_to_stored(arguments, "generate", job, folder.path)
        check_same_mesh(arguments.start_mesh, arguments.up, job, folder.path)
        if arguments.start is not None and arguments.start != job.settings.start.kind:
            raise InputError(f"The job in {folder.path} was begun with --start {job.settings.start.kind}.")
        start = None if job.mesh is None else StartMesh.read_again(job.mesh)
        read = ReadPictures.read_again(job.pictures)
    else:
        settings = _new_settings(arguments)
        start = None if arguments.start_mesh is None else StartMesh.read(arguments.start_mesh, arguments.up or "y")
        read = ReadPictures.read(arguments.pictures or ())
        job = JobFile("generate", settings, None if start is None else start.source, read.sources, arguments.minutes)
        folder = begin(_output(arguments), f"{PROGRAM} generate")
    if start is None:
        return work(job, folder, arguments.resume, None, pictures=read.pictures)
    return work(job, folder, arguments.resume, start.mesh, notes=start.notes, pictures=read.pictures)


def _output(arguments: argparse.Namespace) -> Path:
    if arguments.output is not None:
        return arguments.output
    name = arguments.prompt or (arguments.pictures[0].path.stem if arguments.pictures else None)
    if name is None:
        raise InputError("Say which job to resume: its prompt (or picture) and seed, or its folder with --output.")
    return default_output(name, arguments.seed or 0)


def _new_settings(arguments: argparse.Namespace) -> JobSettings:
    name = arguments.recipe or "generate"
    recipe = load_recipe(name, family_of(arguments))
    kind = arguments.start or "none"
    if kind != "none" and arguments.start_mesh is not None:
        raise InputError("--start and --start-mesh were both given; a job begins with one of them.")
    if kind != "none" or arguments.start_mesh is not None:
        stages = tuple(stage for stage in recipe.stages if not isinstance(stage, GridStage | FieldStage))
        if not stages:
            raise InputError(f"The recipe {name} makes only a shape of its own; choose another for a start shape.")
        recipe = replace(recipe, stages=stages)
    return settings_of(arguments, name, recipe, start={"kind": kind})
