"""What a job tells about itself, as it goes over the wire: finite, and within the bounds of its fields."""

from __future__ import annotations

import math

from backend.optimize import events
from protocol.messages import Diagnosis


def diagnosis_of(event: events.Diagnosed) -> Diagnosis:
    """What is not a number is left out; shares that rounding took beyond 1 are 1."""
    janus = event.janus
    return Diagnosis(
        step=event.step,
        loss_shares=_shares(event.loss_shares),
        gradient_shares=_shares(event.gradient_shares),
        update_norms={name: norm for name, norm in event.update_norms.items() if math.isfinite(norm)},
        azimuths=tuple(event.azimuths),
        azimuth_uniformity=_share(event.azimuth_uniformity),
        timesteps=tuple(event.timesteps),
        saturation=_share(event.saturation),
        janus=None if janus is None or not math.isfinite(janus) else _share(janus),
    )


def _shares(values: dict[str, float]) -> dict[str, float]:
    return {name: _share(value) for name, value in values.items() if math.isfinite(value)}


def _share(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
