"""How the command line speaks: plain aligned lines, JSON on request, errors in the order what, got, allowed.

Owns exit codes, and the options that verbs share. Must start fast: no rich, no HTTP before a command needs it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service import wording
from service.errors import BudgetTooSmall, InvalidInput, IsoflopError, NotFound, UnknownName

if TYPE_CHECKING:
    from api.client import Client

JsonFlag = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
WatchFlag = Annotated[bool, typer.Option("--watch", help="Show it until it ends, and what it has found.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Plan only: what it would be and cost; nothing is stored.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same key and document make one.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, from `isoflop status`.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="The latest so many.")]


class ExitCode(IntEnum):
    """What the shell is told."""

    done = 0
    failed = 1
    usage = 2
    row_errors = 3
    cancelled = 130


EXIT_BY_PHASE = {
    "succeeded": ExitCode.done,
    "finished_with_errors": ExitCode.row_errors,
    "failed": ExitCode.failed,
    "cancelled": ExitCode.cancelled,
}


def exit_code_of(error: IsoflopError) -> ExitCode:
    """2 for what another command line would fix, 1 for everything else."""
    is_usage = isinstance(error, InvalidInput | UnknownName | BudgetTooSmall | NotFound)
    return ExitCode.usage if is_usage else ExitCode.failed


@dataclass(slots=True)
class CliContext:
    """What the options before the verb said. Tests pass one with their own client.

    Args:
        make_client: opens a client; by default on `url` or the service of `data_dir`.
        is_json: the running verb was asked for JSON, so that its errors are JSON too.
    """

    url: str | None = None
    data_dir: Path | None = None
    is_debug: bool = False
    is_json: bool = False
    make_client: Callable[[], "Client"] | None = None


def state_of(context: typer.Context) -> CliContext:
    """The options before the verb."""
    state = context.find_root().obj
    assert isinstance(state, CliContext), "the callback of the application sets it"
    return state


@contextmanager
def client_of(context: typer.Context, *, is_json: bool = False) -> Iterator["Client"]:
    """A client of the service the command line means."""
    from api.client import Client  # imports httpx, a third of a second that `--help` need not wait for

    state = state_of(context)
    state.is_json = is_json
    client = state.make_client() if state.make_client else Client(state.url, data_dir=state.data_dir)
    try:
        yield client
    finally:
        client.close()


def print_json(value: Any) -> None:
    """One JSON document."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_error(error: IsoflopError, *, is_json: bool) -> None:
    """An error for people on stderr, or as a document on stdout."""
    if is_json:
        print_json({"error": {"title": error.title, "status": error.status, "detail": str(error)}})
    else:
        typer.echo(f"isoflop: {error.title}: {error}", err=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> list[str]:
    """Aligned lines, columns two spaces apart; columns in `right` are aligned at their right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        aligned = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def interval(value: dict[str, float], *, is_signed: bool = False) -> str:
    """A share, or a difference of two, with its interval: `.632 [.611, .653]`."""
    write = wording.signed_share if is_signed else wording.share
    return f"{write(value['value'])} [{write(value['low'])}, {write(value['high'])}]"


def device_words(devices: dict[str, Any], *, by_stage: bool = False) -> str:
    """`0.0167 CPU-hours`, or `0.0167 CPU-hours (generate 0.0150 CPU-hours, score 0.0017 CPU-hours)`."""

    def words(time: dict[str, Any]) -> str:
        return wording.device_hours(time["gpu_hours"] * 3600, time["cpu_hours"] * 3600)

    stages = devices["by_stage"] if by_stage else {}
    parts = ", ".join(f"{stage} {words(time)}" for stage, time in stages.items()) if len(stages) > 1 else ""
    return f"{words(devices)} ({parts})" if parts else words(devices)


def print_lines(lines: Sequence[str]) -> None:
    """Lines on stdout."""
    for line in lines:
        typer.echo(line)


def is_terminal() -> bool:
    """Whether somebody watches."""
    return sys.stdout.isatty()
