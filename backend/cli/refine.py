"""`galatea refine MESH PROMPT`: an artist's mesh, changed toward words; its topology, polygons and UVs stay."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from backend.cli.job_arguments import (
    JobFile,
    add_job_arguments,
    family_of,
    hold_to_stored,
    read_job_file,
    settings_of,
)
from backend.cli.output_folder import begin, default_output, take_up
from backend.cli.region_arguments import add_region_arguments, check_same_regions, masks_of, regions_of
from backend.errors import InputError
from backend.recipes import keeping_topology
from protocol.settings import JobSettings, RegionSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mesh", type=Path, metavar="MESH", nargs="?", help="the mesh to refine (OBJ, GLB, PLY, STL, ...)")
    add_job_arguments(parser)
    add_region_arguments(parser)
    parser.add_argument("--up", choices=("y", "z"), help="which axis points up in that file (default y)")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for what the user can mend."""
    from backend.cli.job_session import PROGRAM, work
    from backend.cli.picture_files import ReadPictures
    from backend.cli.start_mesh import StartMesh, check_same_mesh

    if arguments.resume:
        folder = take_up(_output(arguments))
        job = read_job_file(folder.path)
        hold_to_stored(arguments, "refine", job, folder.path)
        check_same_mesh(arguments.mesh, arguments.up, job, folder.path)
        check_same_regions(arguments, job.settings.regions, job.regions, folder.path)
        start = StartMesh.read_again(job.mesh)
        read = ReadPictures.read_again(job.pictures)
        masks = masks_of(job.regions, start)
    else:
        regions, sources = regions_of(arguments)
        settings = _new_settings(arguments, regions)
        start = StartMesh.read(arguments.mesh, arguments.up or "y")
        read = ReadPictures.read(arguments.pictures or ())
        masks = masks_of(sources, start)
        job = JobFile("refine", settings, start.source, read.sources, arguments.minutes, regions=sources)
        folder = begin(_output(arguments), f"{PROGRAM} refine")
    obstacle = start.obstacle()
    if obstacle is None:
        return work(job, folder, arguments.resume, start.mesh, start.write_result, start.notes, read.pictures, masks)
    notes = (*start.notes, f"The result will be in mesh.glb only. {obstacle}")
    return work(job, folder, arguments.resume, start.mesh, None, notes, read.pictures, masks)


def _output(arguments: argparse.Namespace) -> Path:
    if arguments.output is not None:
        return arguments.output
    name = arguments.prompt or (arguments.pictures[0].path.stem if arguments.pictures else None)
    if arguments.mesh is None or name is None:
        raise InputError("Say which job to resume: its mesh, prompt (or picture) and seed, or its folder with --output.")
    return default_output(f"{arguments.mesh.stem} {name}", arguments.seed or 0)


def _new_settings(arguments: argparse.Namespace, regions: tuple[RegionSettings, ...]) -> JobSettings:
    if arguments.mesh is None:
        raise InputError("Name the mesh to refine and then the prompt: refine chair.obj \"a red chair\".")
    name = arguments.recipe or "refine"
    return settings_of(arguments, name, keeping_topology(name, family_of(arguments)), regions=msgspec.to_builtins(regions))
