"""The report of a comparison says only what intervals allow, in the same words in every form."""

import dataclasses
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from service import wording
from service.experiments.nodes import Child
from service.experiments.report import Progress, Report, Stage, Teacher, planned_samples, teacher
from service.experiments.report_data import data_rows
from service.experiments.report_figures import report_figures
from service.experiments.report_files import FORMS, render_html, render_markdown, render_report, to_json, to_zip
from service.experiments.report_source import stage_costs
from service.experiments.report_text import report_text
from service.experiments.report_words import findings, headline, limits
from service.experiments.results import RoundFound
from service.experiments.spec import ArmSpec, ComparisonSpec, ComparisonWork, Lengths, MatchBy, Split, StudentSpec
from service.figures.png import render_png
from service.finetunes import TrainingSpec
from service.flops import ForwardCost
from service.jobs import Phase
from service.models import ModelSpec
from service.report import Matched
from service.selection.judge_quality import Judged
from service.stats import Estimate, NotEstimable
from tests.databases import new_store
from tests.service.experiments.report_example import (
    BETTER,
    SAME,
    bought,
    cost,
    empty_report,
    example_figures,
    example_report,
    facts,
    student,
)

PLOTLY_JS = "window.Plotly = {react: function () {}};"


def model(name: str, parameters: int) -> ModelSpec:
    cost = ForwardCost(
        body_flops_per_token=2e5,
        head_flops_per_token=1e4,
        attention=(),
        parameters=parameters,
        active_parameters=parameters,
        embedding_parameters=1,
    )
    return ModelSpec(name=name, path="/nowhere", revision="sha256:0", context_len=192, cost=cost)


LARGE, SMALL, TINY = model("large", 600), model("small", 200), model("tiny", 50)
WORK = ComparisonWork(models=(LARGE, SMALL, TINY), sets={})


def spec(**changes: Any) -> ComparisonSpec:
    made = ComparisonSpec(
        name="two arms",
        problems={Split.train: "a", Split.validation: "b", Split.test: "c", Split.transfer: "d"},
        match=MatchBy.flops,
        reference="larger",
        budgets=(1, 5),
        arms=(ArmSpec(name="larger", models=("large",)), ArmSpec(name="smaller", models=("small",))),
        students=(StudentSpec(name="one", base="small"), StudentSpec(name="two", base="small")),
        training=TrainingSpec(num_checkpoints=4),
        learning_rates=(1e-4, 1e-5),
        seeds=(0, 1, 2),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("base", "models", "expected"),
    [
        (SMALL, (SMALL,), Teacher.itself),
        (SMALL, (LARGE,), Teacher.larger),
        (LARGE, (SMALL,), Teacher.smaller),
        (SMALL, (SMALL, LARGE), Teacher.mixed),
        (SMALL, (model("other", 200),), Teacher.equal),
    ],
)
def test_teacher_follows_from_parameters(base: ModelSpec, models: tuple[ModelSpec, ...], expected: Teacher) -> None:
    assert teacher(base, models) is expected


@pytest.mark.parametrize(
    ("arm", "match", "expected"),
    [("larger", None, 5), ("smaller", None, 15), ("smaller", MatchBy.number, 5)],
)
def test_planned_samples_are_the_ratio_of_parameters(arm: str, match: MatchBy | None, expected: float) -> None:
    asked = spec()
    found = dataclasses.replace(next(item for item in asked.arms if item.name == arm), match=match)

    assert planned_samples(asked, WORK, found, 5) == expected


def test_planned_samples_of_several_models_are_not_guessed() -> None:
    assert planned_samples(spec(), WORK, ArmSpec(name="mixed", models=("large", "small")), 5) is None


def test_planned_samples_of_nominal_matching_are_those_of_the_lengths() -> None:
    asked = spec(match=MatchBy.nominal_paper, lengths=Lengths(prompt_tokens=30, completion_tokens=28))

    assert planned_samples(asked, WORK, asked.arms[1], 5) == 15


