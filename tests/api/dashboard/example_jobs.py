"""Overview, job and samples filled with made-up numbers: for tests and for working on a template without a cluster."""

from datetime import timedelta

from api.dashboard import pages
from service import figures
from tests.api.dashboard.example_figures import (
    COLOURS,
    DOCUMENT,
    MODELS,
    NOW,
    VERSIONS,
    job_figures,
    shell,
    spend_figure,
)

JOB_ID = "job-7f3a9c"
SAMPLE_FILTERS = ("all", "correct", "false_positive", "incorrect", "truncated", "failed")


def job_line(
    *,
    job_id: str = JOB_ID,
    name: str = "gsm-mini small, 30 samples worth",
    phase: str = "running",
    model: str = MODELS[1],
    spent: float = 8.12e11,
    attention: str | None = None,
    hours_ago: float = 0.06,
) -> pages.JobLine:
    """One job; the defaults are a running one."""
    is_running = phase == "running"
    return pages.JobLine(
        id=job_id,
        name=name,
        phase=phase,
        models=(model,),
        problems="gsm-mini/train",
        budget=pages.BudgetView(
            unit="FLOPs", accounting="exact", limit=1.31e12, spent=spent, reserved=9e10 if is_running else 0.0
        ),
        samples=round(spent / 1.085e8),
        tokens_per_s=13_912.0 if is_running else None,
        eta_s=125.0 if is_running else None,
        created_at=NOW - timedelta(hours=hours_ago),
        attention=attention,
    )


def overview() -> pages.OverviewPage:
    """A service with work in every state."""
    jobs = (
        job_line(),
        job_line(
            job_id="job-81bb02",
            name="gsm-mini adaptive, both models",
            phase="queued",
            spent=0.0,
            attention="waits for a CPU since 45 s",
            hours_ago=0.02,
        ),
        job_line(
            job_id="job-5d20e1",
            name="gsm-mini large, 10 samples",
            phase="succeeded",
            model=MODELS[0],
            spent=1.3097e12,
            hours_ago=0.4,
        ),
        job_line(job_id="job-44c1aa", name="first look", phase="cancelled", spent=1.9e11, hours_ago=5.2),
        job_line(
            job_id="job-40ff3e",
            name="chat template trial",
            phase="failed",
            spent=0.0,
            attention="engine could not start: context 256 is shorter than the longest prompt, 301 tokens",
            hours_ago=26,
        ),
    )
    return pages.OverviewPage(
        shell=shell("overview"),
        headline=pages.overview_headline(jobs),
        engines_ready=1,
        engines_total=2,
        tokens_per_s=13_912.0,
        spent_today_flops=2.31e12,
        device_time_today="0.0377 CPU-hours",
        wasted_today_share=0.0043,
        jobs=jobs,
        period="the last 24 hours",
        use=(
            pages.UseLine(model=MODELS[0], stage="generate", useful_flops=1.306e12, wasted_flops=3.9e9),
            pages.UseLine(model=MODELS[1], stage="generate", useful_flops=9.96e11, wasted_flops=6.1e9),
            pages.UseLine(model=MODELS[1], stage="evaluate", useful_flops=3.1e10, wasted_flops=0.0),
        ),
        held=(
            _held(MODELS[0], "CPU-hours", 1, busy=76.0, load=21.0, swap=0.0, idle=8.0),
            _held(MODELS[1], "CPU-hours", 2, busy=59.0, load=44.0, swap=1.5, idle=310.0),
            _held("trainer", "CPU-hours", 1, busy=40.0, load=28.0, swap=0.0, idle=300.0),
        ),
        figures=(spend_figure(),),
    )


def _held(host: str, unit: str, num_hosts: int, **parts: float) -> pages.HeldLine:
    return pages.HeldLine(
        host=host, unit=unit, num_hosts=num_hosts, held_s=sum(parts.values()), parts=tuple(parts.items())
    )


