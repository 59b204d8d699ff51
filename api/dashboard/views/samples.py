"""The sample browser: one page of committed samples, one of them in full."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq

from api.arm_views import usage_by_arm
from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views.charts import generate_parts
from api.dashboard.views.jobs import shell_of
from api.progress import job_progress
from api.sample_pages import FILTERS, Cursor, SampleQuery, read_samples
from service import wording
from service.errors import NotFound, UnknownName
from service.metrics import MetricsSummary
from service.receipts import Usage
from service.stats import Estimate
from service.wording import Tone

PAGE_SIZE = 40
SHOWN_FILTERS = ("all", "correct", "false_positive", "incorrect", "truncated", "failed")
_TONE_BY_VERDICT = {
    "correct": Tone.good,
    "valid": Tone.good,
    "invalid": Tone.warning,
    "timeout": Tone.warning,
    "error": Tone.bad,
}


def samples_page(
    context: AppContext, job_id: str, now: datetime, *, shown: str, arm: str, cursor: str, sample_id: str | None
) -> pages.SamplesPage:
    """A page of a job's samples.

    Args:
        shown: "all" or a filter of `api.sample_pages`.
        arm: only of this one; "" for all.
        cursor: where the list begins; "" at the start.
        sample_id: the sample to show in full; the first of the list by default.

    Raises:
        NotFound: no such job or sample.
        UnknownName: no such filter or arm.
    """
    if shown != "all" and shown not in FILTERS:
        raise UnknownName(kind="filter", got=shown, allowed=("all", *FILTERS))
    store = context.store
    job = store.jobs.get(job_id)
    arms = tuple(each.name for each in job.spec.all_arms)
    if arm and arm not in arms:
        raise UnknownName(kind="arm", got=arm, allowed=arms)
    query = SampleQuery(limit=PAGE_SIZE, verdict=None if shown == "all" else shown, arm=arm or None)
    page = read_samples(store, job_id, Cursor.parse(cursor), query)
    found = context.metrics.get(store, job_id)
    summary = next((each.summary for each in found.arms if each.name == arm), None) if arm else found.summary
    selected = _find(context, job_id, page.samples, sample_id)
    drawn = usage_by_arm(generate_parts(store, job_id)).get(arm, Usage()) if arm else job_progress(store, job, now)
    known = {"all": drawn.samples, "truncated": drawn.truncated, "failed": drawn.errors}
    if summary is not None and isinstance(summary.num_correct, int):
        known["correct"] = summary.num_correct
    keys = SHOWN_FILTERS if shown in SHOWN_FILTERS else (*SHOWN_FILTERS, shown)
    return pages.SamplesPage(
        shell=shell_of(context, "overview", now),
        job_id=job_id,
        job_name=job.spec.name,
        headline=_headline(drawn.samples, summary),
        filters=tuple(
            pages.SampleFilter(key=key, label=key.replace("_", " "), num_samples=known.get(key)) for key in keys
        ),
        shown=shown,
        arms=arms if len(arms) > 1 else (),
        arm=arm,
        samples=tuple(_line(sample) for sample in page.samples),
        selected=None if selected is None else _detail(context, job_id, selected),
        cursor=cursor,
        next_cursor=page.next_cursor,
    )


def _headline(num_samples: int, summary: MetricsSummary | None) -> str:
    parts = [wording.plural(num_samples, "sample").capitalize()]
    if summary is not None and summary.num_samples and isinstance(summary.num_correct, int):
        parts.append(f"{wording.percent(summary.num_correct / summary.num_samples)} correct")
        if isinstance(summary.false_positive_rate, Estimate):
            parts.append(f"{wording.percent(summary.false_positive_rate.value)} of those with wrong reasoning")
    return f"{', '.join(parts)}."


def _find(
    context: AppContext, job_id: str, samples: Sequence[dict[str, Any]], sample_id: str | None
) -> dict[str, Any] | None:
    if sample_id is None:
        return samples[0] if samples else None
    for sample in samples:
        if sample["sample_id"] == sample_id:
            return sample
    elsewhere = read_samples(context.store, job_id, Cursor.parse(None), SampleQuery(limit=1, sample_id=sample_id))
    if not elsewhere.samples:
        raise NotFound(f"no sample {sample_id!r} among the first files of job {job_id}; open it from the list")
    return elsewhere.samples[0]


def _line(sample: dict[str, Any]) -> pages.SampleLine:
    label, tone = _summed_up(sample)
    return pages.SampleLine(
        id=sample["sample_id"],
        problem_id=sample["problem_id"],
        sample_index=sample["sample_index"],
        model=sample["arm"],
        label=label,
        tone=tone.value,
        completion_tokens=sample["completion_tokens"],
        flops=sample["flops"],
    )


def _summed_up(sample: dict[str, Any]) -> tuple[str, Tone]:
    """All verdicts of a sample in one word."""
    scores = sample["scores"]
    verdict = next((score["verdict"] for score in scores if score["verdict"] is not None), None)
    is_refuted = any(score["steps"] == "invalid" for score in scores)
    if sample["error"] is not None:
        return "failed", Tone.bad
    if verdict == "correct":
        return ("false positive", Tone.warning) if is_refuted else ("correct", Tone.good)
    if sample["finish_reason"] == "length":
        return "truncated", Tone.warning
    return ("not scored", Tone.waiting) if verdict is None else (verdict, _TONE_BY_VERDICT.get(verdict, Tone.quiet))


def _detail(context: AppContext, job_id: str, sample: dict[str, Any]) -> pages.SampleDetail:
    path = context.store.jobs.resolved(job_id).problems_path
    problems = pq.read_table(path, columns=["question", "reference"])
    problem = problems.slice(sample["problem_index"], 1).to_pylist()[0]
    return pages.SampleDetail(
        line=_line(sample),
        question=problem["question"],
        reference=problem["reference"],
        prompt=sample["prompt"],
        completion=sample["completion"],
        finish_reason=sample["finish_reason"],
        truncated_at=sample["completion_tokens"] if sample["finish_reason"] == "length" else None,
        prompt_tokens=sample["prompt_tokens"],
        cached_tokens=sample["cached_tokens"],
        flops_paper=sample["flops_paper"],
        seed=sample["seed"],
        attempt=sample["attempt"],
        error=sample["error"],
        verdicts=tuple(_verdict(score) for score in sample["scores"]),
    )


def _verdict(score: dict[str, Any]) -> pages.Verdict:
    word = score["verdict"] or score["steps"] or "unknown"
    return pages.Verdict(
        scorer=score["scorer"],
        verdict=word,
        tone=_TONE_BY_VERDICT.get(word, Tone.quiet).value,
        predicted=score["predicted_answer"],
        expected=score["expected_answer"],
        explanation=score["explanation"],
    )