def with_rounds() -> Report:
    """The smaller arm draws in two rounds; of the second nothing is tested yet."""
    first = RoundFound(
        student="self-improvement",
        arm="smaller",
        num_samples=5,
        round=1,
        num_runs=3,
        samples=2000.0,
        correct=1200.0,
        rows=1100.4,
        draw_flops=1.5e11,
        train_flops=4e11,
        accuracy=Estimate(0.7, 0.65, 0.75, 250),
    )
    second = dataclasses.replace(first, round=2, draw_flops=1.4e11, accuracy=None)
    return example_report(rounds_of={"smaller": 2}, rounds=(first, second))


def test_rounds_have_a_table_with_what_each_cost_in_every_form() -> None:
    report = with_rounds()
    table = report_text(report).rounds

    assert table is not None
    assert table.rows == (
        (
            "self-improvement",
            "smaller",
            "5",
            "1 of 2",
            "2,000",
            "1,200",
            "1,100",
            "1.50e11",
            "4.00e11",
            ".700 [.65, .75]",
        ),
        ("self-improvement", "smaller", "5", "2 of 2", "2,000", "1,200", "1,100", "1.40e11", "4.00e11", ""),
    )
    for text in (render_markdown(report), render_html(report, [], plotly_js=PLOTLY_JS), to_json(report, [])):
        assert "Rounds of self-training" in text
        assert "1.40e11" in text
    assert any("smaller (2 rounds)" in sentence for sentence in limits(report))


def test_report_without_rounds_says_nothing_of_them() -> None:
    assert report_text(example_report()).rounds is None
    assert "self-training" not in render_markdown(example_report())


def test_figure_of_rounds_adds_up_what_was_spent() -> None:
    models = {"larger": "gsm-large", "smaller": "gsm-small"}
    figures = {figure.key: figure for figure in report_figures(with_rounds(), (), {}, models)}

    (row,) = figures["rounds"].table.rows
    assert row[1:4] == ("1", "5.50e11", ".700")
    assert "rounds" not in {figure.key for figure in report_figures(example_report(), (), {}, models)}


def test_headline_counts_differences_and_tells_those_that_are() -> None:
    assert headline(example_report()) == (
        "Students, greedy accuracy on 250 test problems: 1 of 4 differences to larger excludes zero: "
        "self-improvement on smaller's data at budget 5 +.060 [+.020, +.100]."
    )


def test_headline_without_a_difference_says_so() -> None:
    found = tuple(item for item in example_report().found if item.num_samples == 1)

    assert headline(example_report(found=found)) == (
        "Students, greedy accuracy on 250 test problems: none of 2 differences to larger excludes zero."
    )


def test_headline_before_students_is_about_data() -> None:
    assert headline(example_report(found=())).startswith("Data at budget 5, at equal useful FLOPs (within 0.02 %)")
    assert headline(empty_report()) == "Nothing is found yet: the first jobs are being drawn."


def test_findings_name_kind_basis_and_what_is_no_difference() -> None:
    sentences = findings(example_report())

    assert sentences[0] == (
        "Data at budget 1, at equal useful FLOPs (within 0.02 %): smaller against larger, pass@k (coverage) +.025 "
        "[+.001, +.049] absolute; unique correct +57 % [+50, +64] relative; no difference in verified coverage. "
        "400 problems, drawn once."
    )
    assert sentences[2] == (
        "distillation at budget 1: greedy accuracy .510 on smaller's data, .500 on larger's: +.010 [-.030, +.050] "
        "absolute, no difference; 250 problems, 3 seeds."
    )
    assert len(sentences) == 2 + 4


def test_finding_of_a_vote_is_told_only_where_it_differs() -> None:
    votes = tuple(
        student("one", data, value=0.5, measure=measure, difference=None if data == "larger" else found)
        for measure, found in (("maj@4", SAME), ("maj@8", BETTER))
        for data in ("larger", "smaller")
    )

    sentences = findings(example_report(found=votes, bought=()))

    assert len(sentences) == 1
    assert "maj@8 accuracy" in sentences[0]


