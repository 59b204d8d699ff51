"""One training set: filters, rows, where they come from. Everything but the rows stands in its file's footer."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views.jobs import POLL_S, event_lines, shell_of
from api.dashboard.views.links import link_to
from api.dashboard.views.training import actions_of, names_of, selection_line
from api.resolve_artifacts import selection_document
from service import figures, wording
from service.artifacts import ArtifactKind
from service.errors import CorruptFile, NotFound
from service.finetunes import FinetuneSpec
from service.report import Form
from service.report_words import measured_text
from service.selection.judge_quality import Judged
from service.selection.lineage import Lineage, SourceOrigin, read_lineage
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec
from service.stats import Estimate, NotEstimable
from service.store import Store
from service.store.reads import Part
from service.wording import Tone
from service.work import TaskKind

ROWS_SHOWN = 100
STUDENTS_SHOWN = 200
_KEEP_WORDS = {
    Keep.all: "all",
    Keep.correct: "right answer, not cut short",
    Keep.verified: "right answer, every calculation valid, not cut short",
    Keep.judged: "more than half of the judges' votes say yes, not cut short",
    Keep.majority: "the answer most samples of the problem give, not cut short",
}
_DUPLICATE_WORDS = {
    Duplicates.keep: "all kept",
    Duplicates.exact: "the same text once a problem",
    Duplicates.normalized: "the same normalised text once a problem",
    Duplicates.equations: "the same calculations once a problem",
}


def selection_page(context: AppContext, selection_id: str, now: datetime, *, row: int) -> pages.SelectionPage:
    """One training set.

    Args:
        row: number of the row to show in full.

    Raises:
        NotFound: no such selection, or no such row among those that are shown.
    """
    store = context.store
    artifact = store.artifacts.get(selection_id, ArtifactKind.selection)
    spec = artifact.spec
    assert isinstance(spec, SelectionSpec)
    names = names_of(store)
    line = selection_line(store, artifact, names)
    parts = store.reads.parts(selection_id, TaskKind.select)
    made, drawn, error = None, (), artifact.error
    if parts:
        try:
            lineage = read_lineage(parts[-1].path)
            made, drawn = _made(parts[-1], lineage, names, selection_id, row), (_figure(lineage),)
        except CorruptFile as corrupt:
            error = str(corrupt)
    return pages.SelectionPage(
        shell=shell_of(context, "training", now),
        selection=line,
        headline=pages.selection_headline(line),
        error=error,
        actions=actions_of(artifact),
        made=made,
        figures=drawn,
        students=_students(store, selection_id),
        events=event_lines(store, selection_id),
        document=yaml.safe_dump(selection_document(spec), sort_keys=False, allow_unicode=True),
        took_s=None if artifact.ended_at is None else (artifact.ended_at - artifact.created_at).total_seconds(),
        poll_s=None if artifact.phase.is_terminal else POLL_S,
    )


def _figure(lineage: Lineage) -> figures.Figure:
    bars = [
        figures.FilterBar(name=count.name, rows=count.rows, rows_by_source=count.rows_by_source)
        for count in lineage.filters
    ]
    return figures.filters_figure(bars, lineage.spec.source_names)


def _made(part: Part, lineage: Lineage, names: dict[str, str], selection_id: str, row: int) -> pages.MadeSet:
    statistics = lineage.statistics
    mean = statistics.completion_tokens / statistics.rows
    rows = _first_rows(part.path)
    if not 0 <= row < len(rows):
        raise NotFound(f"row {row} of {selection_id} is not shown; allowed: 0 to {len(rows) - 1}, or the file itself")
    last = lineage.filters[-1].rows_by_source
    return pages.MadeSet(
        facts=(
            ("rows", wording.count(statistics.rows), f"of {wording.plural(lineage.filters[0].rows, 'sample')}"),
            ("problems", wording.count(statistics.problems), f"{statistics.rows / statistics.problems:.2f} rows each"),
            ("completion tokens", wording.count(statistics.completion_tokens), f"{mean:.1f} a row"),
            ("right answer", wording.count(statistics.correct), wording.percent(statistics.correct / statistics.rows)),
            ("and valid steps", wording.count(statistics.verified), "as far as the step check could tell"),
        ),
        filters=_filters(lineage),
        origins=tuple(
            _origin(source, asked, names, rows)
            for source, asked, rows in zip(lineage.sources, lineage.spec.sources, last, strict=True)
        ),
        judged=() if lineage.judged is None else _judged(lineage.judged),
        judges=tuple(link_to(judge.job_id, names.get(judge.job_id)) for judge in lineage.judges),
        held_out=_held_out(lineage),
        rows=tuple(_row_line(number, each) for number, each in enumerate(rows)),
        selected=_row_detail(row, rows[row], names),
        num_rows=statistics.rows,
        path=part.path,
        sha256=part.sha256,
    )


def _filters(lineage: Lineage) -> tuple[pages.FilterLine, ...]:
    settings = _settings(lineage.spec)
    total = lineage.filters[0].rows
    lines: list[pages.FilterLine] = []
    before = total
    for count in lineage.filters:
        lines.append(
            pages.FilterLine(
                name=count.name.replace("_", " "),
                setting=settings.get(count.name, ""),
                rows=count.rows,
                dropped=before - count.rows,
                share=count.rows / total if total else 0.0,
                rows_by_source=count.rows_by_source,
            )
        )
        before = count.rows
    return tuple(lines)


def _settings(spec: SelectionSpec) -> dict[str, str]:
    """What each filter was asked for."""
    shares = [f"{source.share:g}" for source in spec.sources if source.share is not None]
    compared = "whole questions" if spec.ngram is None else f"whole questions and {spec.ngram} words in a row"
    return {
        "samples": "every sample of the sources",
        "completions": "rows that stand for an error have none",
        "keep": _KEEP_WORDS[spec.keep],
        "duplicates": _DUPLICATE_WORDS[spec.duplicates],
        "decontaminate": f"{compared} of {', '.join(spec.held_out)}" if spec.held_out else "nothing held out",
        "problems": "all" if spec.problems is None else f"{wording.percent(spec.problems)} of them",
        "per_problem": "no limit" if spec.per_problem is None else f"at most {spec.per_problem:,}",
        "shares": f"mixed {' : '.join(shares)}" if shares else "pooled",
        "rows": "no limit" if spec.rows is None else f"at most {spec.rows:,}",
    }


def _origin(source: SourceOrigin, asked: SelectionSource, names: dict[str, str], rows: int) -> pages.OriginLine:
    return pages.OriginLine(
        job=link_to(source.job_id, names.get(source.job_id), note=", ".join(asked.arms)),
        problems=f"{source.problems.name}, {wording.plural(source.problems.num_problems, 'problem')}",
        models=(
            *(f"{model.name} (license {model.license or wording.UNKNOWN})" for model in source.models),
            *(f"imported from {file['name']} (sha256 {file['sha256'][:16]}…)" for file in _imported_files(source)),
        ),
        samples=source.usage.samples,
        rows=rows,
        flops=source.usage.flops,
    )


def _imported_files(source: SourceOrigin) -> list[dict[str, Any]]:
    """Files that a source's samples were imported from; none where they were drawn."""
    return (source.job.get("imported") or {}).get("files", [])


