"""Toward the prompt as CLIP understands it: the renders themselves, or how they have changed since the start mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.losses.clip import Clip, direction_loss, similarity_loss
from backend.optimize.objectives import Job, Objective, Seen
from backend.optimize.pictures import ShownMesh
from backend.priors.images import composite
from protocol.settings import LossSettings, Stage, largest, value_at


def make_clip_objective(stage: Stage, job: Job) -> ClipObjective | None:
    """None where neither of its losses weighs anything.

    Raises:
        InputError: there is no prompt to compare with, or no start mesh to measure the change from.
    """
    losses, clip = stage.losses, job.features.clip
    toward_text, toward_change = largest(losses.clip_text) > 0, largest(losses.clip_direction) > 0
    if clip is None or not (toward_text or toward_change):
        return None
    if not job.settings.prompt.strip():
        raise InputError(
            "losses.clip_text and losses.clip_direction compare renders with the prompt, and the prompt is empty. Give one, or set "
            "both to 0; losses.reference_clip compares with a reference picture."
        )
    if toward_change and job.inputs.mesh is None:
        raise InputError(
            "losses.clip_direction compares how the object has changed since the start mesh, and this job has none. Refine a mesh, "
            "or use losses.clip_text."
        )
    device = job.prior.alphas_cumprod.device
    return ClipObjective(losses, clip, ShownMesh(job.inputs.mesh, device) if toward_change else None)


class ClipObjective(Objective):
    """CLIP's losses on the views that the prior is shown, averaged over them."""

    def __init__(self, losses: LossSettings, clip: Clip, start: ShownMesh | None) -> None:
        self._losses, self._clip, self._start = losses, clip, start
        self._texts: dict[str, Tensor] = {}

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        toward_text = value_at(self._losses.clip_text, seen.progress)
        toward_change = value_at(self._losses.clip_direction, seen.progress)
        if not (toward_text or toward_change):
            return {}
        own = self._clip.embed_pictures(composite(seen.rendered, seen.look.background))
        prompt = self._embedded(seen.prompt)
        terms = {}
        if toward_text:
            terms["clip_text"] = toward_text * similarity_loss(own, prompt)
        if toward_change:
            neutral = self._embedded(self._losses.clip_neutral)
            terms["clip_direction"] = toward_change * direction_loss(own, self._start_views(seen), prompt, neutral)
        return terms

    @torch.no_grad()
    def _start_views(self, seen: Seen) -> Tensor:
        """The start mesh as CLIP sees it from where the object is seen, in the same light: [N, d]."""
        look, size = seen.look, seen.rendered.rgb.shape[1]
        assert self._start is not None
        rendered = self._start.render(look.cameras, size, look.light, look.shading)
        return self._clip.embed_pictures(composite(rendered, look.background))

    def _embedded(self, text: str) -> Tensor:
        """[1, d]; each text of a job is embedded once."""
        if text not in self._texts:
            self._texts[text] = self._clip.embed_texts([text])
        return self._texts[text]