def test_finding_of_arms_that_are_not_matched_says_by_how_much() -> None:
    far = example_report(bought=(bought(1, flops=1e12),))

    assert findings(far)[0].startswith("Data at budget 1, at useful FLOPs that differ by 23.66 %: ")


def test_finding_of_an_arm_matched_by_number_claims_no_equal_compute() -> None:
    made = bought(1, flops=4e11)
    made = dataclasses.replace(made, facts=(made.facts[0], facts("smaller", MatchBy.number, samples=1, rows=None)))

    assert findings(example_report(bought=(made,)))[0].startswith("Data at budget 1, at equal number of samples: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": (0,)}, "One seed of training: intervals of students are over problems alone"),
        ({}, "3 seeds of training: intervals of students are over problems and seeds"),
        ({}, "With 250 test problems one accuracy near one half is known to about 6.2 points either way"),
        ({}, "4 differences of students are shown"),
        ({}, "Data was drawn once for each arm and budget, with seed 0"),
        ({"checker": None}, "No step check: false positives and verified coverage are not measured."),
        ({"ngram": None}, "by whole texts only"),
        ({"adaptive_arms": ("smaller",)}, "Results decided how smaller was sampled"),
        ({"progress": Progress(phase="running", nodes=60, nodes_done=7)}, "Not complete: 7 of 60 nodes are done"),
        ({"judge": "large"}, "Budgets are matched without the judge: what large took"),
    ],
)
def test_limits_are_told(changes: dict[str, Any], words: str) -> None:
    assert any(words in sentence for sentence in limits(example_report(**changes)))


def test_complete_comparison_is_not_called_incomplete() -> None:
    assert not any("Not complete" in sentence for sentence in limits(example_report()))


def test_data_rows_show_equal_compute_beside_equal_numbers() -> None:
    rows = {row.label: row for row in data_rows(bought(5))}

    assert rows["equal by"].values == ("reference", "useful FLOPs")
    assert rows["samples a problem"].differences == ("× 2.98",)
    assert rows["pass@5"].basis == "absolute, at equal numbers of samples, n = 400; difference absolute"
    assert rows["training rows"].values == ("2,000", "unknown")
    assert rows["repeats in training"].values[0] == "3.20"
    assert {len(row.values) for row in rows.values()} == {2}
    assert {len(row.differences) for row in rows.values()} == {1}


def test_data_rows_show_what_a_judge_cost_and_how_far_it_can_be_trusted() -> None:
    rate, unknown = Estimate(0.8, 0.711, 0.867, 40), NotEstimable("nothing to tell")
    said = Judged(
        yes=290, no=110, undecided=0, apparent=rate, corrected=unknown, sensitivity=rate, specificity=rate
    )  # fmt: skip
    plain = bought(5)
    judged = dataclasses.replace(plain.facts[1], judge_flops=3.0e11, judged=said)

    rows = {row.label: row for row in data_rows(dataclasses.replace(plain, facts=(plain.facts[0], judged)))}

    flops = plain.data.arms[1].useful_flops
    assert rows["FLOPs of judging"].values == ("none", f"3.00e11, + {wording.percent(3e11 / flops)}")
    assert "not in the budget" in rows["FLOPs of judging"].basis
    assert rows["judged wrong, of right answers with a false step"].values == ("", "80.0 % [71.1, 86.7]")
    assert rows["false positives corrected for the judge's errors"].values[1] == "not measured"
    assert not any("judge" in row.label for row in data_rows(plain))


