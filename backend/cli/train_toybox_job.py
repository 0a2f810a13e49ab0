"""What `galatea train-toybox` does; apart from its arguments, so that `--help` stays light."""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from backend.cache_folder import cache_folder
from backend.priors.toybox import TOYBOX_FOLDER
from backend.toybox.data import make_data
from backend.toybox.sampling import draw_loss_plot, draw_picture_sheet, draw_sample_sheet
from backend.toybox.training import TrainingSettings, new_model, train

LOG_EVERY = 20


def train_toybox(arguments: argparse.Namespace) -> int:
    """Resumes from the state folder where an earlier run was stopped; a finished run only saves its results again."""
    torch.set_num_threads(arguments.threads)
    state = arguments.state or cache_folder() / "toybox-training"
    output = arguments.output or TOYBOX_FOLDER
    settings = TrainingSettings(
        seed=arguments.seed,
        template_steps=arguments.template_steps,
        pictures_steps=arguments.pictures_steps,
        unet_steps=arguments.unet_steps,
    )
    log = state / "log.jsonl"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        rendering = progress.add_task("rendering objects", total=arguments.objects)
        data = make_data(
            state / "data", arguments.objects, arguments.seed, lambda done, _: progress.update(rendering, completed=done)
        )
        model = new_model(arguments.seed).to(arguments.device)
        bars = {
            "template": progress.add_task("3D template", total=settings.template_steps),
            "pictures": progress.add_task("pictures", total=settings.pictures_steps),
            "unet": progress.add_task("denoiser", total=settings.unet_steps),
        }
        recent: deque[float] = deque(maxlen=LOG_EVERY)
        for done in train(model, data, settings, state):
            recent.append(done.loss)
            progress.update(bars[done.phase], completed=done.step, description=f"{done.phase} loss {sum(recent) / len(recent):.4f}")
            if done.step % LOG_EVERY == 0:
                entry = {"phase": done.phase, "step": done.step, "loss": sum(recent) / len(recent), "seconds": done.seconds, "time": time.time()}
                with open(log, "a") as file:
                    file.write(json.dumps(entry) + "\n")
    _save_results(model, settings, log, output)
    return 0


def _save_results(model, settings: TrainingSettings, log: Path, output: Path) -> None:
    for network in model.to("cpu").networks():
        network.eval().requires_grad_(False)
    model.save(output)
    draw_loss_plot(log, output / "loss.png")
    draw_sample_sheet(model, output / "samples_seen.png", held_out=False, seed=settings.seed)
    draw_sample_sheet(model, output / "samples_held_out.png", held_out=True, seed=settings.seed)
    draw_picture_sheet(model, output / "samples_pictures.png", held_out=True, seed=settings.seed)
    print(f"The prior is in {output}; look at the sheets of samples there.")
