"""What every verb of `isoflop bench` does alike: where its data goes, and how a result is printed."""

import dataclasses
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_output import print_json

Keep = Annotated[Path | None, typer.Option("--keep", help="New directory for data and logs; a temporary one without.")]


def print_result(result: Any) -> None:
    """Prints a result as JSON."""
    print_json(dataclasses.asdict(result))


@contextmanager
def bench_directory(keep: Path | None) -> Iterator[Path]:
    """Where a benchmark puts its data: kept if it was named, else gone afterwards.

    SIGTERM becomes an exit, so that a benchmark that is ended takes the service that it started with it.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="isoflop-bench-") as name:
        yield Path(name)