def empty_overview() -> pages.OverviewPage:
    """The first minute of a new service."""
    return pages.OverviewPage(
        shell=shell("overview"),
        headline=pages.overview_headline(()),
        engines_ready=0,
        engines_total=0,
        tokens_per_s=0.0,
        spent_today_flops=0.0,
        device_time_today="no device time",
        wasted_today_share=0.0,
        jobs=(),
        period="the last 24 hours",
        use=(),
        held=(),
        figures=(figures.spend_figure([], COLOURS, bucket="minute"),),
    )


def job_page() -> pages.JobPage:
    """A running job with a lost task behind it."""
    job = job_line()
    return pages.JobPage(
        shell=shell("overview"),
        job=job,
        headline=pages.job_headline(job),
        error=None,
        actions=("pause", "cancel"),
        usd=None,
        num_problems=400,
        took_s=None,
        truncated_share=0.0021,
        flops=("8.12e11", "exact accounting, 0.4 % wasted"),
        device_time=("0.0241 CPU-hours", "generate 0.0219, score 0.0022"),
        scored="7,120 of 7,480 scored",
        arms=tuple(
            pages.ArmLine(
                name=f"{prompt} t={temperature:g}",
                model=MODELS[1],
                adapted=None,
                temperature=temperature,
                samples=1_870,
                flops=2.03e11,
                share=0.25,
                wasted=0.004,
                metrics=((".884", "[.85, .91]"), ("4.60", "[4.4, 4.8]")),
            )
            for prompt in ("plain", "coached")
            for temperature in (0.4, 0.9)
        ),
        arm_columns=("pass@4", "unique correct per problem"),
        arms_note="Each gets as many samples; pass@4 is at as many samples a problem in each.",
        metrics=(
            pages.MetricView(
                key="coverage",
                label="pass@18 (coverage)",
                value=".884",
                interval="[.85, .91]",
                note="Share of problems with a correct answer among 18 samples.",
            ),
            pages.MetricView(
                key="verified",
                label="verified pass@18",
                value=".836",
                interval="[.80, .87]",
                note="Counting only samples whose reasoning holds.",
            ),
            pages.MetricView(
                key="unique",
                label="unique correct per problem",
                value="4.60",
                interval="[4.4, 4.8]",
                note="Distinct correct solutions, exact text.",
            ),
            pages.MetricView(
                key="false-positives",
                label="false positives",
                value="3.8 %",
                interval="[3.5, 4.2]",
                note="Right answers with wrong reasoning, of right answers judged.",
            ),
        ),
        figures=job_figures(),
        waste=(
            pages.WasteLine(reason="truncated", flops=1.7e9, share=0.0021, samples=15),
            pages.WasteLine(reason="lost", flops=3.1e9, share=0.0038, samples=24),
        ),
        tasks=(
            _task("t-0019", "running", done=212, planned=400, running_s=11.2),
            _task("t-0020", "submitted", done=0, planned=400),
            _task("t-0021", "pending", done=0, planned=400, host=""),
            _task("t-0018", "succeeded", done=400, planned=400, running_s=21.0),
            _task("t-0007", "lost", done=131, planned=400, error="host generator-small-1 died: signal 9"),
        ),
        num_tasks=37,
        events=(
            _event(88, 2, "quiet", "part 1 of t-0019 committed: 188 samples, 2.04e10 FLOPs"),
            _event(87, 12, "quiet", "t-0018 finished: 400 samples, 4.34e10 FLOPs"),
            _event(61, 96, "warning", "t-0007 lost with generator-small-1 (signal 9); 269 samples planned again"),
            _event(60, 97, "bad", "generator-small-1 is gone; generator-small-2 starts"),
            _event(3, 199, "active", "generating on 400 problems"),
            _event(2, 204, "quiet", "prompts prepared: 400, longest 52 tokens"),
            _event(1, 216, "quiet", "submitted with a budget of 1.31e12 FLOPs"),
        ),
        document=DOCUMENT,
        versions=VERSIONS,
        source=(),
        comparable=(("job-5d20e1", "gsm-mini large, 10 samples"),),
        selections=(pages.Link(name="verified, four a problem", path="/training/selections/select-7-98214f"),),
        poll_s=2.0,
    )


