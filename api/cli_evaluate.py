"""Verbs about evaluations: evaluate, evaluations."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli_output import JsonFlag, KeyOption, LimitOption, WatchFlag, device_words, interval, table
from api.cli_shown import Shown, document_of_two, phase_word, show_artifacts, submit_artifact
from service import wording

if TYPE_CHECKING:
    from api.transport import Document


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (evaluate, evaluations):
        app.command()(verb)


def evaluate(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="MODEL PROBLEMS|FILE [FIELD=VALUE]...", help="e.g. finetune-5-a1b2c3/step-200 lab/test"),
    ],
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a model or a student's checkpoint on a problem set: greedy, and by majority vote."""
    document = document_of_two(words, ("model", "problems"), "a model and a problem set")
    submit_artifact(context, EVALUATIONS, document, key=key, is_watching=watch, is_json=as_json)


def evaluations(
    context: typer.Context,
    evaluation: Annotated[str | None, typer.Argument(metavar="[EVALUATION]", help="One with its results.")] = None,
    limit: LimitOption = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show evaluations, or one with what it has found."""
    show_artifacts(context, EVALUATIONS, evaluation, limit=limit, is_json=as_json)


def _fields(document: "Document") -> list[tuple[str, object]]:
    made = document["document"]
    spent = wording.flops_of_all(document["flops_by_stage"].values())
    return [
        ("model", made["model"]),
        ("problems", made["problems"]),
        ("FLOPs", spent),
        ("device time", device_words(document["devices"])),
    ]


def _result_lines(results: "Document") -> list[str]:
    """The table of what is found."""
    rows = [
        (
            found["measure"],
            interval(found["accuracy"]),
            "" if found["false_positive_rate"] is None else wording.percent(found["false_positive_rate"]),
            f"{found['num_problems']:,}",
        )
        for found in results["measures"]
    ]
    header = ("measure", "accuracy [95 %]", "false positives", "problems")
    return table(header, rows, right=(2, 3)) if rows else ["nothing is measured yet"]


EVALUATIONS = Shown(
    noun="evaluation",
    of=lambda client: client.evaluations,
    words=lambda document: [f"{child['key']} {phase_word(child)}" for child in document["children"]],
    fields=_fields,
    results=_result_lines,
)
