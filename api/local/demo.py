"""`isoflop demo`: the whole system on the tiny world in a few minutes.

Starts the real service as a process of its own, registers models and problems, runs the larger model on a fixed number
of samples and the smaller one on exactly the larger one's useful FLOPs, verifies both jobs from their files, prints
the comparison and writes the report. Everything goes through the public client; nothing here is a shortcut.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from plotly.offline import get_plotlyjs

from api.client import Client, Job
from api.local.demo_screen import DemoScreen
from api.local.tiny_world import EXAMPLE_DIR, exact_judge, model_dir, problem_file
from service.errors import IsoflopError, Unreachable
from service.figures import Figure
from service.job_report import compare_jobs
from service.manifest import package_versions
from service.report import Comparison
from service.report_files import render_markdown, to_json
from service.report_html import render_html
from service.store import Store
from service.verify import verify_directory

LARGER, SMALLER = "gsm-mini-large", "gsm-mini-small"
SPLIT = "train"
START_S = 60.0
STOP_S = 90.0
POLL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo runs.

    Args:
        directory: data directory of the demo's service; report.html is written there too.
        num_problems: first problems of the training set.
        samples: of the larger model per problem.
        keep: leave the service running at the end.
    """

    directory: Path
    num_problems: int = 400
    samples: int = 10
    temperature: float = 0.8
    seed: int = 0
    port: int = 0
    keep: bool = False


def run_demo(options: DemoOptions, screen: DemoScreen) -> int:
    """Runs the demo; returns the exit code."""
    with _service(options) as client:
        screen.start(options.num_problems, options.samples, client.base_url)
        _register(client, screen)
        larger = _run_arm(
            client, screen, options, name="larger", model=LARGER, budget={"samples_per_problem": options.samples}
        )
        useful = larger.document["progress"]["flops"]["useful"]
        smaller = _run_arm(client, screen, options, name="smaller", model=SMALLER, budget={"flops": useful})
        verified = [verify_directory(options.directory / "jobs" / job.id) for job in (larger, smaller)]
        with screen.step("compare"):
            comparison, figures = _compare(options, larger, smaller)
            report = _write_report(comparison, figures, options.directory)
        screen.finish(comparison, report, verified, options)
        if options.keep:
            screen.note("the service goes on; Ctrl-C stops it")
            signal.pause()
    return 0 if all(item.is_ok for item in verified) else 1


def _compare(options: DemoOptions, larger: Job, smaller: Job) -> tuple[Comparison, tuple[Figure, ...]]:
    """Reads the service's own store: reporting with a checker that the service must not know is done outside it."""
    store = Store.open(f"sqlite:///{options.directory.absolute() / 'isoflop.db'}")
    try:
        return compare_jobs(
            store,
            [larger.id, smaller.id],
            title="Larger and smaller model at equal useful FLOPs",
            documents={job.id: yaml.safe_dump(job.document["document"], sort_keys=False) for job in (larger, smaller)},
            versions=tuple(sorted(package_versions().items())),
            device="GPU" if Path("/dev/nvidia0").exists() else "CPU",
            now=datetime.now(UTC),
            names=("larger", "smaller"),
            judge=exact_judge(SPLIT),
            checker="the tiny world's exact checker",
            notes=(
                "A synthetic world with models trained for it: nothing here is a result about natural problems.",
                f"Both models sampled at temperature {options.temperature}, a choice that matters as much as the "
                "budget.",
                "Reasoning is judged by a checker that knows every problem's formula; no strategy or scorer saw it.",
            ),
        )
    finally:
        store.close()


def _write_report(comparison: Comparison, figures: tuple[Figure, ...], directory: Path) -> Path:
    html = directory / "report.html"
    html.write_text(render_html(comparison, figures, plotly_js=get_plotlyjs()), encoding="utf-8")
    (directory / "report.md").write_text(render_markdown(comparison), encoding="utf-8")
    (directory / "report.json").write_text(to_json(comparison, figures), encoding="utf-8")
    return html


def _register(client: Client, screen: DemoScreen) -> None:
    with screen.step("register"), ThreadPoolExecutor(2) as pool:
        registered = [
            pool.submit(client.models.register, name=name, path=model_dir(name), engine={"dtype": "float32"})
            for name in (LARGER, SMALLER)
        ]
        client.problems.register(name=f"gsm-mini/{SPLIT}", path=problem_file(SPLIT))
        for item in registered:
            item.result()
    # the smaller model's engine loads while the larger one is sampled
    client.pools.scale(SMALLER, min=1)


def _run_arm(
    client: Client, screen: DemoScreen, options: DemoOptions, *, name: str, model: str, budget: dict[str, Any]
) -> Job:
    """Submits one arm and shows it until it ends.

    Raises:
        IsoflopError: the job did not succeed.
    """
    job = client.jobs.create(
        name=f"demo, {name} model",
        problems=f"gsm-mini/{SPLIT}",
        models=[model],
        budget=budget,
        sampling={"temperature": options.temperature, "max_tokens": "auto"},
        scorers=["math_answer", "steps"],
        seed=options.seed,
        max_problems=options.num_problems,
    )
    with screen.arm(name) as show:
        while not job.is_over:
            show(job.document)
            time.sleep(POLL_S)
            job.refresh()
        show(job.document)
    if job.phase != "succeeded":
        raise IsoflopError(f"{job.id} {job.phase}: {job.document['error'] or 'see isoflop events'}")
    return job


@contextmanager
def _service(options: DemoOptions) -> Iterator[Client]:
    """The service as a child process, stopped at the end unless it is to be kept."""
    options.directory.mkdir(parents=True, exist_ok=True)
    log = options.directory / "service.log"
    command = [sys.executable, "-m", "api.cli", "--data-dir", str(options.directory), "up"]
    command += ["--port", str(options.port), "--root", str(EXAMPLE_DIR)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield _connect(options, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _connect(options: DemoOptions, process: "subprocess.Popen[bytes]", log: Path) -> Client:
    url = options.directory / "url"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unreachable(f"the service did not start: {log.read_text().strip()[-1500:]}")
        if url.exists() and _belongs_to(url, process):
            return Client(url.read_text().strip())
        time.sleep(0.1)
    raise Unreachable(f"the service did not answer within {START_S:.0f} s; see {log}")


def _belongs_to(url: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Whether the address was written by this process, not left by one that was killed."""
    return url.stat().st_mtime >= _started_at(process)


def _started_at(process: "subprocess.Popen[bytes]") -> float:
    import psutil

    return psutil.Process(process.pid).create_time() - 1.0
