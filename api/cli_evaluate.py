"""Verbs about evaluations: evaluate, evaluations."""

from typing import Annotated, Any

import typer

from api.cli_artifacts import KeyOption, WatchFlag, show_artifact, split_words
from api.cli_output import JsonFlag, client_of, print_json, print_lines, table
from service import wording


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
    names, document = split_words(words)
    if len(names) not in (0, 2):
        raise typer.BadParameter(f"got {len(names)} names, allowed: a model and a problem set, or a file")
    if names:
        document |= {"model": names[0], "problems": names[1]}
    with client_of(context, is_json=as_json) as client:
        made = client.evaluations.create(document, idempotency_key=key)
        code = show_artifact(made, is_watching=watch, is_json=as_json)
        if watch and not as_json:
            print_lines(result_lines(made.refresh().document))
        raise typer.Exit(code)


def evaluations(
    context: typer.Context,
    evaluation: Annotated[str | None, typer.Argument(metavar="[EVALUATION]", help="One with its results.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show evaluations, or one with what it has found."""
    with client_of(context, is_json=as_json) as client:
        if evaluation is not None:
            found = client.evaluations.get(evaluation).document
            print_json(found) if as_json else print_lines([f"{found['id']}  {found['name']}", *result_lines(found)])
            return
        listed = [item.document for item in client.evaluations.list(limit=limit)]
        rows = [(d["id"], wording.state_word(wording.JOB_WORDS, d["phase"]).word, d["name"]) for d in listed]
        print_json(listed) if as_json else print_lines(table(("evaluation", "phase", "name"), rows))


def result_lines(document: dict[str, Any]) -> list[str]:
    """The table of what is found."""
    rows = [
        (
            found["measure"],
            f"{wording.share(found['accuracy']['value'])} [{wording.share(found['accuracy']['low'])}, "
            f"{wording.share(found['accuracy']['high'])}]",
            "" if found["false_positive_rate"] is None else wording.percent(found["false_positive_rate"]),
            f"{found['num_problems']:,}",
        )
        for found in document["results"]
    ]
    header = ("measure", "accuracy [95 %]", "false positives", "problems")
    return table(header, rows, right=(2, 3)) if rows else ["nothing is measured yet"]