def _judged(judged: Judged) -> tuple[tuple[str, str, str], ...]:
    """What judges said, and each rate with what it is of."""
    said = (("yes", judged.yes), ("no", judged.no), ("undecided", judged.undecided))
    rates = [(label, measured_text(Form.rate, rate), _basis(rate)) for label, rate in judged.in_words()]
    return (*((word, wording.count(number), "") for word, number in said), *rates)


def _basis(rate: Estimate | NotEstimable) -> str:
    return rate.reason if isinstance(rate, NotEstimable) else f"over {wording.plural(rate.n, 'problem')}"


def _held_out(lineage: Lineage) -> str:
    found = lineage.contamination
    if not lineage.held_out:
        return "No problem set was held out, so nothing was compared with an evaluation set."
    sets = ", ".join(f"{item.name} ({wording.plural(item.num_problems, 'question')})" for item in lineage.held_out)
    hits = found.by_text + found.by_ngram
    result = (
        f"{found.by_text:,} occur there as they are and {found.by_ngram:,} in part; their samples are left out"
        if hits
        else "none occurs there"
    )
    return f"Held out: {sets}. Of {wording.plural(found.compared, 'question')} compared, {result}."


def _first_rows(path: str) -> list[dict[str, object]]:
    try:
        with pq.ParquetFile(path) as file:
            batch = next(file.iter_batches(batch_size=ROWS_SHOWN), None)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: committed but not readable: {error}") from error
    return [] if batch is None else batch.to_pylist()


def _row_line(number: int, row: dict[str, object]) -> pages.RowLine:
    label, tone = _verdict(row)
    return pages.RowLine(
        number=number,
        problem_id=str(row["problem_id"]),
        model=str(row["model"]),
        label=label,
        tone=tone.value,
        completion_tokens=int(str(row["completion_tokens"])),
    )


def _verdict(row: dict[str, object]) -> tuple[str, Tone]:
    if row["is_correct"] is None:
        return "not judged", Tone.quiet
    if not row["is_correct"]:
        return "incorrect", Tone.bad
    if row["is_verified"] is None:
        return "correct", Tone.good
    return ("verified", Tone.good) if row["is_verified"] else ("false positive", Tone.warning)


def _row_detail(number: int, row: dict[str, object], names: dict[str, str]) -> pages.RowDetail:
    job_id, sample_id = str(row["job_id"]), str(row["sample_id"])
    return pages.RowDetail(
        line=_row_line(number, row),
        prompt=str(row["prompt"]),
        completion=str(row["completion"]),
        job=link_to(job_id, names.get(job_id)),
        sample_path=f"/jobs/{job_id}/samples?sample={quote(sample_id)}",
        sample_id=sample_id,
    )


def _students(store: Store, selection_id: str) -> tuple[pages.Link, ...]:
    found = store.artifacts.list(ArtifactKind.finetune, limit=STUDENTS_SHOWN)
    return tuple(
        link_to(artifact.id, artifact.spec.name, note=artifact.phase.value)
        for _, artifact in found
        if isinstance(artifact.spec, FinetuneSpec) and artifact.spec.dataset == selection_id
    )
