"""Every page filled with made-up numbers: for tests, for screenshots and for working on a template without a cluster.

`python -m api.dashboard.preview` serves them. Nothing here was measured.
"""

import math
from datetime import UTC, datetime, timedelta

from api.dashboard import pages
from service import figures, report
from service.stats import Estimate, NotEstimable

NOW = datetime(2026, 3, 1, 14, 5, 9, tzinfo=UTC)
MODELS = ("gsm-mini-large", "gsm-mini-small")
COLOURS = figures.assign_colours(MODELS)
JOB_ID = "job-7f3a9c"
SAMPLE_FILTERS = ("all", "correct", "false_positive", "incorrect", "truncated", "failed")

DOCUMENT = """\
name: gsm-mini small, 30 samples worth
problems: gsm-mini/train
models: [gsm-mini-small]
budget: {flops: 1.31e12}
accounting: exact
allocation: {strategy: uniform}
prompt: {template: plain}
sampling: {temperature: 0.7, max_tokens: auto}
scorers: [math_answer, steps]
seed: 0
"""
VERSIONS = (("isoflop", "0.1.0"), ("vllm", "0.32.0"), ("ray", "2.60.0"), ("transformers", "5.19.0"))


def shell(active: str) -> pages.Shell:
    """The frame around an example."""
    return pages.Shell(
        active=active, now=NOW, version="isoflop 0.1.0", tick_age_s=0.4, identity="local operator", can_operate=True
    )


def curve(name: str, model: str, *, scale: float, rate: float, flops: float, points: int) -> figures.Curve:
    """A curve that rises like pass@k does."""
    drawn: list[figures.CurvePoint] = []
    for k in range(1, points + 1):
        value = scale * (1 - math.exp(-rate * k**0.6))
        half = 0.028 * scale
        drawn.append(
            figures.CurvePoint(flops=flops * k, value=value, low=value - half, high=value + half, k=k, num_problems=400)
        )
    return figures.Curve(name=name, model=model, points=tuple(drawn))


