"""`isoflop demo`: the whole comparison on the tiny world, from models and problems to students.

Starts the real service as a process of its own, registers models and problems, submits the comparison file of the
example, verifies the jobs that drew data from their files, and prints what the budgets bought and what students made
of it. Everything goes through the public client; nothing here is a shortcut. What an earlier run has made is taken.
"""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from plotly.offline import get_plotlyjs

from api.client import Artifact, Client, Job
from api.local.demo_screen import DemoScreen
from api.local.demo_service import demo_service
from api.local.tiny_world import EXAMPLE_DIR, exact_judge, model_dir, problem_file
from service.errors import IsoflopError
from service.figures import Figure
from service.job_report import compare_jobs
from service.manifest import package_versions
from service.report import Comparison
from service.report_files import render_markdown, to_json
from service.report_html import render_html
from service.store import Store
from service.verify import verify_directory

MODELS = ("gsm-mini-large", "gsm-mini-small", "gsm-mini-early")
SPLITS = ("train", "validation", "test", "transfer")
POLL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo runs.

    Args:
        directory: data directory of the demo's service; the reports are written there too.
        is_full: the comparison file as it is: every problem, both budgets, every seed.
        num_problems: first problems of the training set.
        samples: of the larger model per problem.
        engine_places: most engines at the same time; None as `isoflop up` does without it.
        keep: leave the service running at the end.
    """

    directory: Path
    is_full: bool = False
    num_problems: int = 400
    samples: int = 10
    seed: int = 0
    port: int = 0
    engine_places: int | None = None
    keep: bool = False

    def document(self) -> dict[str, Any]:
        """The comparison to submit; not in full, one budget on fewer problems with one seed of training."""
        document = yaml.safe_load((EXAMPLE_DIR / "compare.yaml").read_text())
        if not self.is_full:
            document["match"]["samples_per_problem"] = self.samples
            document["finetune"]["seeds"] = 1
            document |= {"max_problems": self.num_problems, "seed": self.seed}
        return document


def run_demo(options: DemoOptions, screen: DemoScreen) -> int:
    """Runs the demo; returns the exit code."""
    document = options.document()
    with demo_service(options.directory, options.port, options.engine_places) as client:
        screen.start(document, client.base_url)
        with screen.step("register"):
            _register(client)
        comparison = _run(client, screen, document)
        draws = _draws(comparison)
        ids = [job_id for arms in draws.values() for job_id in arms.values()]
        verified = [verify_directory(options.directory / "jobs" / job_id) for job_id in ids]
        with screen.step("report"):
            largest = draws[max(draws)]
            data, figures = _compare(client, options, document, largest)
            _write(options.directory / "data", data, figures)
            report = options.directory / "report.html"
            report.write_bytes(client.comparisons.report(comparison.id, "html"))
        headline = json.loads(client.comparisons.report(comparison.id, "json"))["headline"]
        screen.finish(data, headline, client.comparisons.results(comparison.id), verified)
        screen.where(report, options.directory, is_kept=options.keep)
        if options.keep:
            screen.note("the service goes on; Ctrl-C stops it")
            signal.pause()
    return 0 if all(item.is_ok for item in verified) else 1


def _register(client: Client) -> None:
    with ThreadPoolExecutor(2) as pool:
        registered = [
            pool.submit(client.models.register, name=name, path=model_dir(name), engine={"dtype": "float32"})
            for name in MODELS
        ]
        for split in SPLITS:
            client.problems.register(name=f"gsm-mini/{split}", path=problem_file(split))
        for item in registered:
            item.result()


def _run(client: Client, screen: DemoScreen, document: dict[str, Any]) -> Artifact:
    """Submits the comparison and shows it until it ends.

    Raises:
        IsoflopError: it did not succeed.
    """
    comparison = client.comparisons.create(document)
    jobs: dict[str, Job] = {}
    with screen.comparison() as show:
        while True:
            for key, child_id in _children(comparison).items():
                name = key.removeprefix("draw/")
                if name != key and (name not in jobs or not jobs[name].is_over):
                    jobs[name] = client.jobs.get(child_id)
            show(comparison.document, {name: job.document for name, job in jobs.items()})
            if comparison.is_over:
                break
            time.sleep(POLL_S)
            comparison.refresh()
    if comparison.phase != "succeeded":
        raise IsoflopError(
            f"{comparison.id} {comparison.phase}: {comparison.document['error'] or 'see isoflop events'}"
        )
    return comparison


def _children(comparison: Artifact) -> dict[str, str]:
    return {child["key"]: child["id"] for child in comparison.document["children"]}


def _draws(comparison: Artifact) -> dict[int, dict[str, str]]:
    """Ids of the jobs that drew data, by budget and arm, the reference arm first."""
    reference = comparison.document["document"]["match"]["reference"]
    drawn = [
        (*key.removeprefix("draw/").split("@"), job_id)
        for key, job_id in _children(comparison).items()
        if "draw/" in key
    ]
    found: dict[int, dict[str, str]] = {}
    for arm, budget, job_id in sorted(drawn, key=lambda item: item[0] != reference):
        found.setdefault(int(budget), {})[arm] = job_id
    return found


def _compare(
    client: Client, options: DemoOptions, document: dict[str, Any], jobs: dict[str, str]
) -> tuple[Comparison, tuple[Figure, ...]]:
    """Reads the service's own store: reporting with a checker that the service must not know is done outside it."""
    documents = {job_id: client.jobs.get(job_id).document["document"] for job_id in jobs.values()}
    store = Store.open(f"sqlite:///{options.directory.absolute() / 'isoflop.db'}")
    try:
        return compare_jobs(
            store,
            list(jobs.values()),
            title="Larger and smaller model at equal useful FLOPs",
            documents={job_id: yaml.safe_dump(found, sort_keys=False) for job_id, found in documents.items()},
            versions=tuple(sorted(package_versions().items())),
            now=datetime.now(UTC),
            names=list(jobs),
            judge=exact_judge("train"),
            checker="the tiny world's exact checker",
            notes=(
                "A synthetic world with models trained for it: nothing here is a result about natural problems.",
                f"Both models sampled at temperature {document['sampling']['temperature']}, a choice that matters as "
                "much as the budget.",
                "Reasoning is judged by a checker that knows every problem's formula; no strategy or scorer saw it.",
            ),
        )
    finally:
        store.close()


def _write(path: Path, comparison: Comparison, figures: tuple[Figure, ...]) -> None:
    path.with_suffix(".html").write_text(render_html(comparison, figures, plotly_js=get_plotlyjs()), encoding="utf-8")
    path.with_suffix(".md").write_text(render_markdown(comparison), encoding="utf-8")
    path.with_suffix(".json").write_text(to_json(comparison, figures), encoding="utf-8")
