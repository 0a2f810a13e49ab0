"""How long the parts of an optimization step take on this machine, as medians."""

from __future__ import annotations

import time
from statistics import median

PARTS = ("views and light", "render", "regularizers", "backward", "optimizer")
WARM_UP = 5
"""Steps that are not counted: kernels are loaded and memory is asked for in them."""


def measure(views: int, resolution: int, repeats: int, device) -> dict[str, dict[str, float]]:
    """Median milliseconds of every part of a step without the prior, by stage; "all" is the median of whole steps."""
    import torch

    from backend.optimize.stages import begin_stage
    from backend.representations.primitives import icosphere
    from protocol.settings import CameraSettings, GridStage, MeshStage

    cameras = CameraSettings(views=views)
    stages = {
        f"mesh, {len(icosphere(4).faces)} faces": (MeshStage(steps=1, cameras=cameras), icosphere(4)),
        "grid, 32 voxels": (GridStage(steps=1, cameras=cameras), None),
    }
    table = {}
    for name, (stage, mesh) in stages.items():
        running = begin_stage(stage, mesh, device)
        running.set_schedules(0.0)
        generator = torch.Generator().manual_seed(0)
        rows = [time_step(running, resolution, generator, device) for _ in range(WARM_UP + repeats)][WARM_UP:]
        table[name] = {part: round(median(row[part] for row in rows), 2) for part in (*PARTS, "all")}
    return table


def time_step(running, resolution: int, generator, device) -> dict[str, float]:
    """Milliseconds of the parts of one step, with a fixed gradient on the picture where the prior's would be."""
    from backend.optimize.views import draw_cameras
    from backend.rendering import sample_light

    laps = Laps(device)
    cameras = draw_cameras(running.stage.cameras, 0.5, 1, generator).to(device)
    light = sample_light(running.stage.light, cameras, generator)
    laps.done("views and light")
    rendered = running.representation.render(cameras, resolution, light)
    laps.done("render")
    penalty = sum(running.regularizers(0.5).values())
    laps.done("regularizers")
    for optimizer in running.optimizers:
        optimizer.zero_grad(set_to_none=True)
    (penalty + 1e-3 * rendered.rgb.sum() + 1e-3 * rendered.alpha.sum()).backward()
    laps.done("backward")
    for optimizer in running.optimizers:
        optimizer.step()
    laps.done("optimizer")
    return {**laps.milliseconds, "all": sum(laps.milliseconds.values())}


class Laps:
    """A stopwatch that waits for a GPU before it looks."""

    def __init__(self, device) -> None:
        self.device, self.milliseconds = device, {}
        self.last = self.now()

    def now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def done(self, part: str) -> None:
        now = self.now()
        self.milliseconds[part], self.last = (now - self.last) * 1e3, now


def time_prior(name: str, repeats: int, device) -> dict[str, float]:
    """Median milliseconds of the prior's answer to one group of views."""
    import torch

    from backend.cameras import Cameras
    from backend.priors import load_prior
    from backend.priors.prior import Views

    prior = load_prior(name, str(device))
    views = prior.views_per_group
    cameras = Cameras.orbit([360.0 * view / views for view in range(views)], 15.0).to(device)
    conditioning = prior.encode_prompt("a red mushroom", "")
    noisy = torch.randn(views, *prior.latent_shape, generator=torch.Generator().manual_seed(0)).to(device)
    timestep = torch.tensor(len(prior.alphas_cumprod) // 2, device=device)
    background = torch.full((views, 3), 0.5, device=device)
    answers = []
    for _ in range(1 + max(3, repeats // 5)):  # the first one is warm-up
        laps = Laps(device)
        with torch.no_grad():
            prior.predict_noise(noisy, timestep, conditioning, Views(cameras, background))
        laps.done("answer")
        answers.append(laps.milliseconds["answer"])
    return {"predict_noise": round(median(answers[1:]), 2)}


def as_text(table: dict[str, dict[str, float]]) -> str:
    lines = []
    for name, parts in table.items():
        lines += [name, *(f"  {part:16} {milliseconds:8.2f} ms" for part, milliseconds in parts.items())]
    return "\n".join(lines)
