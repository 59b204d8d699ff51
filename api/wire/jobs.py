"""Jobs, tasks, events, samples and usage as they go out."""

import dataclasses
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.wire.base import Known
from api.wire.submitted import DevicesOut, SubmittedOut
from service.pricing import Price


class BudgetOut(BaseModel):
    """The account of a job, in the unit of its currency: FLOPs, tokens, samples, USD or hours of devices."""

    currency: str = Field(description="flops (exact accounting), flops_paper, tokens, samples, usd or gpu_hours.")
    unit: str = Field(description="For people: FLOPs, tokens, USD, GPU-hours, CPU-hours where engines hold no GPU, ...")
    limit: float
    spent: float = Field(description="All that was used, beyond the limit too.")
    reserved: float = Field(description="Promised to samples that run: their worst case.")
    overshoot: float = Field(
        description="Of `spent`, what is beyond the limit: what ran when device time was used up was finished. 0 in "
        "every other currency, which are hard."
    )
    used_fraction: float = Field(description="spent / limit; above 1 with an overshoot.")


class FlopsOut(BaseModel):
    """Forward FLOPs (exact accounting) of generation, by what became of them; null where a model's are unknown."""

    spent: Known
    useful: Known
    wasted: Known
    wasted_by_reason: dict[str, Known] = Field(description="truncated, lost, dropped.")
    spent_paper: Known = Field(description="The same samples under 2 x parameters x completion tokens.")


class ProgressOut(BaseModel):
    """How far a job is."""

    samples: int
    errors: int = Field(description="Rows that carry an error instead of a completion.")
    truncated: int = Field(description="Samples cut at max_tokens.")
    parts: int = Field(description="Committed files of samples.")
    parts_scored: int = Field(description="Those that are scored.")
    prompt_tokens: int
    completion_tokens: int
    budget: BudgetOut
    flops: FlopsOut
    usd: float | None = Field(
        description="Price of all tokens that were drawn, wasted ones included; null where a model has no price."
    )
    devices: DevicesOut
    tokens_per_s: float | None = Field(
        description="Completion tokens a second over the last minutes, stalls included; over the whole job at its end."
    )
    eta_s: float | None = Field(description="Seconds until the budget is used up at that rate.")


class ImportedFileOut(BaseModel):
    """A file that samples were imported from."""

    name: str
    sha256: str
    num_bytes: int


class ImportedOut(BaseModel):
    """Where the samples of an import come from, and what they once cost. This service spent nothing on them."""

    files: list[ImportedFileOut]
    columns: dict[str, str] = Field(description="The files' column of each of ours.")
    match_by: str = Field(description="What tells a row's problem: id or question.")
    tokens: str = Field(description="Where token counts come from: tokenizer, column or estimate.")
    flops: Known = Field(
        description="Exact accounting of the token counts, nothing cached; null where the model's shape is not known."
    )
    flops_paper: Known


class ArmOut(BaseModel):
    """One arm of several, by its committed samples. What a lost attempt cost stands with the job."""

    name: str
    model: str
    prompt_id: str
    sampling_id: str
    temperature: float
    samples: int
    errors: int
    truncated: int
    completion_tokens: int
    flops: Known = Field(description="Exact accounting; null where unknown.")
    spent: Known = Field(description="In the unit of the budget's currency; null where unknown.")


class JobOut(SubmittedOut):
    """A job."""

    num_problems: int
    problems_fingerprint: str
    progress: ProgressOut
    imported: ImportedOut | None = Field(default=None, description="Of a job whose samples were not drawn here.")
    arms: list[ArmOut] = Field(
        default_factory=list[ArmOut], description="Of one job alone, where it has several; see its metrics, too."
    )


class JobList(BaseModel):
    """Jobs, newest first."""

    items: list[JobOut]
    next_cursor: str | None


class PriceOut(BaseModel):
    """What a million tokens cost [USD]."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = Field(description="Of prompt tokens found in a cache; null for no discount.")

    @classmethod
    def of(cls, price: Price | None) -> "PriceOut | None":
        """The price as it goes out."""
        return None if price is None else cls(**dataclasses.asdict(price))


class SampleCost(BaseModel):
    """What one sample of an arm costs, in the unit of the budget's currency."""

    arm: str
    model: str
    worst_case_from: float = Field(description="Worst case of the cheapest prompt that the context allows.")
    worst_case_to: float = Field(description="Worst case of the dearest prompt that the context allows.")
    nominal: float = Field(description="Cost of the nominal sample below.")
    nominal_prompt_tokens: int = Field(description="Mean text of the prompts at 4 characters a token: an estimate.")
    nominal_completion_tokens: int
    nominal_basis: str = Field(description="Where the nominal completion length comes from.")
    samples_at_worst_case: int | None = Field(
        description="Samples the whole budget buys at `worst_case_to`; null where they cost nothing."
    )
    samples_at_nominal: int | None = Field(
        description="Samples the whole budget buys at `nominal`; null where they cost nothing."
    )
    price: PriceOut | None = Field(description="Of the model's tokens; null where nobody stated one.")
    worst_case_usd: Known = Field(description="Worst case of the dearest prompt; null without a price [USD].")


