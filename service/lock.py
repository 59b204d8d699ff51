"""One controller a data directory: an exclusive flock, held as long as the process lives."""

import fcntl
import os
from pathlib import Path

from service.errors import AlreadyRunning


class DirectoryLock:
    """Holds `<data_dir>/controller.lock`.

    Raises:
        AlreadyRunning: another process holds it; the message names the process.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._path = data_dir / "controller.lock"
        # opened without truncation: a refused second process must not wipe the first one's pid
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise AlreadyRunning(
                f"{data_dir}: in use by process {holder}; stop it, or pass another --data-dir"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Lets another process in."""
        self._file.close()
