"""What the demo shows: bars on a terminal, plain lines elsewhere, and the table at the end.

Owns presentation only; every number comes in.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service import wording
from service.report import Comparison
from service.report_words import NOT_SIGNIFICANT, arm_heading, comparison_rows, findings
from service.verify import VerifyReport

PLAIN_INTERVAL_S = 5.0
PLAIN_WIDTH = 132
"""Columns where no terminal says how many there are: wide enough for every number of the table."""
Show = Callable[[dict[str, Any]], None]


class DemoScreen:
    """Prints the demo's steps."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or demo_console()
        self._started = time.monotonic()

    def start(self, num_problems: int, samples: int, url: str) -> None:
        """The first line."""
        self._console.print(
            f"[bold]isoflop demo[/] · {num_problems} problems · {samples} samples of the larger model each, "
            "the smaller one gets the same useful FLOPs"
        )
        self._console.print(f"  dashboard   {url}\n")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step without a measure of its own."""
        started = time.monotonic()
        with self._console.status(f"  {name} …"):
            yield
        self._console.print(f"  {name:<10}done in {time.monotonic() - started:.0f} s")

    @contextmanager
    def arm(self, name: str) -> Iterator[Show]:
        """Progress of one arm; the callable takes the job's document."""
        if self._console.is_terminal:
            with self._bars(name) as show:
                yield show
        else:
            with self._lines(name) as show:
                yield show

    def note(self, text: str) -> None:
        """A plain line."""
        self._console.print(f"  {text}")

    def finish(
        self,
        comparison: Comparison,
        report: Path,
        verified: Sequence[VerifyReport],
        options: Any,
    ) -> None:
        """Table, findings, where to look next."""
        self._console.print()
        self._console.print(comparison_table(comparison))
        self._console.print("\n  n.s.: not significant, the 95 % interval of the difference includes zero\n")
        for sentence in findings(comparison):
            self._console.print(f"  {sentence}", soft_wrap=True)
        rows = sum(item.rows for item in verified)
        faults = [fault for item in verified for fault in item.faults]
        outcome = f"ok: {rows:,} rows, {len(verified)} manifests, ledger agrees with files"
        self._console.print(f"\n  verify      {outcome if not faults else '; '.join(faults)}", soft_wrap=True)
        self._console.print(f"  report      {report}", soft_wrap=True)
        if not options.keep:
            self._console.print(f"  dashboard   isoflop --data-dir {options.directory} up", soft_wrap=True)
        self._console.print(f"  took        {wording.duration(time.monotonic() - self._started)}")

    @contextmanager
    def _bars(self, name: str) -> Iterator[Show]:
        columns = (
            TextColumn("  {task.description:<20}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]:>18}  {task.fields[rate]:>12}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            generate = progress.add_task(f"generate  {name}", total=1.0, counts="", rate="loading")
            score = progress.add_task(f"score     {name}", total=1.0, counts="", rate="")

            def show(document: dict[str, Any]) -> None:
                numbers = document["progress"]
                share = 1.0 if document["phase"] == "succeeded" else numbers["budget"]["used_fraction"]
                rate = numbers["tokens_per_s"]
                words = f"{wording.count(rate)} tok/s" if rate else document["phase"]
                progress.update(generate, completed=share, counts=f"{numbers['samples']:,} samples", rate=words)
                parts = max(1, numbers["parts"])
                counts = f"{numbers['parts_scored']} / {numbers['parts']} parts"
                progress.update(score, completed=numbers["parts_scored"] / parts, counts=counts)

            yield show

    @contextmanager
    def _lines(self, name: str) -> Iterator[Show]:
        printed_at = [time.monotonic() - PLAIN_INTERVAL_S]

        def show(document: dict[str, Any]) -> None:
            is_over = document["ended_at"] is not None
            if time.monotonic() - printed_at[0] < PLAIN_INTERVAL_S and not is_over:
                return
            printed_at[0] = time.monotonic()
            numbers = document["progress"]
            used = wording.percent(numbers["budget"]["used_fraction"])
            self._console.print(
                f"  {name:<8} {document['phase']:<10} {numbers['samples']:>7,} samples  {used:>7} of the budget  "
                f"{numbers['parts_scored']} of {numbers['parts']} parts scored",
                soft_wrap=True,
            )

        yield show


def demo_console() -> Console:
    """A console of the terminal's width, or of `PLAIN_WIDTH` where the output is a file or a pipe."""
    console = Console()
    if not console.is_terminal and console.width < PLAIN_WIDTH:
        return Console(width=PLAIN_WIDTH)
    return console


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a terminal table: numbers stay whole, on a narrow terminal only the first column wraps.

    Differences are those of the second arm against the first; the column after them says "n.s." where there is none.
    """
    table = Table(box=None, pad_edge=True, padding=(0, 1), show_edge=False)
    table.add_column("", overflow="fold")
    for arm in comparison.arms:
        table.add_column(arm_heading(arm), justify="right", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    table.add_column("", no_wrap=True, style="dim")
    for row in comparison_rows(comparison):
        difference, nothing, _ = "".join(row.differences[:1]).partition(f", {NOT_SIGNIFICANT}")
        style = "bold" if row.is_headline else None
        table.add_row(row.label, *row.values, difference, "n.s." if nothing else "", style=style)
    return table
