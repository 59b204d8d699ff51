"""Verbs about comparisons: compare, comparisons."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli_output import (
    DryRunFlag,
    JsonFlag,
    KeyOption,
    LimitOption,
    WatchFlag,
    client_of,
    device_words,
    interval,
    print_json,
    print_lines,
    state_of,
    table,
)
from api.cli_shown import Shown, show_artifacts, submit_artifact
from service import wording

if TYPE_CHECKING:
    from api.transport import Document


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (compare, comparisons):
        app.command()(verb)


def compare(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="COMPARE.YAML", help="The comparison file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="e.g. finetune.seeds=3 seed=1")
    ] = None,
    watch: WatchFlag = False,
    dry_run: DryRunFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare what data makes the better student: draw, select, finetune, evaluate, at equal compute."""
    from api.job_files import read_job_file

    state_of(context).is_json = as_json
    document = read_job_file(file, overrides or [])
    if dry_run:
        with client_of(context, is_json=as_json) as client:
            plan = client.comparisons.plan(document)
        print_json(plan) if as_json else print_lines(_plan_lines(plan))
        return
    submit_artifact(context, COMPARISONS, document, key=key, is_watching=watch, is_json=as_json)


def comparisons(
    context: typer.Context,
    comparison: Annotated[str | None, typer.Argument(metavar="[COMPARISON]", help="One with its results.")] = None,
    limit: LimitOption = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show comparisons, or one with what it has found so far."""
    show_artifacts(context, COMPARISONS, comparison, limit=limit, is_json=as_json)


def _words(document: "Document") -> list[str]:
    active = [child["key"] for child in document["children"] if child["phase"] in ("preparing", "running")]
    done = f"{document['nodes_done']:,} of {wording.plural(document['nodes'], 'node')}"
    return [done, f"{_spent(document)} FLOPs", *active[:2]]


def _fields(document: "Document") -> list[tuple[str, object]]:
    spent = ", ".join(f"{stage} {wording.flops(flops)}" for stage, flops in document["flops_by_stage"].items())
    active = [child for child in document["children"] if child["phase"] not in ("succeeded", "finished_with_errors")]
    time = device_words(document["devices"], by_stage=True)
    return [
        ("FLOPs", spent or "none yet"),
        ("device time", time),
        *((child["phase"], f"{child['key']}  {child['id']}") for child in active),
    ]


def _spent(document: "Document") -> str:
    return wording.flops_of_all(document["flops_by_stage"].values())


def _result_lines(results: "Document") -> list[str]:
    """The tables of results."""
    lines: list[str] = []
    if results["arms"]:
        rows = [
            (
                arm["arm"],
                arm["samples_per_problem"],
                f"{arm['samples']:,}",
                wording.flops(arm["useful_flops"]),
                wording.share(arm["correct"] / arm["samples"] if arm["samples"] else None),
                "" if arm["rows"] is None else f"{arm['rows']:,}",
                arm["job"],
            )
            for arm in results["arms"]
        ]
        header = ("arm", "budget", "samples", "useful FLOPs", "correct", "training rows", "job")
        lines += [*table(header, rows, right=(1, 2, 3, 4, 5)), ""]
    if results["students"]:
        rows = [
            (
                found["student"],
                found["arm"],
                found["samples_per_problem"],
                found["measure"],
                interval(found["accuracy"]),
                wording.share(found["base"]),
                "" if found["difference"] is None else interval(found["difference"], is_signed=True),
                "" if found["is_difference"] is None else "yes" if found["is_difference"] else "no",
                "" if found["false_positive_rate"] is None else wording.percent(found["false_positive_rate"]),
                found["num_seeds"],
            )
            for found in results["students"]
        ]
        header = (
            "student",
            "data",
            "budget",
            "measure",
            "accuracy [95 %]",
            "before",
            "to reference [95 %]",
            "differs",
            "false pos.",
            "seeds",
        )
        lines += [*table(header, rows, right=(2, 5, 8, 9)), ""]
    if results["rounds"]:
        rows = [
            (
                found["student"],
                found["arm"],
                found["samples_per_problem"],
                found["round"],
                f"{found['samples']:,.0f}",
                f"{found['correct']:,.0f}",
                f"{found['rows']:,.0f}",
                wording.flops(found["draw_flops"]),
                wording.flops(found["train_flops"]),
                "" if found["accuracy"] is None else interval(found["accuracy"]),
            )
            for found in results["rounds"]
        ]
        header = (
            "student",
            "data",
            "budget",
            "round",
            "samples",
            "correct",
            "rows",
            "drawing",
            "training",
            "greedy after",
        )
        lines += [*table(header, rows, right=(2, 3, 4, 5, 6, 7, 8)), ""]
    return lines or ["nothing is found yet"]


def _plan_lines(plan: "Document") -> list[str]:
    document = plan["document"]
    return [
        f"dry run: {document['name']}",
        f"  arms         {', '.join(arm['name'] for arm in document['arms'])}, equal by {document['match']['by']}",
        f"  budgets      {', '.join(map(str, document['match']['samples_per_problem']))} samples a problem of "
        f"{document['match']['reference']}",
        f"  students     {', '.join(student['name'] for student in document['students']) or 'none'}",
        f"  training     {document['finetune']['training']['steps']:,} steps, "
        f"{wording.plural(document['finetune']['seeds'], 'seed')}",
        f"  nodes        {plan['nodes']:,} jobs, selections and finetunes, those that exist already included",
        "nothing is stored; without --dry-run it is submitted",
    ]


COMPARISONS = Shown(
    noun="comparison",
    of=lambda client: client.comparisons,
    words=_words,
    columns=("done", "FLOPs"),
    cells=lambda document: (f"{document['nodes_done']:,} of {document['nodes']:,}", _spent(document)),
    fields=_fields,
    results=_result_lines,
)