def test_student_table_has_a_column_for_each_seed_and_marks_the_reference() -> None:
    table = report_text(example_report()).students

    assert table.columns[-3:] == ("seed 0", "seed 1", "seed 2")
    assert {len(row) for row in table.rows} == {len(table.columns)} == {len(table.numbers)}
    by_key = {(row[0], row[1], row[3]): row for row in table.rows}
    assert by_key["self-improvement", "larger", "5"][7] == "reference"
    better = by_key["self-improvement", "smaller", "5"]
    assert better[2] == "its own"
    assert better[7:9] == ("+.060 [+.020, +.100]", "yes")
    assert by_key["self-improvement", "smaller", "1"][8] == "no"


def test_student_table_of_one_seed_does_not_repeat_it() -> None:
    found = (
        student("one", "larger", value=0.5, seeds=1),
        student("one", "smaller", value=0.6, difference=SAME, seeds=1),
    )
    one = example_report(
        seeds=(0,), found=found, teachers={"one": dict.fromkeys(("larger", "smaller"), Teacher.larger)}
    )

    assert "seed 0" not in report_text(one).students.columns


def test_costs_of_a_student_named_base_are_its_arms_and_not_a_bases(tmp_path: Path) -> None:
    keys = ("greedy/base/small", "greedy/base/large@4/seed-0", "draw/base/large@4/seed-0/round-2")
    store = new_store(tmp_path)
    costs = stage_costs(store, {key: Child(id=f"job-{key}", phase=Phase.succeeded) for key in keys})
    store.close()

    found = [(cost.stage, cost.arm, cost.num_nodes) for cost in costs]
    assert found == [(Stage.draw, "large", 1), (Stage.greedy, "", 1), (Stage.greedy, "large", 1)]


def test_cost_of_an_arm_is_told_by_what_it_was_for_in_flops_and_device_time() -> None:
    costs = (
        cost(Stage.draw, "larger", flops=2e12, wasted=0.0),
        cost(Stage.ask, "larger", flops=0.0, wasted=0.0),
        cost(Stage.judge, "larger", flops=1e12, wasted=0.0),
        dataclasses.replace(cost(Stage.train, "larger", flops=3e12, wasted=0.0), gpu_s=7200.0, cpu_s=0.0),
        cost(Stage.greedy, "", flops=9e12, wasted=0.0),
    )
    table = report_text(example_report(costs=costs)).arm_costs
    assert table.columns == ("arm", "drawing", "judging", "finetuning", "in all")
    assert table.rows == (
        (
            "larger",
            "2.00e12 FLOPs, 0.0208 CPU-hours",
            "1.00e12 FLOPs, 0.0417 CPU-hours",
            "3.00e12 FLOPs, 2 GPU-hours",
            "6.00e12 FLOPs, 2 GPU-hours and 0.0625 CPU-hours",
        ),
    )


def test_costs_add_up_and_tell_waste() -> None:
    table = report_text(example_report()).costs

    assert table.rows[-1][0] == "all"
    assert table.rows[-1][4] == "2.64e12"
    assert table.rows[0][6] == "0.3 %"
    assert table.rows[2][:2] == ("test, greedy", "before training")


