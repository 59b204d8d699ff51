"""What the demo shows: bars on a terminal, plain lines elsewhere, and the table at the end.

Owns presentation only; every number comes in.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.cli_output import interval
from service import wording
from service.report import Comparison
from service.report_words import NOT_SIGNIFICANT, arm_heading, comparison_rows, findings
from service.verify import VerifyReport

PLAIN_INTERVAL_S = 5.0
PLAIN_WIDTH = 132
"""Columns where no terminal says how many there are: wide enough for every number of the table."""
Jobs = dict[str, dict[str, Any]]
Show = Callable[[dict[str, Any], Jobs], None]


class DemoScreen:
    """Prints the demo's steps."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or demo_console()
        self._started = time.monotonic()

    def start(self, document: dict[str, Any], url: str) -> None:
        """The first lines: what is compared, and where it can be watched."""
        budgets = document["match"]["samples_per_problem"]
        counts = " and ".join(map(str, budgets if isinstance(budgets, list) else [budgets]))
        problems = document.get("max_problems")
        self._console.print(
            f"[bold]isoflop demo[/] · {f'{problems} problems' if problems else 'all problems'} · {counts} samples of "
            f"the larger model each, the smaller one gets the same useful FLOPs · {len(document['students'])} students "
            f"learn from each, {wording.plural(document['finetune']['seeds'], 'seed')}",
            soft_wrap=True,
        )
        self._console.print(f"  dashboard   {url}\n", soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step without a measure of its own."""
        started = time.monotonic()
        with self._console.status(f"  {name} …"):
            yield
        self._console.print(f"  {name:<10}done in {time.monotonic() - started:.0f} s")

    @contextmanager
    def comparison(self) -> Iterator[Show]:
        """Progress; the callable takes the comparison's document and those of the jobs that draw, by arm and budget."""
        with self._bars() if self._console.is_terminal else self._lines() as show:
            yield show

    def note(self, text: str) -> None:
        """A plain line."""
        self._console.print(f"  {text}")

    def finish(
        self, data: Comparison, headline: str, results: dict[str, Any], verified: Sequence[VerifyReport]
    ) -> None:
        """What the largest budget bought, what students made of it, whether files and ledger agree."""
        self._console.print()
        self._console.print(comparison_table(data))
        self._console.print("\n  n.s.: not significant, the 95 % interval of the difference includes zero\n")
        for sentence in findings(data):
            self._console.print(f"  {sentence}", soft_wrap=True)
        self._console.print()
        self._console.print(student_table(results["students"]))
        self._console.print(f"\n  {headline}", soft_wrap=True)
        if any(found["num_seeds"] == 1 for found in results["students"]):
            self._console.print("  One seed of training: these intervals say nothing of another seed.", soft_wrap=True)
        rows = sum(item.rows for item in verified)
        faults = [fault for item in verified for fault in item.faults]
        outcome = f"ok: {rows:,} rows, {len(verified)} manifests, ledger agrees with files"
        self._console.print(f"\n  verify      {outcome if not faults else '; '.join(faults)}", soft_wrap=True)

    def where(self, report: Path, directory: Path, *, is_kept: bool) -> None:
        """Where to look next."""
        self._console.print(f"  report      {report}", soft_wrap=True)
        self._console.print(
            f"  data        {directory / 'data.html'}, by the tiny world's exact checker", soft_wrap=True
        )
        if not is_kept:
            self._console.print(f"  dashboard   isoflop --data-dir {directory} up", soft_wrap=True)
        self._console.print(f"  took        {wording.duration(time.monotonic() - self._started)}")

    @contextmanager
    def _bars(self) -> Iterator[Show]:
        columns = (
            TextColumn("  {task.description:<20}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]:>18}  {task.fields[words]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            nodes = progress.add_task("comparison", total=1.0, counts="", words="")
            tasks: dict[str, tuple[TaskID, TaskID]] = {}

            def show(document: dict[str, Any], jobs: Jobs) -> None:
                for name, job in jobs.items():
                    if name not in tasks:
                        tasks[name] = (
                            progress.add_task(f"generate  {name}", total=1.0, counts="", words="loading"),
                            progress.add_task(f"score     {name}", total=1.0, counts="", words=""),
                        )
                    self._show_job(progress, *tasks[name], job)
                progress.update(
                    nodes,
                    completed=document["nodes_done"] / document["nodes"],
                    counts=f"{document['nodes_done']} / {document['nodes']} nodes",
                    words=_active(document),
                )

            yield show

    @staticmethod
    def _show_job(progress: Progress, generate: TaskID, score: TaskID, job: dict[str, Any]) -> None:
        if progress.tasks[progress.task_ids.index(generate)].finished:
            return
        numbers = job["progress"]
        share = 1.0 if job["phase"] == "succeeded" else numbers["budget"]["used_fraction"]
        rate = numbers["tokens_per_s"]
        words = f"{wording.count(rate)} tok/s" if rate else job["phase"]
        parts = max(1, numbers["parts"])
        counts = f"{numbers['parts_scored']} / {numbers['parts']} parts"
        progress.update(score, completed=numbers["parts_scored"] / parts, counts=counts)
        progress.update(generate, completed=share, counts=f"{numbers['samples']:,} samples", words=words)

    @contextmanager
    def _lines(self) -> Iterator[Show]:
        printed_at = [time.monotonic() - PLAIN_INTERVAL_S]

        def show(document: dict[str, Any], jobs: Jobs) -> None:
            is_over = document["ended_at"] is not None
            if time.monotonic() - printed_at[0] < PLAIN_INTERVAL_S and not is_over:
                return
            printed_at[0] = time.monotonic()
            for name, job in jobs.items():
                if job["ended_at"] is None:
                    numbers = job["progress"]
                    used = wording.percent(numbers["budget"]["used_fraction"])
                    self._console.print(
                        f"  {name:<11} {job['phase']:<10} {numbers['samples']:>7,} samples  {used:>7} of the budget  "
                        f"{numbers['parts_scored']} of {numbers['parts']} parts scored",
                        soft_wrap=True,
                    )
            done = f"{document['nodes_done']} of {document['nodes']} nodes"
            self._console.print(
                f"  comparison  {document['phase']:<10} {done:>16}  {_active(document)}", soft_wrap=True
            )

        yield show


def _active(document: dict[str, Any]) -> str:
    """What is under way beside drawing, the first of it."""
    active = [child["key"] for child in document["children"] if child["phase"] in ("preparing", "running")]
    others = [key for key in active if not key.startswith("draw/")]
    return others[0] if others else ""


def student_table(found: Sequence[dict[str, Any]]) -> Table:
    """Students by whose data they learnt from: accuracy and difference to the reference arm's, with intervals."""
    table = Table(box=None, pad_edge=True, padding=(0, 1), show_edge=False)
    table.add_column("student", overflow="fold")
    for name in ("data of", "budget", "measure"):
        table.add_column(name)
    for name in ("accuracy", "before"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    table.add_column("", no_wrap=True, style="dim")
    for row in found:
        difference = row["difference"]
        table.add_row(
            row["student"],
            row["arm"],
            str(row["samples_per_problem"]),
            row["measure"],
            interval(row["accuracy"]),
            wording.share(row["base"]),
            "" if difference is None else interval(difference, is_signed=True),
            "n.s." if row["is_difference"] is False else "",
        )
    return table


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
