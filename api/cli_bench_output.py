"""What the verbs of `isoflop bench` do alike: where data goes, and how a result is printed."""

import dataclasses
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar, cast

import typer

from api.cli_output import print_json, state_of

if TYPE_CHECKING:
    from api.local.bench_machine import Machine

Keep = Annotated[Path | None, typer.Option("--keep", help="New directory for data and logs; a temporary one without.")]


class Result(Protocol):
    """What a benchmark found, a dataclass."""

    @property
    def machine(self) -> "Machine":
        """Where."""
        ...


R = TypeVar("R", bound=Result)


def measured(context: typer.Context, keep: Path | None, *, as_json: bool, measure: Callable[[Path], R]) -> R | None:
    """Measures, and prints everything as JSON or the first line for people; the result if the rest is still to print.

    Args:
        measure: is given the directory for its data.
    """
    state_of(context).is_json = as_json
    with _directory(keep) as directory:
        result = measure(directory)
    if as_json:
        print_json(dataclasses.asdict(cast("Any", result)))
        return None
    typer.echo(result.machine.to_line())
    return result


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
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
