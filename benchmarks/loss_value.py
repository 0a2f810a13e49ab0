"""Is a loss worth having? The recipe `generate` without and with each of them in its last stage, held-out prompts, an independent judge.

    python -m benchmarks.loss_value --output output/loss_value [--kinds duck mushroom ...] [--seeds 0 1] [--only NAME ...]
    python -m benchmarks.loss_value --output output/loss_value --report-only

What has a record is not made again, so it can be stopped at any time; all variants of one prompt and seed stand together.
A trial takes about as long as `generate`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import msgspec
import torch

from backend.evaluation.evaluate import prompt_for
from backend.priors import load_prior
from backend.recipes import load_recipe
from benchmarks.distillation_ablation import make
from benchmarks.judged_trials import Record, Trial, held_out, run_trials, stored
from protocol.settings import JobSettings, LossSettings, Stage

WITHOUT = "without"
VARIANTS: dict[str, dict[str, object]] = {
    WITHOUT: {},
    "normal_consistency": {"normal_consistency": 0.1},
    "edge_lengths": {"edge_lengths": 0.3},
    "normal_variance": {"normal_variance": 0.1},
    "symmetry": {"symmetry": 5.0},
    "color_symmetry": {"color_symmetry": 3.0},
    "albedo_sparsity": {"albedo_sparsity": 0.03},
    "color_saturation": {"color_saturation": 0.02},
}
"""Fields of the last stage or of its losses."""


def trials(kinds: list[str], seeds: list[int], names: list[str]) -> list[Trial]:
    return [
        Trial(name, spec, JobSettings(prompt_for(spec), _stages(VARIANTS[name]), seed=seed))
        for seed in seeds
        for spec in held_out(kinds)
        for name in names
    ]


def _stages(changes: dict[str, object]) -> tuple[Stage, ...]:
    *first, last = load_recipe("generate").stages
    losses = {name: value for name, value in changes.items() if name in LossSettings.__struct_fields__}
    own = {name: value for name, value in changes.items() if name not in losses}
    return *first, msgspec.structs.replace(last, losses=msgspec.structs.replace(last.losses, **losses), **own)


def table(records: list[Record]) -> str:
    """Means over what both the variant and the plain recipe have answered; of the score also the standard error of the differences."""
    by_place = {(record.variant, record.kind, record.seed): record for record in records}
    lines = ["| loss | trials | score | change, standard error | error of colors | silhouette IoU | CPU seconds |", "|---|---|---|---|---|---|---|"]
    for name in VARIANTS:
        pairs = [
            (record, by_place[WITHOUT, kind, seed])
            for (variant, kind, seed), record in by_place.items()
            if variant == name and (WITHOUT, kind, seed) in by_place
        ]
        if not pairs:
            continue
        changes = [own.score - plain.score for own, plain in pairs]
        error = statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else float("nan")

        def mean(values: list[float]) -> str:
            return f"{statistics.fmean(values):.3f}"

        cells = [name, str(len(pairs)), mean([own.score for own, _ in pairs]), f"{statistics.fmean(changes):+.3f}, {error:.3f}"]
        cells += [mean([own.colors["color_error"] for own, _ in pairs]), mean([own.verdict["overlap"] for own, _ in pairs])]
        lines.append(f"| {' | '.join([*cells, f'{statistics.fmean([own.seconds for own, _ in pairs]):.0f}'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/loss_value"), metavar="DIR")
    parser.add_argument("--kinds", nargs="+", default=["duck", "mushroom"], metavar="KIND")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help="beside the recipe as it is")
    parser.add_argument("--report-only", action="store_true", help="make nothing; report what the folder holds")
    arguments = parser.parse_args()
    names = [name for name in VARIANTS if name in arguments.only or name == WITHOUT]
    wanted = trials(arguments.kinds, arguments.seeds, names)
    if not arguments.report_only:
        torch.set_num_threads(1)
        prior = load_prior("toybox", "cpu")
        for record in run_trials(wanted, lambda settings: make(settings, prior), arguments.output):
            print(f"{record.variant}: {record.prompt}, seed {record.seed}: score {record.score:.3f}, {record.seconds:.0f} s", flush=True)
    print(table([record for record in (stored(trial, arguments.output) for trial in wanted) if record is not None]))


if __name__ == "__main__":
    main()
