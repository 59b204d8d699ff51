"""The other pages filled with made-up numbers, and all of them by path; `tests.browser.preview` serves them."""

from datetime import timedelta

from api.dashboard import pages
from service import figures
from service.pricing import Price
from tests.api.dashboard import example_experiments, example_training
from tests.api.dashboard.example_figures import COLOURS, MODELS, NOW, comparison, quality_figures, shell, spend_figure
from tests.api.dashboard.example_jobs import JOB_ID, empty_overview, job_page, overview, samples_page


def workers() -> pages.WorkersPage:
    """Two pools, one of them starting, and a dead host."""
    return pages.WorkersPage(
        shell=shell("workers"),
        headline="1 of 2 engines ready, 1 loading; nobody is stuck.",
        cluster="4 hosts on 1 node",
        pools=(
            pages.PoolLine(
                model=MODELS[0],
                replicas=1,
                ready=0,
                starting=1,
                minimum=0,
                idle_s=600.0,
                failures=0,
                waiting_since=None,
                turn_since=None,
                num_turns=2,
                etag='"3"',
            ),
            pages.PoolLine(
                model=MODELS[1],
                replicas=1,
                ready=1,
                starting=0,
                minimum=0,
                idle_s=600.0,
                failures=0,
                waiting_since=None,
                turn_since=NOW - timedelta(seconds=87),
                num_turns=1,
                etag='"12"',
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
    """Two models of one family, and an adapter on one of them."""
    return pages.ModelsPage(
        shell=shell("models"),
        headline="3 models and 12 checkpoints; a token of gsm-mini-large costs 3.0 times one of gsm-mini-small.",
        reference_len=64,
        models=(
            _model(MODELS[0], parameters=593_280, flops=1.19e6),
            _model(MODELS[1], parameters=196_224, flops=3.94e5, num_students=3),
            _model("lab/tuned-on-hard-problems", parameters=196_224, flops=3.94e5, adapted=MODELS[1]),
        ),
    )


def _model(
    name: str, *, parameters: int, flops: float, num_students: int = 0, adapted: str | None = None
) -> pages.ModelLine:
    runs = [f"finetune-{number}-0f92a3" for number in range(num_students)]
    return pages.ModelLine(
        name=name,
        colour=COLOURS.get(name, figures.NEUTRAL),
        source=f"models/{name}",
        adapted=adapted,
        revision="sha256:9c0e4d1f22ab7d10",
        parameters=parameters,
        context_len=256,
        flops_per_token=flops,
        price=Price(input_usd=0.3, output_usd=2.5) if num_students else None,
        dtype="float32",
        students=tuple(
            pages.StudentLine(run=pages.Link(name=run, path=f"/training/finetunes/{run}"), steps=(50, 100, 150, 200))
            for run in runs
        ),
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
        figure_period="the last 7 days",
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
        owner=pages.Link(name=name, path=f"/jobs/{job_id}"),
        model=model,
        stage="generate",
        useful_flops=useful,
        wasted_flops=wasted,
        usd=useful / 1e13,
        prompt_tokens=round(useful / 1.1e7),
        completion_tokens=round(useful / 4e6),
        gpu_s=0.0,
        cpu_s=useful / 1.7e10,
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


def choose_page(num_jobs: int) -> pages.ChoosePage:
    """Where a comparison of unknown jobs was asked for."""
    jobs = tuple((f"job-{i}-0a1b2c", f"run {i} · gsm-mini/test · job-{i}-0a1b2c") for i in range(num_jobs))
    return pages.ChoosePage(shell=shell("overview"), notice="no job 'a'; GET /v1/jobs lists them", jobs=jobs)


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
        "/training": example_training.training_page(),
        "/training-empty": example_training.empty_training_page(),
        f"/training/selections/{example_training.SELECTION_ID}": example_training.selection_page(),
        "/training/selections/unmade": example_training.selection_page(is_made=False),
        f"/training/finetunes/{example_training.FINETUNE_ID}": example_training.finetune_page(),
        "/comparisons": example_experiments.experiments_page(example_experiments.line()),
        "/comparisons-empty": example_experiments.experiments_page(),
        f"/comparisons/{example_experiments.COMPARISON_ID}": example_experiments.experiment_page(),
        "/comparisons/new": example_experiments.experiment_page(is_new=True),
        "/workers": workers(),
        "/models": models(),
        "/problems": problems(),
        "/usage": usage(),
        "/compare": comparison_page(),
        "/compare-which": choose_page(3),
        "/compare-nothing": choose_page(0),
        "/error": error_page(),
    }
