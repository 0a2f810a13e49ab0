"""What a job tells about itself, as a short list in its box."""

from __future__ import annotations

from bpy.types import UILayout

from .live_job import LiveJob
from .properties import JobControls
from .protocol.messages import Diagnosis

MOST_SHARES = 5
"""Losses that are named; the others are one line."""


def draw_diagnosis(box: UILayout, live: LiveJob, controls: JobControls | None) -> None:
    """Folded away until it is wanted; nothing before the job has told anything."""
    if live.diagnosis is None or controls is None:
        return
    icon = "DOWNARROW_HLT" if controls.diagnosis else "RIGHTARROW"
    box.prop(controls, "diagnosis", text=f"Diagnosis after step {live.diagnosis.step}", icon=icon, emboss=False)
    if not controls.diagnosis:
        return
    column = box.column(align=True)
    column.scale_y = 0.8
    for name, value in lines_of(live.diagnosis):
        row = column.split(factor=0.7)
        row.label(text=name)
        row.label(text=value)


def lines_of(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """(what, how much), the most telling first."""
    lines = []
    if diagnosis.janus is not None:
        lines.append(("Views that look wrong", f"{diagnosis.janus:.0%}"))
    lines.append(("Saturated colors", f"{diagnosis.saturation:.0%}"))
    shares = sorted(diagnosis.gradient_shares.items(), key=lambda share: -share[1])
    lines += [(f"Moved by {name.replace('_', ' ')}", f"{share:.0%}") for name, share in shares[:MOST_SHARES]]
    if len(shares) > MOST_SHARES:
        lines.append(("Moved by the rest", f"{sum(share for _, share in shares[MOST_SHARES:]):.0%}"))
    return lines