class ArmPlanOut(BaseModel):
    """What an arm will be told."""

    name: str
    model: str
    adapter_on: str | None = Field(description="What its model is an adapter on, merged; null for one that came whole.")
    prompt_id: str = Field(description="Stands in its samples.")
    sampling_id: str
    sampling: dict[str, Any] = Field(
        description="As the engine is told: the document's word, else the model's own, else what changes nothing."
    )
    first_prompt: str | None = Field(description="Of the first problem; null where it cannot be shown.")
    not_shown: str | None = Field(description="Why there is no first prompt; null where there is one.")


class DryRunOut(BaseModel):
    """What a job would be. Nothing is stored."""

    is_dry_run: bool = True
    document: dict[str, Any]
    num_problems: int
    problems_fingerprint: str
    model_revisions: dict[str, str]
    currency: str
    limit: float
    cost_per_sample: list[SampleCost]
    arms: list[ArmPlanOut]


class TaskOut(BaseModel):
    """A task and its current attempt."""

    id: str
    order: int
    kind: str
    model: str
    arm: str = Field(description="Of the job; empty for tasks of none.")
    state: str
    attempt: int
    host: str | None
    num_planned: int
    num_parts: int
    num_lost: int
    num_failed: int
    credit: float = Field(description="Reserved for the current attempt, settled parts included [the budget's unit].")
    settled: float
    created_at: datetime | None
    submitted_at: datetime | None
    error: str | None


class TaskList(BaseModel):
    """Tasks of a job in order."""

    items: list[TaskOut]
    next_cursor: str | None


class EventOut(BaseModel):
    """A line people read."""

    id: int
    job_id: str | None
    kind: str
    message: str
    at: datetime


class EventList(BaseModel):
    """Events, oldest first."""

    items: list[EventOut]
    next_after: int = Field(description="The `after` of the next page; the same as asked for when nothing is new.")


class ScoreOut(BaseModel):
    """What one scorer says of a sample."""

    scorer: str
    scorer_version: str
    predicted_answer: str | None
    expected_answer: str | None
    verdict: str | None
    steps: str | None
    explanation: str


class SampleOut(BaseModel):
    """One sample with what its scorers say; `scores` is empty until it is scored, for ever in a job without scorers."""

    cursor: str = Field(description="Place of the sample: part number and row.")
    sample_id: str
    problem_id: str
    problem_index: int
    arm: str
    model: str
    model_revision: str
    prompt_id: str
    sampling_id: str
    engine_version: str
    sample_index: int
    seed: str = Field(description="63 bits, as text: JSON numbers lose the last ones in browsers.")
    attempt: str
    prompt: str
    completion: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    flops: Known
    flops_paper: Known
    error: str | None
    scores: list[ScoreOut]


class SampleList(BaseModel):
    """Samples in the order of their commitment."""

    items: list[SampleOut]
    next_cursor: str | None = Field(description="None at the end of what is committed so far.")


class FileOut(BaseModel):
    """A committed Parquet file."""

    number: int = Field(description="Place in the order of commitment; the cursor.")
    kind: str = Field(description="generate or score.")
    job_id: str
    model: str
    arm: str
    path: str
    sha256: str
    rows: int
    attempt_id: str
    part: int
    source_attempt: str | None = Field(description="Scores: the attempt whose part they judge.")
    source_part: int | None
    committed_at: datetime


class FileList(BaseModel):
    """Committed files in order."""

    items: list[FileOut]
    next_cursor: str | None


class UsageOut(BaseModel):
    """A sum of usage. Fields that were not asked for in `by` are absent."""

    job: str | None = None
    model: str | None = None
    arm: str | None = Field(default=None, description="Of the job; empty where that is not on record.")
    stage: str | None = None
    outcome: str | None = None
    minute: datetime | None = None
    samples: int
    errors: int
    truncated: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    flops: Known = Field(description="Null where FLOPs of some of it are unknown.")
    flops_paper: Known
    busy_s: float
    gpu_s: float = Field(description="Busy time times GPUs held [GPU-seconds].")
    cpu_s: float = Field(description="Busy time times cores held, of what held no GPU [core-seconds].")
    usd: Known = Field(description="Price of the tokens; null where some of it has no price.")


class UsageList(BaseModel):
    """Usage by what was asked for."""

    items: list[UsageOut]


class HealthOut(BaseModel):
    """The control loop's pulse."""

    status: str = Field(description="ok, starting, or silent.")
    tick_age_s: float
    num_ticks: int
    num_errors: int = Field(description="Ticks that failed since the start.")
    is_draining: bool
    cluster: str
    version: str
