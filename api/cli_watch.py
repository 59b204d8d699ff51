"""Watching a job: bars on a terminal, plain lines otherwise, one JSON document a message on request.

Ctrl-C leaves the job alone: it detaches and says so. Rich is imported only where somebody watches.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from api.cli_output import EXIT_BY_PHASE, ExitCode, device_words, is_terminal, print_json
from service import wording

if TYPE_CHECKING:
    from api.client import Client
    from api.transport import Document

PLAIN_INTERVAL_S = 10.0
"""Between progress lines of a log: often enough to see a stall, seldom enough to read the rest."""


class Screen(Protocol):
    """Shows what a watched job says."""

    def event(self, data: "Document") -> None:
        """A line of its history."""
        ...

    def progress(self, data: "Document") -> None:
        """Its numbers."""
        ...


def watch_job(client: "Client", job_id: str, *, is_json: bool) -> ExitCode:
    """Shows a job until it ends; the exit code says how it ended.

    Raises:
        Unreachable: the service has not answered for a while.
    """
    try:
        with _screen(is_json) as screen:
            for message in client.jobs.watch(job_id):
                if is_json:
                    print_json({"kind": message.kind, **message.data})
                elif message.kind == "event":
                    screen.event(message.data)
                elif message.kind == "progress":
                    screen.progress(message.data)
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; the job goes on. `isoflop watch {job_id}` shows it again", err=True)
        return ExitCode.cancelled
    job = client.jobs.get(job_id)
    if not is_json:
        typer.echo(ending_line(job.document))
    return EXIT_BY_PHASE[job.phase]


def ending_line(document: "Document") -> str:
    """One line: how it ended, what it cost, where to look next."""
    progress = document["progress"]
    word = wording.state_word(wording.JOB_WORDS, document["phase"]).word
    parts = [
        f"{document['id']} {word}: {wording.plural(progress['samples'], 'sample')}",
        f"{spent_words(progress)}",
        f"{wording.flops(progress['flops']['wasted'])} FLOPs wasted",
        device_words(progress["devices"]),
    ]
    if progress["errors"]:
        parts.append(f"{wording.plural(progress['errors'], 'row')} with errors")
    if document["error"]:
        parts.append(document["error"])
    return f"{', '.join(parts)}. Next: isoflop metrics {document['id']}"


def spent_words(progress: "Document") -> str:
    """`61 % of 2.00e12 FLOPs`, `102 % of 2 GPU-hours, 0.04 beyond the limit`."""
    budget = progress["budget"]
    if not budget["limit"]:
        return "imported, nothing spent"
    limit = wording.quantity(budget["limit"], budget["currency"])
    beyond = f", {wording.quantity(budget['overshoot'], budget['currency'])} beyond the limit"
    spent = f"{wording.percent(budget['used_fraction'], digits=0)} of {limit} {budget['unit']}"
    return spent + beyond if budget["overshoot"] else spent


def progress_words(progress: "Document") -> str:
    """`running, 7,480 samples, 61 % of 2.00e12 FLOPs, 0.0167 CPU-hours, 13,900 tok/s, 41 s left`."""
    parts = [progress["phase"], wording.plural(progress["samples"], "sample"), spent_words(progress)]
    parts.append(device_words(progress["devices"]))
    if progress["errors"]:
        parts.append(f"{wording.plural(progress['errors'], 'row')} with errors")
    if progress["tokens_per_s"] is not None:
        parts.append(f"{wording.count(progress['tokens_per_s'])} tok/s")
    if progress["eta_s"] is not None:
        parts.append(f"{wording.duration(progress['eta_s'])} left")
    return ", ".join(parts)


def bar_words(progress: "Document") -> str:
    """What stands behind the bar: `61 %  7,480 samples  13,900 tok/s  41 s left`, and the phase unless it runs."""
    is_import = not progress["budget"]["limit"]
    parts = ["imported"] if is_import else [wording.percent(progress["budget"]["used_fraction"], digits=0)]
    parts.append(wording.plural(progress["samples"], "sample"))
    if progress["tokens_per_s"] is not None:
        parts.append(f"{wording.count(progress['tokens_per_s'])} tok/s")
    if progress["phase"] != "running":
        parts.insert(0, wording.state_word(wording.JOB_WORDS, progress["phase"]).word)
    elif progress["eta_s"] is not None:
        parts.append(f"{wording.duration(progress['eta_s'])} left")
    return "  ".join(parts)


@contextmanager
def _screen(is_json: bool) -> Iterator[Screen]:
    if is_json or not is_terminal():
        yield PlainScreen()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # 10 + 20 + 48 columns: fits a terminal of 80
    columns = (TextColumn("{task.description:<9}"), BarColumn(bar_width=20), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=Console()) as bars:
        yield BarScreen(bars)


class PlainScreen:
    """Lines for logs and pipes."""

    def __init__(self) -> None:
        self._shown_at = float("-inf")
        self._phase = ""

    def event(self, data: "Document") -> None:
        """Every line of the history."""
        typer.echo(f"{data['at'][11:19]}  {data['kind']:<16}  {data['message']}")

    def progress(self, data: "Document") -> None:
        """A line when the phase changes, otherwise at intervals."""
        now = time.monotonic()
        if data["phase"] != self._phase or now - self._shown_at >= PLAIN_INTERVAL_S:
            self._phase, self._shown_at = data["phase"], now
            typer.echo(progress_words(data))


class BarScreen:
    """Bars for a terminal: the budget, and the scoring that follows it."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._budget = bars.add_task("generate", total=1.0, words="")
        self._scores = bars.add_task("score", total=None, words="")

    def event(self, data: "Document") -> None:
        """A line above the bars."""
        self._bars.console.print(
            f"{data['at'][11:19]}  {data['kind']}  {data['message']}", markup=False, highlight=False
        )

    def progress(self, data: "Document") -> None:
        """Moves the bars."""
        words = bar_words(data)
        self._bars.update(self._budget, completed=data["budget"]["used_fraction"], words=words)
        parts = data["parts"]
        words = f"{data['parts_scored']:,} of {wording.plural(parts, 'part')}"
        self._bars.update(self._scores, total=parts or None, completed=data["parts_scored"], words=words)