def quality_figures() -> tuple[figures.Figure, ...]:
    """The four figures of a comparison."""
    large, small = MODELS
    return (
        figures.coverage_figure(
            [
                curve("larger", large, scale=0.93, rate=0.75, flops=3.3e8, points=10),
                curve("smaller", small, scale=0.97, rate=0.42, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
        ),
        figures.verified_coverage_figure(
            [
                curve("larger", large, scale=0.90, rate=0.75, flops=3.3e8, points=10),
                curve("smaller", small, scale=0.90, rate=0.42, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
            checker="exact step checker",
        ),
        figures.diversity_figure(
            [
                curve("larger", large, scale=5.4, rate=0.26, flops=3.3e8, points=10),
                curve("smaller", small, scale=7.4, rate=0.17, flops=1.1e8, points=30),
            ],
            COLOURS,
            accounting="exact",
            rule="exact text",
        ),
        figures.false_positive_figure(
            [
                figures.RateBar(name="larger", model=large, value=0.021, low=0.017, high=0.026, num_items=5124),
                figures.RateBar(name="smaller", model=small, value=0.038, low=0.035, high=0.042, num_items=10165),
            ],
            COLOURS,
            checker="exact step checker",
        ),
    )


def spend_figure() -> figures.Figure:
    """Half an hour of spending by two models in two stages."""
    buckets = [
        figures.SpendBucket(start=NOW - timedelta(minutes=30 - m), model=model, stage=stage, flops=flops)
        for m in range(30)
        for model, stage, flops in (
            (MODELS[0], "generate", 3.1e10 * (m < 17) * (0.8 + 0.3 * math.sin(m))),
            (MODELS[1], "generate", 3.4e10 * (m >= 15) * (0.9 + 0.2 * math.cos(2 * m))),
            (MODELS[1], "evaluate", 0.6e10 * (m > 24)),
        )
    ]
    return figures.spend_figure(buckets, COLOURS, bucket="minute")


def job_figures() -> tuple[figures.Figure, ...]:
    """What a running job shows."""
    small = MODELS[1]
    points = [figures.BudgetPoint(at=NOW - timedelta(seconds=5 * (40 - i)), spent=2.03e10 * i) for i in range(41)]
    plain = curve("coverage", small, scale=0.97, rate=0.42, flops=1.1e8, points=18)
    verified = curve("verified", small, scale=0.90, rate=0.42, flops=1.1e8, points=18)
    return (
        figures.burn_down_figure(points, reserved=9e10, limit=1.31e12, unit="FLOPs"),
        figures.coverage_figure([plain, verified], COLOURS, accounting="exact"),
        figures.diversity_figure(
            [curve("unique correct", small, scale=7.4, rate=0.17, flops=1.1e8, points=18)],
            COLOURS,
            accounting="exact",
            rule="exact text",
        ),
        figures.length_figure(
            [
                figures.LengthBin(
                    model=small,
                    low=8 * i,
                    high=8 * (i + 1),
                    stopped=round(1400 * math.exp(-((i - 4) ** 2) / 6)),
                    truncated=22 if i == 15 else 0,
                )
                for i in range(16)
            ],
            COLOURS,
        ),
    )


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
        wasted_today_share=0.0043,
        jobs=jobs,
        use=(
            pages.UseLine(model=MODELS[0], stage="generate", useful_flops=1.306e12, wasted_flops=3.9e9),
            pages.UseLine(model=MODELS[1], stage="generate", useful_flops=9.96e11, wasted_flops=6.1e9),
            pages.UseLine(model=MODELS[1], stage="evaluate", useful_flops=3.1e10, wasted_flops=0.0),
        ),
        figures=(spend_figure(),),
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
        wasted_today_share=0.0,
        jobs=(),
        use=(),
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
        num_problems=400,
        truncated_share=0.0021,
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
        comparable=(("job-5d20e1", "gsm-mini large, 10 samples"),),
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
        samples=lines,
        selected=detail,
        cursor="",
        next_cursor="s25",
    )


def workers() -> pages.WorkersPage:
    """Two pools, one of them starting, and a dead host."""
    return pages.WorkersPage(
        shell=shell("workers"),
        headline="1 of 2 engines ready, 1 loading; nobody is stuck.",
        cluster="4 hosts on 1 node",
        pools=(
            pages.PoolLine(
                model=MODELS[0], replicas=1, ready=0, starting=1, minimum=0, idle_s=600.0, failures=0, etag='"3"'
            ),
            pages.PoolLine(
                model=MODELS[1], replicas=1, ready=1, starting=0, minimum=0, idle_s=600.0, failures=0, etag='"12"'
            ),
        ),
        hosts=(
            _host("generator-small-2", "ready", model=MODELS[1], pid=4711, load_s=9.5, age_s=97),
            _host("generator-large-1", "loading", model=MODELS[0], pid=4802, age_s=6),
            _host("dispatcher-node-a", "ready", kind="dispatcher", pid=4650, age_s=230),
            _host(
                "generator-small-1",
                "dead",
                model=MODELS[1],
                pid=4688,
                load_s=9.8,
                age_s=220,
                ended_s=97,
                error="killed by signal 9; its attempt was planned again",
            ),
        ),
    )


def _host(
    name: str,
    state: str,
    *,
    kind: str = "generator",
    model: str = "",
    pid: int,
    age_s: float,
    load_s: float | None = None,
    ended_s: float | None = None,
    error: str | None = None,
) -> pages.HostLine:
    return pages.HostLine(
        name=name,
        kind=kind,
        model=model,
        state=state,
        is_stopping=False,
        node="node-a",
        pid=pid,
        load_s=load_s,
        created_at=NOW - timedelta(seconds=age_s),
        idle_since=None,
        ended_at=None if ended_s is None else NOW - timedelta(seconds=ended_s),
        error=error,
    )


def models() -> pages.ModelsPage:
    """Two models of one family."""
    return pages.ModelsPage(
        shell=shell("models"),
        headline="2 models; a token of gsm-mini-large costs 3.0 times one of gsm-mini-small.",
        reference_len=64,
        models=(
            _model(MODELS[0], parameters=593_280, flops=1.19e6),
            _model(MODELS[1], parameters=196_224, flops=3.94e5),
        ),
    )


def _model(name: str, *, parameters: int, flops: float) -> pages.ModelLine:
    return pages.ModelLine(
        name=name,
        colour=COLOURS[name],
        source=f"models/{name}",
        revision="sha256:9c0e4d1f22ab7d10",
        parameters=parameters,
        context_len=256,
        flops_per_token=flops,
        dtype="float32",
    )


def problems() -> pages.ProblemsPage:
    """One problem set with levels and structures for the step checker."""
    return pages.ProblemsPage(
        shell=shell("problems"),
        headline="1 problem set with 2,000 problems.",
        problem_sets=(
            pages.ProblemSetLine(
                name="gsm-mini/train",
                num_problems=2000,
                num_levels=5,
                has_structure=True,
                fingerprint="sha256:51f2c09a77e0b3aa",
                source="examples/tiny-world/problems/train.jsonl",
                example="Ana has 14 pens. She buys 3 boxes with 6 pens each and gives 9 away. How many …",
            ),
        ),
    )


def usage() -> pages.UsagePage:
    """A week with three jobs."""
    return pages.UsagePage(
        shell=shell("usage"),
        headline="2.34e12 FLOPs in the last 7 days, 0.4 % of them wasted.",
        period="the last 7 days",
        csv_path="/usage.csv?days=7",
        lines=(
            _usage("gsm-mini large, 10 samples", "job-5d20e1", MODELS[0], useful=1.306e12, wasted=3.9e9),
            _usage("gsm-mini small, 30 samples worth", JOB_ID, MODELS[1], useful=8.07e11, wasted=4.8e9),
            _usage("first look", "job-44c1aa", MODELS[1], useful=1.89e11, wasted=1.3e9),
        ),
        figures=(spend_figure(),),
    )


def _usage(name: str, job_id: str, model: str, *, useful: float, wasted: float) -> pages.UsageLine:
    return pages.UsageLine(
        job_id=job_id,
        job_name=name,
        model=model,
        stage="generate",
        useful_flops=useful,
        wasted_flops=wasted,
        prompt_tokens=round(useful / 1.1e7),
        completion_tokens=round(useful / 4e6),
        busy_hours=useful / 6e13,
    )


def comparison() -> report.Comparison:
    """Two arms at equal useful FLOPs."""

    def line(
        key: str,
        label: str,
        explanation: str,
        form: report.Form,
        values: tuple[report.Measured, report.Measured],
        difference: report.Measured,
        *,
        is_relative: bool = False,
    ) -> report.MetricLine:
        return report.MetricLine(
            key=key,
            label=label,
            explanation=explanation,
            form=form,
            values=values,
            differences=(difference,),
            is_relative=is_relative,
        )

    return report.Comparison(
        title="gsm-mini small against large, high budget",
        problems="gsm-mini/validation",
        fingerprint="sha256:51f2c09a77e0b3aa",
        num_problems=400,
        matched_by="useful FLOPs",
        accounting="exact",
        checker="exact step checker",
        seed=0,
        created_at=NOW,
        arms=(
            _arm("larger", MODELS[0], parameters=593_280, samples=4_000, flops=1.3101e12, hours=0.021),
            _arm("smaller", MODELS[1], parameters=196_224, samples=12_071, flops=1.3098e12, hours=0.019),
        ),
        metrics=(
            line(
                "coverage",
                "pass@k (coverage)",
                "Share of problems with at least one correct answer.",
                report.Form.share,
                (Estimate(0.884, 0.852, 0.912, 400), Estimate(0.909, 0.881, 0.934, 400)),
                Estimate(0.025, 0.001, 0.049, 400),
            ),
            line(
                "verified_coverage",
                "verified coverage",
                "The same, counting only samples whose reasoning holds as well.",
                report.Form.share,
                (Estimate(0.867, 0.834, 0.897, 400), Estimate(0.860, 0.826, 0.893, 400)),
                Estimate(-0.008, -0.034, 0.019, 400),
            ),
            line(
                "unique",
                "unique correct",
                "Distinct correct solutions per problem, exact text.",
                report.Form.number,
                (Estimate(3.50, 3.31, 3.70, 400), Estimate(5.49, 5.14, 5.83, 400)),
                Estimate(0.57, 0.50, 0.64, 400),
                is_relative=True,
            ),
            line(
                "false_positives",
                "false positives",
                "Right answers with wrong reasoning, of right answers judged.",
                report.Form.rate,
                (Estimate(0.021, 0.017, 0.026, 5124), Estimate(0.038, 0.035, 0.042, 10165)),
                Estimate(0.017, 0.009, 0.026, 400),
            ),
            line(
                "judge",
                "false positives by an LLM judge",
                "The same, judged by a language model.",
                report.Form.rate,
                (NotEstimable("no judge was configured"), NotEstimable("no judge was configured")),
                NotEstimable("no judge was configured"),
            ),
        ),
        versions=VERSIONS,
        notes=(
            "The smaller model's samples come from one seed; a second one would show how far draws alone move them.",
        ),
    )


def _arm(name: str, model: str, *, parameters: int, samples: int, flops: float, hours: float) -> report.Arm:
    return report.Arm(
        name=name,
        models=(model,),
        parameters=parameters,
        job_id=f"job-{name}",
        budget="1.31e12 FLOPs",
        reserved_flops=0.0,
        spent_flops=flops,
        useful_flops=flops,
        waste=(report.Waste(reason="truncated", flops=0.003 * flops),),
        device_hours=hours,
        device="CPU",
        samples=samples,
        errors=0,
        completion_tokens=samples * 28,
        tokens_per_s=samples * 28 / (3600 * hours),
        document=DOCUMENT,
    )


def comparison_page() -> pages.ComparisonPage:
    """The comparison inside the dashboard."""
    return pages.ComparisonPage(
        shell=shell("overview"),
        comparison=comparison(),
        figures=quality_figures(),
        downloads=(
            ("Offline report", "/compare/report.html?jobs=a&jobs=b"),
            ("JSON", "/compare/report.json?jobs=a&jobs=b"),
        ),
    )


def error_page() -> pages.ErrorPage:
    """A job that does not exist."""
    return pages.ErrorPage(
        shell=shell(""),
        status=404,
        title="not found",
        detail="No job has the id job-000000.",
        next_step="The overview lists every job; isoflop status does so in a terminal.",
    )


def example_pages() -> dict[str, pages.Page]:
    """Every example by the path it would have."""
    return {
        "/": overview(),
        "/empty": empty_overview(),
        f"/jobs/{JOB_ID}": job_page(),
        f"/jobs/{JOB_ID}/samples": samples_page(),
        "/workers": workers(),
        "/models": models(),
        "/problems": problems(),
        "/usage": usage(),
        "/compare": comparison_page(),
        "/error": error_page(),
    }
