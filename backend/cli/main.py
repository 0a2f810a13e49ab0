"""The command line: one parser, one module per subcommand, and the exit codes.

A subcommand is a module of this folder with two functions:

    def add_arguments(parser: argparse.ArgumentParser) -> None   # its own options
    def run(arguments: argparse.Namespace) -> int                # does it; returns the exit code

Its module level imports nothing heavy (torch, warp, matplotlib, ...): that happens inside `run`, so that `--help` and
bad arguments answer at once. Only the module of the chosen subcommand is imported: `doctor` must be able to speak when
another one is broken. `run` raises `InputError` for what the user can mend. A subcommand that wants the arguments which
its parser does not know (`test` passes them on to pytest) says `parser.set_defaults(passed_on=[])`.

Exit codes: 0 done, 1 it ran but the result is not good (a failed test, a doctor's problem), 2 bad input,
130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from backend.errors import InputError


class Command(NamedTuple):
    """A subcommand's name, the module of `backend.cli` that does it, and the line that `--help` shows."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("generate", "generate", "make a mesh from a prompt"),
    Command("refine", "refine", "change a mesh of yours toward a prompt; its topology and UVs stay"),
    Command("stability", "stability", "make a mesh by several seeds and tell how far they agree"),
    Command("recipes", "recipes", "list the presets for each family of priors"),
    Command("serve", "serve", "run the service that Blender talks to, on this computer only"),
    Command("train-toybox", "train_toybox", "train the embedded prior anew"),
    Command("evaluate", "evaluate", "let the independent judge look at what generate makes"),
    Command("bench", "bench", "time the renderer or the parts of an optimization step on this machine"),
    Command("doctor", "doctor", "tell what this machine can do and what is missing"),
    Command("test", "test", "run the test suite (further arguments go to pytest)"),
)


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the `chosen` subcommand gets its options (and has its module imported)."""
    parser = argparse.ArgumentParser(
        prog="galatea", description="Turns words into meshes by score distillation.", allow_abbrev=False
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        if command.name == chosen:
            module = importlib.import_module(f"backend.cli.{command.module}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments with `run` in them; exits with code 2 on bad ones, as argparse does."""
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    parser = build_parser(chosen)
    arguments, unknown = parser.parse_known_args(argv)
    if hasattr(arguments, "passed_on"):
        arguments.passed_on = unknown
    elif unknown:
        parser.error(f"{chosen} does not know {' '.join(unknown)}")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Runs one subcommand; returns the process's exit code."""
    try:
        arguments = parse(argv)
        return int(arguments.run(arguments))
    except InputError as error:
        print(f"galatea: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("galatea: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"galatea: the disk is full{where}; free some space and run the same command again", file=sys.stderr)
        return 2
