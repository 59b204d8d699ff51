"""Every page renders from its dataclass alone, uses all of it, and promises what look and access rules ask."""

import dataclasses
import re
from html.parser import HTMLParser

import jinja2
import jinja2.meta
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.dashboard import pages
from api.dashboard.assets import SHARED_STATIC, STATIC_DIR, plotly_js_path, static_routes
from api.dashboard.render import TEMPLATES, TEMPLATES_DIR, make_dashboard_environment, render
from tests.api.dashboard import example_experiments, example_figures, example_jobs, example_training, examples

EXAMPLES = examples.example_pages()


@pytest.fixture(scope="module")
def environment() -> jinja2.Environment:
    return make_dashboard_environment()


class Elements(HTMLParser):
    """What a page fetches, its ids and live keys, and whether its elements nest."""

    VOID = frozenset({"meta", "link", "br", "input", "rect", "hr", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.live: list[str] = []
        self.inline_scripts = 0
        self.inline_styles = 0
        self.faults: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in self.VOID:
            self._open.append(tag)
        if tag in ("script", "link", "img"):
            self.fetched += [v for name, v in attrs if name in ("src", "href") and v]
        self.ids += [v for name, v in attrs if name == "id" and v]
        self.live += [v for name, v in attrs if name == "data-live" and v]
        self.inline_scripts += tag == "script" and "src" not in attributes and "type" not in attributes
        self.inline_scripts += sum(name.startswith("on") for name in attributes)
        self.inline_styles += tag == "style" or "style" in attributes

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes nothing")

    def close(self) -> None:
        super().close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]


def parsed(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    return elements


@pytest.mark.parametrize("path", EXAMPLES)
def test_page_renders_and_its_first_heading_answers(path: str, environment: jinja2.Environment) -> None:
    html = render(EXAMPLES[path], environment=environment)
    headings = re.findall(r"<h1[^>]*>(.+?)</h1>", html)

    assert len(headings) == 1
    assert parsed(html).faults == []


@pytest.mark.parametrize("path", EXAMPLES)
def test_page_needs_no_network_and_no_inline_code(path: str, environment: jinja2.Environment) -> None:
    elements = parsed(render(EXAMPLES[path], environment=environment))

    assert all(address.startswith("/static/") for address in elements.fetched)
    assert elements.inline_scripts == 0
    assert elements.inline_styles == 0


@pytest.mark.parametrize("path", EXAMPLES)
def test_page_ids_and_live_keys_are_distinct(path: str, environment: jinja2.Environment) -> None:
    elements = parsed(render(EXAMPLES[path], environment=environment))

    assert len(set(elements.ids)) == len(elements.ids)
    assert len(set(elements.live)) == len(elements.live)


@pytest.mark.parametrize("path", EXAMPLES)
def test_fragment_has_every_live_part_and_no_frame(path: str, environment: jinja2.Environment) -> None:
    page = EXAMPLES[path]
    fragment = render(page, is_fragment=True, environment=environment)

    assert parsed(fragment).live == parsed(render(page, environment=environment)).live
    assert "<html" not in fragment


@pytest.mark.parametrize("path", EXAMPLES)
def test_every_figure_has_its_plot_its_numbers_and_its_table(path: str, environment: jinja2.Environment) -> None:
    html = render(EXAMPLES[path], environment=environment)

    for figure in getattr(EXAMPLES[path], "figures", ()):
        assert f'data-figure="spec-{figure.key}"' in html
        assert f'id="spec-{figure.key}"' in html
        assert f">{len(figure.table.rows)}</span>)</summary>" in html


@pytest.mark.parametrize("page_type", TEMPLATES, ids=lambda t: t.__name__)
def test_page_declares_exactly_what_its_template_reads(page_type: type) -> None:
    source = (TEMPLATES_DIR / TEMPLATES[page_type]).read_text()
    layout = (TEMPLATES_DIR / "layout.html").read_text()
    for included in re.findall(r'{% include "(.+?)" %}', source):
        source += (TEMPLATES_DIR / included).read_text()
    read = set(re.findall(r"page\.(\w+)", source + layout))
    declared = {field.name for field in dataclasses.fields(page_type)}
    computed = {name for name, value in vars(page_type).items() if isinstance(value, property)}

    assert declared <= read, "a field that no template reads"
    assert read <= declared | computed, "a template that reads more than its page has"


def test_every_page_has_an_example() -> None:
    assert {type(page) for page in EXAMPLES.values()} == set(TEMPLATES)


def test_template_that_reads_an_unknown_name_fails(environment: jinja2.Environment) -> None:
    template = environment.from_string("{{ page.no_such_field }}")

    with pytest.raises(jinja2.UndefinedError, match="no_such_field"):
        template.render(page=examples.error_page())


def test_names_are_escaped(environment: jinja2.Environment) -> None:
    page = dataclasses.replace(examples.error_page(), detail="<script>alert(1)</script>")

    assert "<script>alert" not in render(page, environment=environment)


def test_controls_are_hidden_from_those_who_may_not_use_them(environment: jinja2.Environment) -> None:
    viewer = dataclasses.replace(example_figures.shell("overview"), can_operate=False)

    for page in (
        example_jobs.job_page(),
        examples.workers(),
        example_training.finetune_page(),
        example_experiments.experiment_page(),
    ):
        assert 'method="post"' in render(page, environment=environment)
        assert 'method="post"' not in render(dataclasses.replace(page, shell=viewer), environment=environment)


def test_job_page_stops_asking_once_nothing_will_change(environment: jinja2.Environment) -> None:
    done = dataclasses.replace(example_jobs.job_page(), poll_s=None)

    assert 'data-poll-ms="2000"' in render(example_jobs.job_page(), environment=environment)
    assert "data-poll-ms" not in render(done, environment=environment)


def test_empty_pages_say_how_to_fill_them(environment: jinja2.Environment) -> None:
    shell = example_figures.shell("overview")
    html = {
        "isoflop submit": example_jobs.empty_overview(),
        "isoflop models register": pages.ModelsPage(shell=shell, headline="No models.", reference_len=64, models=()),
        "isoflop select": example_training.empty_training_page(),
        "isoflop finetune": example_training.empty_training_page(),
        "isoflop compare": example_experiments.experiments_page(),
        "isoflop problems register": pages.ProblemsPage(shell=shell, headline="No problem sets.", problem_sets=()),
    }

    for command, page in html.items():
        assert command in render(page, environment=environment)


def test_samples_page_without_samples_offers_all_of_them(environment: jinja2.Environment) -> None:
    empty = dataclasses.replace(example_jobs.samples_page(), samples=(), selected=None, shown="truncated")

    assert f"/jobs/{example_jobs.JOB_ID}/samples?show=all" in render(empty, environment=environment)


@pytest.mark.parametrize(
    ("jobs", "headline"),
    [
        ((), "No job has been submitted yet."),
        ((example_jobs.job_line(),), "1 job running, 62 % of its budget spent, nothing waiting."),
        (
            (
                example_jobs.job_line(),
                example_jobs.job_line(spent=4.98e11),
                example_jobs.job_line(phase="queued", spent=0.0),
            ),
            "2 jobs running, 50 % of their budgets on average spent, 1 job waiting.",
        ),
        ((example_jobs.job_line(phase="succeeded"),), "Nothing is running, nothing waiting."),
        ((example_jobs.job_line(phase="queued", spent=0.0),), "Nothing is running, 1 job waiting."),
        (
            (example_jobs.job_line(attention="waits for a CPU since 45 s"),),
            "1 job running, 62 % of its budget spent, 1 job waiting.",
        ),
        ((example_jobs.job_line(phase="failed", attention="engine died"),), "Nothing is running, nothing waiting."),
    ],
)
def test_overview_headline_answers_whether_everything_gets_on(jobs: tuple[pages.JobLine, ...], headline: str) -> None:
    assert pages.overview_headline(jobs) == headline


def test_job_headline_says_how_far_and_how_long() -> None:
    assert pages.job_headline(example_jobs.job_line()) == (
        "Running: 62 % of 1.31e12 FLOPs spent, 7,484 samples, about 2 min 05 s left."
    )


@pytest.mark.parametrize(
    ("finetunes", "headline"),
    [
        ((), "Nothing is in training; 1 training set, no students made."),
        (
            (example_training.finetune_line(),),
            "1 student in training, 40 % of its steps done; 1 training set, no students made.",
        ),
        (
            (example_training.finetune_line(), example_training.finetune_line(steps_done=120)),
            "2 students in training, 50 % of their steps on average done; 1 training set, no students made.",
        ),
        (
            (example_training.finetune_line(phase="queued"), example_training.finetune_line(phase="succeeded")),
            "Nothing is in training, 1 waiting; 1 training set, 1 student made.",
        ),
    ],
)
def test_training_headline_says_what_trains_and_what_is_made(
    finetunes: tuple[pages.FinetuneLine, ...], headline: str
) -> None:
    assert pages.training_headline([example_training.selection_line()], finetunes, limit=50) == headline


def test_training_headlines_say_how_far() -> None:
    assert pages.training_headline((), (), limit=50) == "No training set has been made yet."
    many = [example_training.finetune_line(phase="succeeded")] * 2
    assert pages.training_headline((), many, limit=2).endswith("2 students made among the latest 2 of each.")
    line = example_training.selection_line
    assert pages.selection_headline(line()) == "1,960 of 16,000 samples teach, 12.2 % of what was drawn."
    assert pages.selection_headline(line(rows=None, phase="running")) == "Running: no rows yet."
    run = example_training.finetune_line()
    assert pages.finetune_headline(run, 41.0) == "Running: 80 of 200 steps, loss 0.3127, about 41 s left."


@pytest.mark.parametrize(
    ("lines", "headline"),
    [
        ((), "No comparison has been submitted yet."),
        ((example_experiments.line(),), "1 comparison running, 62 % of its nodes done."),
        (
            (
                example_experiments.line(),
                example_experiments.line(nodes_done=1),
                example_experiments.line(phase="failed"),
            ),
            "2 comparisons running, 32 % of their nodes on average done; 1 ended.",
        ),
        ((example_experiments.line(phase="queued"),), "Nothing is being compared, 1 waiting."),
        ((example_experiments.line(phase="succeeded"),), "Nothing is being compared; 1 ended."),
    ],
)
def test_comparisons_headline_says_how_far(lines: tuple[pages.ExperimentLine, ...], headline: str) -> None:
    assert pages.experiments_headline(lines) == headline


def test_comparison_page_has_every_place_that_fills_later(environment: jinja2.Environment) -> None:
    new = render(example_experiments.experiment_page(is_new=True), environment=environment)
    running = render(example_experiments.experiment_page(), environment=environment)

    assert parsed(new).live == parsed(running).live


@pytest.fixture(scope="module")
def static_client() -> TestClient:
    return TestClient(Starlette(routes=static_routes()))


@pytest.mark.parametrize(
    "name", [*(path.name for path in STATIC_DIR.iterdir()), *(f"shared/{name}" for name in SHARED_STATIC)]
)
def test_static_files_are_served_with_their_type(name: str, static_client: TestClient) -> None:
    response = static_client.get(f"/static/{name}")

    assert response.status_code == 200
    kind = {"css": "text/css", "js": "javascript", "svg": "image/svg+xml"}[name.rsplit(".", 1)[1]]
    assert kind in response.headers["content-type"]


def test_plotly_comes_from_the_installed_package(static_client: TestClient) -> None:
    response = static_client.get("/static/plotly.min.js")

    assert response.status_code == 200
    assert int(response.headers["content-length"]) == plotly_js_path().stat().st_size


@pytest.mark.parametrize("path", ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/shared/report.html"])
def test_static_serves_nothing_else(path: str, static_client: TestClient) -> None:
    assert static_client.get(path).status_code == 404


def test_style_sheets_name_no_colour_outside_the_variables() -> None:
    style = (STATIC_DIR / "dashboard.css").read_text()

    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\{)", style) == []
