"""Verbs about comparisons: compare, comparisons."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli_artifacts import show_artifact
from api.cli_output import JsonFlag, client_of, print_json, print_lines, state_of, table
from service import wording

if TYPE_CHECKING:
    from api.client import Client


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
    watch: Annotated[bool, typer.Option("--watch", help="Show it until it ends, then its results.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only; nothing is stored.")] = False,
    key: Annotated[str | None, typer.Option("--key", help="Idempotency key: the same key makes one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare what data makes the better student: draw, select, finetune, evaluate, at equal compute."""
    from api.job_files import read_job_file

    state_of(context).is_json = as_json
    document = read_job_file(file, overrides or [])
    with client_of(context, is_json=as_json) as client:
        if dry_run:
            plan = client.comparisons.plan(document)
            print_json(plan) if as_json else print_lines(_plan_lines(plan))
            return
        made = client.comparisons.create(document, idempotency_key=key)
        code = show_artifact(made, is_watching=watch, is_json=as_json)
        if watch and not as_json:
            print_lines(result_lines(client.comparisons.results(made.id)))
        raise typer.Exit(code)


def comparisons(
    context: typer.Context,
    comparison: Annotated[str | None, typer.Argument(metavar="[COMPARISON]", help="One with its results.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show comparisons, or one with what it has found so far."""
    with client_of(context, is_json=as_json) as client:
        if comparison is not None:
            _show_one(client, comparison, as_json)
            return
        listed = [item.document for item in client.comparisons.list(limit=limit)]
        rows = [
            (
                d["id"],
                wording.state_word(wording.JOB_WORDS, d["phase"]).word,
                f"{d['nodes_done']:,} of {d['nodes']:,}",
                wording.flops(sum(d["flops_by_stage"].values())),
                d["name"],
            )
            for d in listed
        ]
        header = ("comparison", "phase", "done", "FLOPs", "name")
        print_json(listed) if as_json else print_lines(table(header, rows, right=(2, 3)))


def result_lines(results: dict[str, Any]) -> list[str]:
    """Both tables of results."""
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
                _interval(found["accuracy"]),
                wording.share(found["base"]),
                "" if found["difference"] is None else _interval(found["difference"], is_signed=True),
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
    return lines or ["nothing is found yet"]


def _show_one(client: "Client", comparison: str, as_json: bool) -> None:
    document = client.comparisons.get(comparison).document
    results = client.comparisons.results(comparison)
    if as_json:
        print_json(document | {"results": results})
        return
    spent = ", ".join(f"{stage} {wording.flops(flops)}" for stage, flops in document["flops_by_stage"].items())
    lines = [
        f"{document['id']}  {document['name']}",
        f"  phase        {wording.state_word(wording.JOB_WORDS, document['phase']).word}",
        f"  nodes        {document['nodes_done']:,} of {document['nodes']:,} done",
        f"  FLOPs        {spent or 'none yet'}",
    ]
    if document["error"]:
        lines.append(f"  error        {document['error']}")
    active = [child for child in document["children"] if child["phase"] not in ("succeeded", "finished_with_errors")]
    lines += [f"  {child['phase']:<12} {child['key']}  {child['id']}" for child in active]
    print_lines([*lines, "", *result_lines(results)])


def _plan_lines(plan: dict[str, Any]) -> list[str]:
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


def _interval(value: dict[str, float], *, is_signed: bool = False) -> str:
    write = wording.signed_share if is_signed else wording.share
    return f"{write(value['value'])} [{write(value['low'])}, {write(value['high'])}]"
