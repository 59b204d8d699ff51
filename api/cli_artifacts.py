"""Verbs about training sets and students: select, selections, finetune, finetunes."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli_output import JsonFlag, KeyOption, LimitOption, WatchFlag, interval
from api.cli_shown import Shown, document_of_two, show_artifacts, split_words, submit_artifact
from service import wording

if TYPE_CHECKING:
    from api.transport import Document


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (select, selections, finetune, finetunes):
        app.command()(verb)


def select(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="JOB|FILE... [FIELD=VALUE]...", help="e.g. job-3-a1b2c3 keep=verified per_problem=4"),
    ],
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a training set of the samples of finished jobs."""
    jobs, document = split_words(words)
    if jobs:
        document["sources"] = [*document.get("sources", []), *({"job": job} for job in jobs)]
    submit_artifact(context, SELECTIONS, document, key=key, is_watching=watch, is_json=as_json)


def selections(
    context: typer.Context,
    selection: Annotated[str | None, typer.Argument(metavar="[SELECTION]", help="One in full.")] = None,
    limit: LimitOption = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show training sets."""
    show_artifacts(context, SELECTIONS, selection, limit=limit, is_json=as_json)


def finetune(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="BASE DATASET|FILE [FIELD=VALUE]...", help="e.g. lab/small select-4-d4e5f6 preset=tiny"),
    ],
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a student on a selection; its checkpoints become models that jobs can name."""
    document = document_of_two(words, ("base", "dataset"), "a base and a selection")
    submit_artifact(context, FINETUNES, document, key=key, is_watching=watch, is_json=as_json)


def finetunes(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="[FINETUNE]", help="One in full.")] = None,
    limit: LimitOption = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show students."""
    show_artifacts(context, FINETUNES, run, limit=limit, is_json=as_json)


def _selection_words(document: "Document") -> list[str]:
    if document["rows"] is None:
        return []
    considered = next(iter(document["rows_after"].values()), document["rows"])
    return [f"{document['rows']:,} rows of {considered:,.0f}"]


def _selection_fields(document: "Document") -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = [
        ("sources", ", ".join(source["job"] for source in document["document"]["sources"]))
    ]
    fields += [(name, f"{rows:,.0f} rows left") for name, rows in document["rows_after"].items()]
    if document["judged"] is not None:
        fields += _judged_fields(document["judged"])
    return fields if document["path"] is None else [*fields, ("file", document["path"])]


def _judged_fields(judged: "Document") -> list[tuple[str, object]]:
    shown = [
        ("finds faults", judged["sensitivity"]),
        ("passes valid", judged["specificity"]),
        ("false pos.", judged["false_positive_rate"]),
        ("corrected", judged["false_positive_rate_corrected"]),
    ]
    return [
        ("judged", f"{judged['yes']:,} yes, {judged['no']:,} no, {judged['undecided']:,} undecided"),
        *((word, "unknown" if found is None else interval(found)) for word, found in shown),
    ]


def _finetune_words(document: "Document") -> list[str]:
    parts = [f"{document['steps_done']:,} of {wording.plural(document['steps'], 'step')}"]
    if document["loss"] is not None:
        parts.append(f"loss {_loss(document)}")
    if document["checkpoints"]:
        parts.append(wording.plural(len(document["checkpoints"]), "checkpoint"))
        parts.append(f"{wording.flops(document['flops'])} FLOPs")
        parts.append(wording.device_hours(document["gpu_hours"] * 3600, document["cpu_hours"] * 3600))
    return parts


def _finetune_fields(document: "Document") -> list[tuple[str, object]]:
    made = document["document"]
    training = ", ".join(f"{name} {value}" for name, value in made["training"].items() if value is not None)
    return [
        ("base", made["base"]),
        ("dataset", made["dataset"]),
        ("training", training),
        *(("checkpoint", f"{c['model']}  loss {_loss(c) or 'unknown'}  {c['path']}") for c in document["checkpoints"]),
    ]


def _loss(document: "Document") -> str:
    return "" if document["loss"] is None else f"{document['loss']:.4g}"


SELECTIONS = Shown(
    noun="selection",
    of=lambda client: client.selections,
    words=_selection_words,
    columns=("rows",),
    cells=lambda document: ("" if document["rows"] is None else f"{document['rows']:,}",),
    fields=_selection_fields,
)
FINETUNES = Shown(
    noun="finetune",
    of=lambda client: client.finetunes,
    words=_finetune_words,
    columns=("steps", "loss", "FLOPs"),
    cells=lambda document: (
        f"{document['steps_done']:,} of {document['steps']:,}",
        _loss(document),
        wording.flops(document["flops"]),
    ),
    fields=_finetune_fields,
)
