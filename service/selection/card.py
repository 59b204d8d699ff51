"""The card of an exported training set: front matter that loaders read, and what a person should know of the data.

Owns both texts. Invariant: every number comes from the lineage, none is computed anew, and what is unknown is said to
be unknown. Nothing but text; writes no file.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import yaml

from service import wording
from service.currency import Currency, stated_amount
from service.importing.spec import TOKEN_WORDS, Tokens
from service.records import SELECTED_SCHEMA
from service.report import Form
from service.report_words import measured_text
from service.selection.judge_quality import Judged
from service.selection.lineage import Lineage, SourceOrigin
from service.stats import Estimate, NotEstimable

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_FEATURES = {pa.string(): "string", pa.int64(): "int64", pa.bool_(): "bool"}
_ACCOUNTING = {
    Currency.flops: "exact: every forward FLOP, prompt included, prefix cache deducted",
    Currency.flops_paper: "paper: 2 x parameters x completion tokens",
    Currency.tokens: "tokens",
    Currency.samples: "samples",
    Currency.usd: "USD: the price of prompt and completion tokens",
}
_COLUMNS = {
    "prompt": "text the model continued, as it was tokenised",
    "completion": "what it wrote, raw",
    "problem_id": "problem in its set",
    "sample_id": "stable id of the sample in its job",
    "job_id": "job that drew it",
    "source": "number of that job in the selection",
    "model": "model that drew it",
    "arm": "name of the job's arm: its model, prompt and sampling",
    "prompt_id": "id of how its prompt was made",
    "sampling_id": "id of how it was drawn",
    "is_correct": "whether the answer is right; null where nobody could tell",
    "is_verified": "whether the step check found the reasoning valid; null where it could not tell",
    "completion_tokens": "length of the completion in the model's tokens",
}


def dataset_card(
    lineage: Lineage,
    *,
    num_bytes: int,
    stored_bytes: int,
    num_rows: int | None = None,
    is_stripped: bool = False,
    schema: pa.Schema = SELECTED_SCHEMA,
) -> str:
    """The README.md of a dataset folder.

    Args:
        num_bytes: size of the data in memory.
        stored_bytes: size of its files.
        num_rows: rows of the folder; None is all that were selected.
        is_stripped: whether the completions are without their reasoning.
        schema: of its files; a training set of an earlier release has fewer columns.
    """
    num_rows = lineage.statistics.rows if num_rows is None else num_rows
    sections = [
        f"# {_line(lineage.spec.name)}",
        _introduction(lineage),
        *([_stripped(lineage, num_rows)] if is_stripped else []),
        "## Use\n\n" + _USE,
        "## Columns\n\n" + _table(("column", "meaning"), [(name, _COLUMNS[name]) for name in schema.names]),
        "## Statistics\n\n" + _statistics(lineage),
        "## Selection\n\n" + _selection(lineage),
        *([] if lineage.judged is None else ["## Judges\n\n" + _judges(lineage, lineage.judged)]),
        "## Generation\n\n" + "\n\n".join(map(_generation, {each.job_id: each for each in lineage.sources}.values())),
        "## Budget and accounting\n\n" + _budget(lineage),
        "## Models, problems and licenses\n\n" + _licenses(lineage),
        "## Documents\n\n" + _DOCUMENTS,
    ]
    return (
        f"---\n{_front_matter(lineage, num_rows, num_bytes, stored_bytes, schema)}---\n\n"
        + "\n\n".join(sections)
        + "\n"
    )


_USE = """```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder", split="train")
examples = dataset.select_columns(["prompt", "completion"])  # what TRL's SFTTrainer trains on
```"""
_DOCUMENTS = """- `isoflop/lineage.json`: everything above and more, machine-readable
- `isoflop/selection.json`: the selection, resolved
- `isoflop/jobs/<job>.json`: the jobs that drew the samples, resolved"""


def _stripped(lineage: Lineage, num_rows: int) -> str:
    left_out = lineage.statistics.rows - num_rows
    counted = f"{wording.plural(left_out, 'row')} of which nothing or the same was left {_are(left_out)} left out. "
    return (
        "The models' reasoning is taken out of the completions: what follows its closing tag is left. "
        f"{counted if left_out else ''}Statistics, filters and token counts below are of the rows as they were drawn."
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _front_matter(lineage: Lineage, rows: int, num_bytes: int, stored_bytes: int, schema: pa.Schema) -> str:
    fields: dict[str, Any] = {
        "pretty_name": _line(lineage.spec.name),
        "task_categories": ["text-generation"],
        "size_categories": [next((name for limit, name in _SIZES if rows < limit), "n>1M")],
        "tags": ["synthetic", "isoflop"],
        "dataset_info": {
            "features": [{"name": field.name, "dtype": _FEATURES[field.type]} for field in schema],
            "splits": [{"name": "train", "num_bytes": num_bytes, "num_examples": rows}],
            "download_size": stored_bytes,
            "dataset_size": num_bytes,
        },
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    # one that all models share and that is an identifier; a hub refuses other texts there
    stated = {model.license for source in lineage.sources for model in source.models}
    shared = next(iter(stated)) if len(stated) == 1 else None
    if shared is not None and _IDENTIFIER.fullmatch(shared):
        fields = {"license": shared, **fields}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _introduction(lineage: Lineage) -> str:
    statistics = lineage.statistics
    return (
        f"{wording.plural(statistics.rows, 'completion')} of {wording.plural(statistics.problems, 'problem')}, "
        f"drawn by {_names(statistics.rows_by_model)} and selected by isoflop. All are written by language models."
    )


def _statistics(lineage: Lineage) -> str:
    statistics = lineage.statistics
    rows = [
        ("rows", f"{statistics.rows:,}"),
        ("problems", f"{statistics.problems:,}"),
        ("rows per problem, mean", f"{statistics.rows / statistics.problems:.2f}"),
        ("completion tokens", f"{statistics.completion_tokens:,}"),
        ("completion tokens per row, mean", f"{statistics.completion_tokens / statistics.rows:.1f}"),
        ("with a right answer", f"{statistics.correct:,}"),
        ("with a right answer and valid reasoning", f"{statistics.verified:,}"),
        *((f"drawn by {model}", f"{count:,}") for model, count in statistics.rows_by_model.items()),
        *((f"of the arm {arm}", f"{count:,}") for arm, count in statistics.rows_by_arm.items()),
    ]
    return _table(("of the training set", "number"), rows)


def _selection(lineage: Lineage) -> str:
    spec, contamination = lineage.spec, lineage.contamination
    settings = _table(
        ("setting", "value"),
        [
            ("keep", spec.keep.value),
            ("scorer", spec.scorer or "the job's first scorer of answers"),
            ("duplicates", spec.duplicates.value),
            ("problems", "all" if spec.problems is None else f"a share of {spec.problems:g}"),
            ("per problem", "no limit" if spec.per_problem is None else f"at most {spec.per_problem:,}"),
            ("shares", ", ".join("none" if source.share is None else f"{source.share:g}" for source in spec.sources)),
            *((f"arms of {source.job}", ", ".join(source.arms)) for source in spec.sources if source.arms),
            ("rows", "no limit" if spec.rows is None else f"at most {spec.rows:,}"),
            ("seed", str(spec.seed)),
            *([] if spec.ask is None else [("asked of a judge", f"`{_line(spec.ask)}`")]),
        ],
    )
    filters = _table(
        ("after", "rows", *lineage.spec.source_names),
        [(count.name, f"{count.rows:,}", *(f"{rows:,}" for rows in count.rows_by_source)) for count in lineage.filters],
    )
    if not lineage.held_out:
        held_out = "No problem set was held out, so nothing was compared with an evaluation set."
    else:
        compared = "whole questions" if spec.ngram is None else f"whole questions and {spec.ngram} words in a row"
        held_out = (
            f"Held out: {_names(item.name for item in lineage.held_out)} ({contamination.held_out:,} questions). Of "
            f"{contamination.compared:,} questions compared by {compared}, {contamination.by_text:,} occur there as "
            f"they are and {contamination.by_ngram:,} in part; their samples are left out."
        )
    return f"{settings}\n\n{filters}\n\n{held_out}"


def _judges(lineage: Lineage, judged: Judged) -> str:
    rows = [
        ("judged right", f"{judged.yes:,}"),
        ("judged wrong", f"{judged.no:,}"),
        ("undecided", f"{judged.undecided:,}"),
        *((label, _rate(rate)) for label, rate in judged.in_words()),
    ]
    models = _names(dict.fromkeys(model.name for judge in lineage.judges for model in judge.models))
    jobs = _names(judge.job_id for judge in lineage.judges)
    return (
        f"Samples were kept by what {models} answered; {jobs}. Of all samples of the sources:\n\n"
        f"{_table(('of the samples', 'number'), rows)}\n\n"
        "Rates are of right answers, held against the step check, which sees arithmetic and nothing else; "
        "intervals are over problems."
    )


def _rate(rate: Estimate | NotEstimable) -> str:
    number = f", {wording.plural(rate.n, 'problem')}" if isinstance(rate, Estimate) else f": {rate.reason}"
    return measured_text(Form.rate, rate) + number


def _generation(source: SourceOrigin) -> str:
    if source.job.get("imported"):
        return f"### {source.job_id}\n\n" + _import_table(source)
    arms = source.job.get("arms") or [{**source.job, "name": None}]
    settings: dict[str, Any] = {}
    for arm in arms:
        prefix = f"{arm['name']}: " if arm["name"] is not None else ""
        settings |= {
            f"{prefix}{part}.{name}": value
            for part in ("sampling", "prompt")
            for name, value in dict(arm.get(part) or {}).items()
        }
    settings |= {name: source.job[name] for name in ("allocation", "scorers", "seed") if name in source.job}
    rows = [
        ("models", _names(model.name for model in source.models)),
        ("problems", source.problems.name),
        *((name, f"`{_line(str(value))}`") for name, value in settings.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in source.versions.items())),
    ]
    return f"### {source.job_id}\n\n" + _table(("setting", "value"), rows)


def _import_table(source: SourceOrigin) -> str:
    """What is known of samples that were not drawn by isoflop, and what is not."""
    imported: dict[str, Any] = source.job["imported"]
    prompts = "as in the files" if any(column["ours"] == "prompt" for column in imported["columns"]) else "made anew"
    sampling = {"stated": str(source.job.get("sampling")), "column": "as the files' column of temperatures says"}
    rows = [
        ("source", "imported, not drawn by isoflop"),
        *((f"file `{_line(file['name'])}`", f"sha256 `{file['sha256']}`") for file in imported["files"]),
        ("models", f"{_names(model.name for model in source.models)}, as stated at import"),
        ("problems", source.problems.name),
        ("sampling", sampling.get(imported["sampling"], wording.UNKNOWN)),
        ("prompts", f"{prompts}; `{_line(str(source.job.get('prompt')))}`" if prompts == "made anew" else prompts),
        ("tokens", TOKEN_WORDS[Tokens(imported["tokens"])]),
        ("scorers", f"`{source.job.get('scorers')}`"),
        ("versions", ", ".join(f"{name} {version}" for name, version in source.versions.items())),
    ]
    return _table(("setting", "value"), rows)


def _budget(lineage: Lineage) -> str:
    rows: list[tuple[str, ...]] = []
    for name, source in zip(lineage.spec.source_names, lineage.sources, strict=True):
        currency, usage = Currency(source.currency), source.usage
        limit, spent = (
            "none" if amount is None else wording.amount(stated_amount(currency, amount), currency)
            for amount in (source.limit, source.spent)
        )
        imported = source.job.get("imported")
        if imported:
            limit = spent = "none"
        is_priced = not imported or imported["is_known_model"]
        rows.append(
            (
                name,
                "imported: nothing was spent, FLOPs are those of the tokens" if imported else _ACCOUNTING[currency],
                limit,
                spent,
                f"{usage.samples:,}",
                f"{usage.truncated:,}",
                wording.flops(usage.flops if is_priced else None),
                wording.flops(usage.flops_paper if is_priced else None),
                f"{usage.prompt_tokens:,}",
                f"{usage.completion_tokens:,}",
            )
        )
    header = ("job", "budget counts", "limit", "spent", "samples", "truncated", "FLOPs, exact", "FLOPs, paper")
    table = _table((*header, "prompt tokens", "completion tokens"), rows)
    return (
        f"{table}\n\nUse is of all samples of a job, or of the arms that were named, selected or not; training and "
        "evaluation are not in it."
    )


def _licenses(lineage: Lineage) -> str:
    models = dict.fromkeys(model for source in lineage.sources for model in source.models)
    problems = dict.fromkeys(source.problems for source in lineage.sources)
    rows = [
        *(("model", model.name, model.revision, model.license or "unknown") for model in models),
        *(("problem set", each.name, each.fingerprint, each.license or "unknown") for each in problems),
    ]
    return _table(("what", "name", "revision", "license"), rows)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{_line(name)}`" for name in names)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _line(text: str) -> str:
    """Text that stays on its line; a line end within it becomes the two characters that stand for it."""
    return text.replace("\r", "\\r").replace("\n", "\\n")
