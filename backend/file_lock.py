"""One holder at a time, across processes: a lock on a file that the system frees however its holder ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO


def try_lock(path: Path) -> BinaryIO | None:
    """Holds the lock until the returned file is closed or this process ends; None if another one has it.

    The file itself means nothing and stays behind. Raises OSError if it cannot be made.
    """
    file = path.open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return None
    return file
