"""`galatea evaluate`: makes every kind's held-out prompt and lets the independent judge look at the results."""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.errors import InputError

PARTS = ("results", "baseline", "true-objects", "wrong-prompt", "empty-prompt", "random-weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("output/evaluation"), metavar="DIR", help="meshes and records")
    parser.add_argument("--part", action="append", choices=PARTS, help="what to judge (default all; may be repeated)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="results per prompt (default 3)")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="do only the I-th of N shares of the work")
    parser.add_argument("--recipe", default="generate", metavar="NAME", help="the preset to evaluate")
    parser.add_argument("--prior", default="toybox", metavar="NAME", help="toybox (default) or a folder of its kind")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables as Markdown, a picture beside it")
    parser.add_argument("--report-only", action="store_true", help="make nothing; report what the folder holds")


def run(arguments: argparse.Namespace) -> int:
    """Prints the targets and what was reached; 1 if one was missed. Raises InputError for bad arguments."""
    from backend.evaluation.evaluate import read_records
    from backend.evaluation.evaluation_report import targets, write_report

    share = _share(arguments.share)
    if arguments.seeds < 1:
        raise InputError(f"--seeds is {arguments.seeds}; at least 1 is needed.")
    if not arguments.report_only:
        _make_and_judge(arguments, share)
    records = read_records(arguments.output)
    if not records:
        raise InputError(f"{arguments.output} holds no records to report.")
    lines = targets(records)
    for line in lines:
        mark = {True: "reached", False: "MISSED ", None: "       "}[line.reached]
        print(f"{mark}  {line.what}: {line.measured}" + (f"  (wanted {line.wanted})" if line.wanted else ""))
    if arguments.document is not None:
        picture = arguments.document.with_suffix(".png")
        write_report(records, arguments.output, arguments.document, picture)
        print(f"Tables: {arguments.document}, picture: {picture}")
    return 1 if any(line.reached is False for line in lines) else 0


def _make_and_judge(arguments: argparse.Namespace, share: tuple[int, int]) -> None:
    from backend.cli.evaluation_trials import trials_of
    from backend.evaluation.evaluate import run_trials

    for part in arguments.part or PARTS:
        trials, generate = trials_of(part, arguments.prior, arguments.recipe, arguments.seeds, arguments.threads)
        for record in run_trials(trials, generate, arguments.output, share):
            kind = f"kind {record.verdict['kind']:.2f}, IoU {record.verdict['overlap']:.2f}"
            print(f"{part}: {record.prompt or '(nothing)'}, seed {record.seed}: {kind}, {record.seconds:.0f} s", flush=True)


def _share(text: str) -> tuple[int, int]:
    """"2/3" -> (1, 3)."""
    part, _, count = text.partition("/")
    if not (part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)):
        raise InputError(f"--share is {text!r}; it is written as I/N, for example 1/2 and 2/2 for two processes.")
    return int(part) - 1, int(count)
