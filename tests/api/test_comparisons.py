"""Comparisons by REST: what is refused, and one of two simulated arms that really ran."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from api.cli import app as command_line
from api.cli_report import files_of
from service.errors import CorruptFile
from service.models import AdapterSource
from service.problems import ProblemSource, register_problems
from tests.api.conftest import World, model_spec, serving


@pytest.fixture
def compared(world: World) -> World:
    """A service with a problem set for every split."""
    for split, first in (("validation", 100), ("test", 200)):
        path = world.root / f"{split}.jsonl"
        lines = [
            json.dumps({"id": f"p{i}", "question": f"What is {i} + 1? [answer={i + 1}]", "answer": i + 1})
            for i in range(first, first + 5)
        ]
        path.write_text("\n".join(lines))
        source = ProblemSource(path=str(path))
        registered = register_problems(name=f"sums/{split}", source=source, data_dir=world.settings.data_dir)
        world.store.catalogue.register_problems(registered)
    return world


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": "two arms",
        "problems": {"train": "sums/train", "validation": "sums/validation", "test": "sums/test"},
        "match": {"reference": "first", "samples_per_problem": 2},
        "arms": [{"name": "first", "models": ["simulated"]}, {"name": "second", "models": ["simulated"]}],
        "sampling": {"max_tokens": 40},
        "finetune": {"preset": "tiny"},
    }
    return made | changes


def test_comparison_of_arms_without_students_draws_and_selects(compared: World, run_jobs) -> None:
    with compared.client() as client:
        made = client.post("/v1/comparisons", json=document())
        assert made.status_code == 201
        path = made.headers["Location"]
        assert client.get(f"{path}/results").json() == {"arms": [], "students": [], "rounds": []}
        run_jobs(compared)
        found, results = client.get(path).json(), client.get(f"{path}/results").json()

    assert (found["phase"], found["error"]) == ("succeeded", None)
    assert found["nodes"] == found["nodes_done"] == len(found["children"]) == 4
    assert {child["key"] for child in found["children"]} == {
        f"{what}/{arm}@2" for what in ("draw", "select") for arm in ("first", "second")
    }
    first, second = results["arms"]
    assert (first["arm"], first["samples"], second["arm"]) == ("first", 12, "second")
    # the second gets what the first usefully spent, in whole MFLOP
    assert second["useful_flops"] <= first["useful_flops"] + 1e6
    assert first["rows"] > 0


def test_comparison_with_a_judge_keeps_what_it_finds_right_and_says_what_that_cost(compared: World, run_jobs) -> None:
    arms = [*document()["arms"], {"name": "judged", "models": ["simulated"], "keep": "judged"}]
    judge = {"model": "simulated", "ask": "[answer=yes] {question} {completion}", "sampling": {"max_tokens": 60}}
    made = document(arms=arms, judge=judge, scorers=["math_answer", "steps"])
    made["match"]["samples_per_problem"] = 8
    with compared.client() as client:
        posted = client.post("/v1/comparisons", json=made)
        assert posted.status_code == 201, posted.text
        path = posted.headers["Location"]
        run_jobs(compared)
        found, results = client.get(path).json(), client.get(f"{path}/results").json()
        report, page = client.get(f"{path}/report.json").json(), client.get(f"/comparisons/{found['id']}")
        again = client.post("/v1/comparisons", json=found["document"])

    assert (found["phase"], found["error"]) == ("succeeded", None)
    assert found["nodes"] == found["nodes_done"] == 8
    plain, judged = results["arms"][1:]
    assert plain["job"] == judged["job"], "the same samples"
    assert plain["judge_flops"] == 0 < judged["judge_flops"] == pytest.approx(found["flops_by_stage"]["judge"])
    assert 0 < judged["rows"] < plain["rows"]
    (bought,) = report["report"]["bought"]
    assert bought["facts"][2]["judge_flops"] == judged["judge_flops"]
    assert bought["facts"][2]["judged"]["apparent"]["n"] > 0
    assert {cost["stage"] for cost in report["report"]["costs"] if cost["arm"] == "judged"} >= {"ask", "judge"}
    assert "judge samples" in page.text
    assert again.status_code == 201


def test_report_of_a_comparison_in_every_form_has_what_the_results_have(compared: World, run_jobs) -> None:
    with compared.client() as client:
        path = client.post("/v1/comparisons", json=document(scorers=["math_answer", "steps"])).headers["Location"]
        begun = client.get(f"{path}/report.json").json()
        run_jobs(compared)
        found = client.get(f"{path}/report.json").json()
        html, markdown, archive = (client.get(f"{path}/report.{form}") for form in ("html", "md", "zip"))
        results = client.get(f"{path}/results").json()

    assert begun["report"]["bought"] == []
    (bought,) = found["report"]["bought"]
    assert [arm["samples"] for arm in bought["data"]["arms"]] == [arm["samples"] for arm in results["arms"]]
    assert [fact["rows"] for fact in bought["facts"]] == [arm["rows"] for arm in results["arms"]]
    assert [fact["match"] for fact in bought["facts"]] == [None, "flops"]
    useful = {
        cost["stage"]: cost["flops"] - cost["wasted_flops"]
        for cost in found["report"]["costs"]
        if cost["arm"] == "first"
    }
    assert useful["draw"] == pytest.approx(results["arms"][0]["useful_flops"])
    assert found["report"]["progress"]["nodes_done"] == 4
    assert [response.headers["content-type"].partition(";")[0] for response in (html, markdown, archive)] == [
        "text/html",
        "text/markdown",
        "application/zip",
    ]
    assert all(sentence in markdown.text for sentence in found["findings"])
    assert "isoflop" in dict(found["report"]["versions"])


def test_report_verb_writes_a_folder(compared: World, run_jobs, tmp_path: Path) -> None:
    with compared.client() as client:
        made = client.post("/v1/comparisons", json=document()).json()
    run_jobs(compared)
    folder = tmp_path / "report"
    with serving(compared) as served:
        runner = CliRunner(env={"ISOFLOP_URL": served.url})
        told = runner.invoke(command_line, ["report", made["id"], "--output", str(folder)])
        twice = runner.invoke(command_line, ["report", made["id"], "--output", str(folder), "--json"])
        taken = runner.invoke(command_line, ["report", made["id"], "--output", str(folder / "report.md")])
        nothing = runner.invoke(command_line, ["report", "compare-9-000000", "--output", str(tmp_path / "other")])

    assert (told.exit_code, twice.exit_code, taken.exit_code, nothing.exit_code) == (0, 0, 2, 2)
    assert str(folder / "report.html") in told.stdout
    files = json.loads(twice.stdout)["files"]
    assert {"report.html", "report.json", "report.md", "figures/coverage.png"} <= set(files)
    assert all((folder / name).stat().st_size > 0 for name in files)
    assert "is no folder" in taken.output
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["/etc/report.md", "../report.md", "figures/../../x", "a\\b", "c:x"])
def test_archive_with_a_name_out_of_the_folder_is_refused(name: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, "text")

    with pytest.raises(CorruptFile, match="allowed: names below the folder"):
        files_of(out.getvalue())


def test_answer_that_is_no_archive_is_refused() -> None:
    with pytest.raises(CorruptFile, match="no archive"):
        files_of(b"<html>")


def test_report_in_a_form_or_of_a_comparison_that_there_is_not_is_refused(compared: World) -> None:
    with compared.client() as client:
        path = client.post("/v1/comparisons", json=document()).headers["Location"]
        unknown = client.get(f"{path}/report.pdf")

        assert unknown.status_code == 422
        assert unknown.json()["allowed"] == ["html", "json", "md", "zip"]
        assert client.get("/v1/comparisons/compare-9-000000/report.html").status_code == 404


def test_page_of_a_comparison_shows_it_before_and_after_and_its_buttons_work(compared: World, run_jobs) -> None:
    with compared.client() as client:
        made = client.post("/v1/comparisons", json=document()).json()
        page = f"/comparisons/{made['id']}"
        before = client.get(page)
        paused = client.post(f"{page}/pause", follow_redirects=False)
        wanted = client.get(f"/v1/comparisons/{made['id']}").json()["desired"]
        client.post(f"{page}/resume")
        run_jobs(compared)
        after, listed = client.get(page), client.get("/comparisons")
        refused = client.post(f"{page}/explode")

    assert "Nothing is found yet" in before.text
    assert "data-poll-ms" in before.text
    assert (paused.status_code, paused.headers["location"], wanted) == (303, page, "pause")
    assert "What budget 2 bought" in after.text
    assert "data-poll-ms" not in after.text
    assert all(
        f"/{'jobs' if 'job' in child else 'training/selections'}/{child}" in after.text for child in _ids(after.text)
    )
    assert f'href="{page}"' in listed.text
    assert refused.status_code == 422


def _ids(html: str) -> list[str]:
    found = re.findall(r">((?:job|select)-\d+-[0-9a-f]{6})<", html)
    assert len(found) >= 4
    return found


def test_comparison_run_again_costs_nothing(compared: World, run_jobs) -> None:
    with compared.client() as client:
        first = client.post("/v1/comparisons", json=document()).json()
        run_jobs(compared)
        before = client.get("/v1/usage", params={"by": "stage"}).json()
        again = client.post("/v1/comparisons", json=document(name="again")).json()
        run_jobs(compared)

        assert client.get("/v1/usage", params={"by": "stage"}).json() == before
        children = [client.get(f"/v1/comparisons/{item['id']}").json()["children"] for item in (first, again)]
        assert children[0] == children[1]
        assert [item["id"] for item in client.get("/v1/comparisons").json()["items"]] == [again["id"], first["id"]]


def test_comparison_document_comes_back_as_one_that_asks_for_the_same(compared: World) -> None:
    with compared.client() as client:
        plan = client.post("/v1/comparisons", params={"dry_run": True}, json=document()).json()
        again = client.post("/v1/comparisons", params={"dry_run": True}, json=plan["document"]).json()

        assert again == plan
        assert plan["nodes"] == 4
        assert client.get("/v1/comparisons").json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"match": {"reference": "third", "samples_per_problem": 2}}, "allowed: an arm (first, second)"),
        ({"match": {"reference": "simulated", "samples_per_problem": 2}}, "allowed: an arm (first, second)"),
        ({"match": {"reference": "first", "samples_per_problem": 0}}, "numbers >= 1 that differ"),
        ({"match": {"reference": "first", "samples_per_problem": [2, 2]}}, "numbers >= 1 that differ"),
        ({"match": {"reference": "first", "samples_per_problem": 2, "by": "usd"}}, "a price, which was never stated"),
        (
            {"match": {"reference": "first", "samples_per_problem": 2, "by": "gpu_hours"}},
            "what device time buys differs from machine to machine",
        ),
        ({"arms": []}, "arms"),
        ({"arms": [{"name": "first", "models": ["simulated"]}] * 2}, "names that differ"),
        ({"arms": [{"name": "first", "models": ["nowhere"]}]}, "unknown model 'nowhere'"),
        ({"arms": [{"name": "first", "models": ["simulated"], "keep": "verified"}]}, "needs 'steps'"),
        (
            {"arms": [{"name": "first", "models": ["simulated"], "allocation": {"strategy": "best"}}]},
            "unknown strategy",
        ),
        ({"problems": {"train": "sums/train", "validation": "sums/train", "test": "sums/test"}}, "another set"),
        ({"problems": {"train": "sums/train", "validation": "sums/validation"}}, "problems.test"),
        ({"students": [{"name": "s", "base": "simulated"}]}, "has no weights"),
        ({"students": [{"name": "s", "base": "nowhere"}]}, "unknown model 'nowhere'"),
        (
            {"students": [{"name": "s", "base": "tuned"}]},
            "got adapter 'tuned', allowed: a registered model with engines",
        ),
        ({"finetune": {"preset": "nowhere"}}, "unknown preset"),
        ({"finetune": {"preset": "tiny", "seeds": 0}}, "finetune.seeds"),
        ({"finetune": {"preset": "tiny", "learning_rates": [0.0]}}, "above 0"),
        ({"evaluate": {"maj_at": [0]}}, "numbers >= 1"),
        ({"scorers": ["steps"]}, "one that judges answers"),
        ({"scorers": ["vibes"]}, "unknown scorer"),
        ({"sampling": {"max_tokens": 4000}}, "sampling.max_tokens"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_comparison_document_that_is_wrong_is_refused(compared: World, changes: dict[str, Any], words: str) -> None:
    source = AdapterSource(path="/adapter", revision="sha256:adapter", base="small")
    compared.store.catalogue.register_model(model_spec("tuned", base="small", adapter=source))
    with compared.client() as client:
        response = client.post("/v1/comparisons", json=document(**changes))

        assert response.status_code == 422, response.text
        assert words in response.text.replace('\\"', '"')


def test_comparison_cancelled_cancels_what_it_has_running(compared: World, run_jobs) -> None:
    with compared.client() as client:
        path = client.post("/v1/comparisons", json=document()).headers["Location"]
        assert client.post(f"{path}/cancel").json()["desired"] == "cancel"
        run_jobs(compared)

        assert client.get(path).json()["phase"] == "cancelled"
        assert client.post(f"{path}/resume").status_code == 409


def test_comparison_that_does_not_exist_is_not_found(client: TestClient) -> None:
    for path in ("/v1/comparisons/compare-1-aaaaaa", "/v1/comparisons/compare-1-aaaaaa/results"):
        assert client.get(path).status_code == 404


def test_evaluation_of_a_model_gives_its_accuracy(world: World, run_jobs) -> None:
    with world.client() as client:
        document = {"model": "simulated", "problems": "sums/train", "evaluate": {"maj_at": [1, 3]}}
        sampling = {"sampling": {"max_tokens": 40}, "scorers": ["math_answer", "steps"]}
        made = client.post("/v1/evaluations", json=document | sampling)
        assert made.status_code == 201, made.text
        run_jobs(world)
        found = client.get(made.headers["Location"]).json()

        assert (found["phase"], found["error"]) == ("succeeded", None)
        assert {child["key"] for child in found["children"]} == {"greedy", "majority"}
        results = client.get(f"{made.headers['Location']}/results").json()["measures"]
        assert [result["measure"] for result in results] == ["greedy", "maj@1", "maj@3"]
        for result in results:
            accuracy = result["accuracy"]
            assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
            assert result["num_problems"] == 6
        assert set(found["flops_by_stage"]) == {"evaluate"}
        again = client.post("/v1/evaluations", json=found["document"] | {"name": "again"}).json()
        run_jobs(world)
        assert client.get(f"/v1/evaluations/{again['id']}").json()["children"] == found["children"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nowhere"}, "unknown model 'nowhere'"),
        ({"problems": "nowhere"}, "unknown problem set 'nowhere'"),
        ({"evaluate": {"maj_at": [0]}}, "numbers >= 1"),
        ({"evaluate": {"temperature": 0}}, "temperature"),
        ({"scorers": ["steps"]}, "one that judges answers"),
        ({"sampling": {"max_tokens": 4000}}, "sampling.max_tokens"),
        ({"maj_at": [1]}, "maj_at"),
    ],
)
def test_evaluation_document_that_is_wrong_is_refused(client: TestClient, changes: dict[str, Any], words: str) -> None:
    response = client.post("/v1/evaluations", json={"model": "simulated", "problems": "sums/train"} | changes)

    assert response.status_code == 422, response.text
    assert words in response.text