def _task(
    task_id: str,
    state: str,
    *,
    done: int,
    planned: int,
    host: str = "generator-small-2",
    running_s: float | None = None,
    error: str | None = None,
) -> pages.TaskLine:
    return pages.TaskLine(
        id=task_id,
        kind="generate",
        model=MODELS[1],
        state=state,
        attempt=1,
        samples_done=done,
        samples_planned=planned,
        host=host,
        running_s=running_s,
        error=error,
    )


def _event(seq: int, seconds_ago: float, tone: str, text: str) -> pages.EventLine:
    return pages.EventLine(seq=seq, at=NOW - timedelta(seconds=seconds_ago), tone=tone, text=text)


def sample_lines() -> tuple[pages.SampleLine, ...]:
    """Enough samples to scroll."""
    kinds = (("correct", "good"), ("correct", "good"), ("false positive", "warning"), ("incorrect", "quiet"))
    return tuple(
        pages.SampleLine(
            id=f"s{i:02d}",
            problem_id=f"gsm-mini/train/{i // 3:04d}",
            sample_index=i % 3,
            model=MODELS[1],
            label="truncated" if i == 5 else kinds[i % 4][0],
            tone="bad" if i == 5 else kinds[i % 4][1],
            completion_tokens=128 if i == 5 else 24 + 5 * (i % 7),
            flops=1.1e7 * (1 + 0.2 * (i % 7)),
        )
        for i in range(25)
    )


def samples_page(sample_id: str = "s02") -> pages.SamplesPage:
    """The sample browser with one sample open.

    Raises:
        KeyError: for a sample that is not among `sample_lines`.
    """
    lines = sample_lines()
    line = {line.id: line for line in lines}[sample_id]
    is_false_positive = line.label == "false positive"
    is_correct = line.label in ("correct", "false positive")
    detail = pages.SampleDetail(
        line=line,
        question="Ana has 14 pens. She buys 3 boxes with 6 pens each and gives 9 away. How many pens has she now?",
        reference="3 * 6 = 18\n14 + 18 = 32\n32 - 9 = 23\n#### 23",
        prompt="<bos>Ana has 14 pens. She buys 3 boxes with 6 pens each and gives 9 away. How many pens has she now?\n",
        completion=(
            "3 * 6 = 16\n14 + 16 = 32\n32 - 9 = 23\n#### 23"
            if is_false_positive
            else "3 * 6 = 18\n14 + 18 = 32\n32 - 9 = 23\n#### 23"
            if is_correct
            else "3 * 6 = 18\n14 + 18 = 32\n32 + 9 = 41\n#### 41"
        ),
        finish_reason="length" if line.label == "truncated" else "stop",
        truncated_at=128 if line.label == "truncated" else None,
        prompt_tokens=31,
        cached_tokens=0,
        flops_paper=0.92e7,
        seed=1_934_882_017,
        attempt="t-0018.1",
        error=None,
        verdicts=(
            pages.Verdict(
                scorer="math_answer",
                verdict="correct" if is_correct else "incorrect",
                tone="good" if is_correct else "quiet",
                predicted="23" if is_correct else "41",
                expected="23",
                explanation="equal as numbers" if is_correct else "41 is not 23",
            ),
            pages.Verdict(
                scorer="steps",
                verdict="invalid" if is_false_positive else "valid",
                tone="warning" if is_false_positive else "good",
                predicted=None,
                expected=None,
                explanation="line 1: 3 * 6 is 18, written 16" if is_false_positive else "3 of 3 calculations hold",
            ),
        ),
    )
    return pages.SamplesPage(
        shell=shell("overview"),
        job_id=JOB_ID,
        job_name="gsm-mini small, 30 samples worth",
        headline="7,484 samples, 61.4 % correct, 3.8 % of those with wrong reasoning.",
        filters=tuple(
            pages.SampleFilter(key=key, label=key.replace("_", " "), num_samples=number)
            for key, number in zip(SAMPLE_FILTERS, (7484, None, None, None, 15, 0), strict=True)
        ),
        shown="all",
        arms=("plain t=0.4", "plain t=0.9", "coached t=0.4", "coached t=0.9"),
        arm="",
        samples=lines,
        selected=detail,
        cursor="",
        next_cursor="s25",
    )