class Sections(HTMLParser):
    """Whether elements nest, and what a file fetches."""

    VOID = frozenset({"meta", "link", "br", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.mark.parametrize(
    "made",
    [example_report(), empty_report(), example_report(students=(), found=())],
    ids=lambda made: f"{made.progress.nodes_done}-{len(made.students)}",
)
def test_html_opens_offline_and_nests(made: Report) -> None:
    sections = Sections()
    sections.feed(render_html(made, example_figures(made), plotly_js=PLOTLY_JS))

    assert sections.faults == []
    assert sections.open == []
    assert sections.fetched == []


def test_every_form_has_the_same_words() -> None:
    made = example_report(title="a <b> | title")
    text = report_text(made)
    html = re.sub(r"\s+", " ", render_html(made, example_figures(made), plotly_js=PLOTLY_JS))
    markdown = render_markdown(made)
    document = json.loads(to_json(made, example_figures(made)))

    assert "a &lt;b&gt; | title" in html
    for sentence in (*text.findings, *text.limits):
        assert sentence in markdown
        assert sentence in [*document["findings"], *document["limits"]]
        assert sentence.replace("'", "&#39;").replace("<", "&lt;") in html


def test_json_has_numbers_as_numbers_and_the_verdict() -> None:
    document = json.loads(to_json(example_report(), example_figures(example_report())))
    found = document["report"]["found"]

    assert [item["is_difference"] for item in found if item["arm"] == "smaller"] == [False, False, False, True]
    assert found[-1]["difference"]["estimate"]["value"] == BETTER.value
    assert document["report"]["bought"][0]["data"]["metrics"][-1]["matched"] == Matched.number
    assert document["report"]["costs"][0]["stage"] == Stage.draw
    assert set(document["tables"]) == {"students", "arm_costs", "costs", "data-1", "data-5"}


def test_zip_has_every_form_and_the_figures_that_markdown_shows() -> None:
    made = example_report()
    with zipfile.ZipFile(io.BytesIO(to_zip(made, example_figures(made), plotly_js=PLOTLY_JS))) as archive:
        names, markdown = set(archive.namelist()), archive.read("report.md").decode()
        shown = set(re.findall(r"\]\((figures/.+?)\)", markdown))

        assert {"report.html", "report.md", "report.json"} <= names
        assert shown == {name for name in names if name.startswith("figures/")}
        assert "figures/differences.png" in shown


@pytest.mark.parametrize("form", FORMS)
def test_report_of_a_comparison_that_has_just_begun_is_written(form: str) -> None:
    assert render_report(form, empty_report(), example_figures(empty_report()), plotly_js=PLOTLY_JS)


def test_report_in_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'pdf', allowed: html, md, json, zip"):
        render_report("pdf", empty_report(), (), plotly_js="")


def test_figures_have_the_same_keys_before_and_after() -> None:
    before, after = example_figures(empty_report()), example_figures(example_report())

    assert [figure.key for figure in before] == [figure.key for figure in after]
    assert len({figure.key for figure in after}) == len(after)
    assert all(figure.is_empty for figure in before)


def test_difference_that_is_none_has_a_hollow_marker() -> None:
    figure = next(f for f in example_figures(example_report()) if f.key == "differences")
    trace = json.loads(json.dumps(figure.spec))["data"][0]
    is_one = [row[3] == "yes" for row in figure.table.rows]

    assert is_one == [False, False, False, True]
    assert [not symbol.endswith("-open") for symbol in trace["marker"]["symbol"]] == is_one


def test_figures_tell_arms_apart_without_colour() -> None:
    figure = example_figures(example_report())[0]
    traces = json.loads(json.dumps(figure.spec))["data"]

    symbols = [trace["marker"]["symbol"][0] for trace in traces if trace["showlegend"]]
    assert symbols == ["circle", "square"]


@pytest.mark.parametrize("figure", example_figures(example_report()), ids=lambda figure: figure.key)
def test_figure_becomes_a_png_of_some_size(figure: Any) -> None:
    picture = render_png(figure)

    assert picture.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(picture[16:20], "big") > 1000


def test_figure_with_a_trace_that_is_not_drawn_is_refused() -> None:
    figure = example_figures(example_report())[0]
    pie = {"data": [{"type": "pie", "y": []}], "layout": figure.spec["layout"]}

    with pytest.raises(ValueError, match="'pie', allowed: scatter, horizontal bar"):
        render_png(dataclasses.replace(figure, spec=pie))  # type: ignore[arg-type]


def test_png_of_rounds_shows_their_intervals() -> None:
    models = {"larger": "gsm-large", "smaller": "gsm-small"}
    report = with_rounds()
    sure = dataclasses.replace(report.rounds[0], accuracy=Estimate(0.7, 0.7, 0.7, 250))
    pictures = [
        render_png(next(f for f in report_figures(found, (), {}, models) if f.key == "rounds"))
        for found in (report, dataclasses.replace(report, rounds=(sure,)))
    ]

    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]
