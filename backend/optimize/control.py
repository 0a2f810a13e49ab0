"""What may be asked of a running job from another thread: pause, go on, stop, another aim, a preview now."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Aim:
    """What the loop works toward: it may be changed under way, and is kept in the checkpoint."""

    prompt: str
    negative_prompt: str
    strength: float


class Control:
    """Thread-safe; the loop looks at it between two steps."""

    def __init__(self) -> None:
        self._go_on = threading.Event()
        self._go_on.set()
        self._cancelled = threading.Event()
        self._preview_asked = threading.Event()
        self._lock = threading.Lock()
        self._changes: dict[str, object] = {}

    def pause(self) -> None:
        self._go_on.clear()

    def resume(self) -> None:
        self._go_on.set()

    def cancel(self) -> None:
        """Stop after the step under way; the loop writes a checkpoint first, so that the job can be resumed."""
        self._cancelled.set()
        self._go_on.set()

    def steer(self, prompt: str | None = None, negative_prompt: str | None = None, strength: float | None = None) -> None:
        """Change the aim from the next step on; None leaves a part as it is."""
        changes = {"prompt": prompt, "negative_prompt": negative_prompt, "strength": strength}
        with self._lock:
            self._changes |= {name: value for name, value in changes.items() if value is not None}

    def ask_preview(self) -> None:
        """Have the loop yield a Preview after the step under way."""
        self._preview_asked.set()

    @property
    def paused(self) -> bool:
        return not self._go_on.is_set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait_while_paused(self) -> None:
        self._go_on.wait()

    def steered(self, aim: Aim) -> Aim:
        """The aim after what was asked for since the last call; `aim` itself if nothing was."""
        with self._lock:
            changes, self._changes = self._changes, {}
        return replace(aim, **changes) if changes else aim

    def take_preview_request(self) -> bool:
        """Whether a preview was asked for since the last call."""
        asked = self._preview_asked.is_set()
        self._preview_asked.clear()
        return asked
