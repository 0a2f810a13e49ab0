"""What may be asked of a running job from another thread: pause, go on, stop."""

from __future__ import annotations

import threading


class Control:
    """Thread-safe; the loop looks at it between two steps."""

    def __init__(self) -> None:
        self._go_on = threading.Event()
        self._go_on.set()
        self._cancelled = threading.Event()

    def pause(self) -> None:
        self._go_on.clear()

    def resume(self) -> None:
        self._go_on.set()

    def cancel(self) -> None:
        """Stop after the step under way; the loop writes a checkpoint first, so that the job can be resumed."""
        self._cancelled.set()
        self._go_on.set()

    @property
    def paused(self) -> bool:
        return not self._go_on.is_set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait_while_paused(self) -> None:
        self._go_on.wait()
