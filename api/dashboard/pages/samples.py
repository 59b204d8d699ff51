"""The sample browser: a list of samples and one of them in full."""

from dataclasses import dataclass

from api.dashboard.pages.frame import Shell


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one scorer says of a sample, and why.

    Args:
        verdict: e.g. "correct", "incorrect", "timeout", or of a step check "valid", "invalid", "unknown".
        tone: a `wording.Tone`.
    """

    scorer: str
    verdict: str
    tone: str
    predicted: str | None
    expected: str | None
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLine:
    """One sample in the browser's list. `label` and `tone` sum its verdicts up, e.g. "false positive"."""

    id: str
    problem_id: str
    sample_index: int
    model: str
    label: str
    tone: str
    completion_tokens: int
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDetail:
    """One sample in full.

    Args:
        prompt: as rendered, exactly what the engine got.
        truncated_at: max_tokens where the completion was cut there, else None.
        attempt: the attempt that drew it.
    """

    line: SampleLine
    question: str
    reference: str
    prompt: str
    completion: str
    finish_reason: str
    truncated_at: int | None
    prompt_tokens: int
    cached_tokens: int
    flops_paper: float
    seed: int
    attempt: str
    error: str | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """A filter and how many samples it keeps; None where counting would read every row."""

    key: str
    label: str
    num_samples: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesPage:
    """What do the samples look like?

    Args:
        shown: key of the filter in force.
        arms: names of the job's arms, where there are several.
        arm: the one whose samples are shown; "" for those of all.
        selected: the sample in the reading pane; None when the list is empty.
        cursor: where this page of the list begins; "" at the start. It is part of every link in the list.
        next_cursor: where the next one begins; None on the last.
    """

    shell: Shell
    job_id: str
    job_name: str
    headline: str
    filters: tuple[SampleFilter, ...]
    shown: str
    arms: tuple[str, ...]
    arm: str
    samples: tuple[SampleLine, ...]
    selected: SampleDetail | None
    cursor: str
    next_cursor: str | None
