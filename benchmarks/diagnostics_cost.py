"""What diagnostics cost: `python -m benchmarks.diagnostics_cost [--rounds 12] [--recipe generate] [--prompt "a red duck"]`.

For each stage of a recipe, in the middle of it: CPU seconds of this thread for a step that is observed and one that is not, in turns,
for taking a step in, and for the question from where the prior sees the object. From these follows the share of all
steps that diagnostics take, at the rhythm of backend/optimize/diagnostics.py. Medians, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from backend.optimize.diagnostics import EVERY, Diagnostics, steps_between_readings
from backend.optimize.events import StepDone
from backend.optimize.inputs import Inputs
from backend.optimize.janus import read_views
from backend.optimize.objectives import Job
from backend.optimize.population import begin_population
from backend.priors import load_prior
from backend.recipes import load_recipe
from backend.representations.primitives import icosphere
from protocol.settings import JobSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--recipe", default="generate")
    parser.add_argument("--prompt", default="a red duck")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("toybox", "cpu", print)
    settings = JobSettings(prompt=arguments.prompt, stages=load_recipe(arguments.recipe, "toybox").stages)
    conditioning = prior.encode_prompt(settings.prompt, "")
    mesh = icosphere(4)
    print("stage        step    observed   taking in   asking   |   of all steps: observing  taking in  asking  together")
    for index, stage in enumerate(settings.stages):
        job = Job(settings, Inputs(mesh), prior)
        population, diagnostics = begin_population(stage, index, mesh, job), Diagnostics(job)
        generator, within = torch.Generator().manual_seed(0), stage.steps // 2
        record, _ = population.step(within, 0.5, prior, conditioning, generator, None, False)
        plain, observed, taking, asking = [], [], [], []
        for number in range(arguments.rounds):
            for times, watched in ((plain, False), (observed, True)):
                times.append(_seconds(lambda: population.step(within, 0.5, prior, conditioning, generator, None, watched)))
            azimuths = tuple(record.cameras.azimuth.tolist())
            done = StepDone(number, 100, index, 0.0, 0.0, record.numbers, azimuths, (), record.timestep)
            taking.append(_seconds(lambda: list(diagnostics.add(done, record, population.shown, conditioning))))
        for _ in range(max(3, arguments.rounds // 4)):
            asking.append(_seconds(lambda: read_views(population.shown.representation, stage, prior, conditioning)))
        population.close()
        step = median(plain)
        extra = median(b - a for a, b in zip(plain, observed, strict=True))
        apart = steps_between_readings(stage, prior)
        parts = (extra / EVERY / step, median(taking) / step, median(asking) / apart / step)
        print(
            f"{stage.__struct_config__.tag:8} {step * 1e3:6.1f} ms  {extra * 1e3:+6.1f} ms  {median(taking) * 1e3:7.3f} ms  "
            f"{median(asking) * 1e3:6.1f} ms  |  {parts[0]:22.2%} {parts[1]:10.2%} {parts[2]:8.2%} {sum(parts):8.2%}"
        )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


if __name__ == "__main__":
    main()
