"""The job files name what the example ships and are comparable."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def documents(example: Path) -> dict[str, dict]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in (example / "jobs").glob("*.yaml")}


def test_jobs_name_shipped_problems_and_models(example: Path, documents: dict[str, dict]) -> None:
    assert set(documents) == {"arms", "uniform-small", "until-correct-small"}
    for document in documents.values():
        world, _, problem_set = document["problems"].partition("/")
        assert world == "gsm-mini"
        assert (example / "problems" / f"{problem_set}.jsonl").is_file()
        assert all((example / "models" / model / "config.json").is_file() for model in document["models"])


def test_jobs_differ_in_name_and_allocation_only(documents: dict[str, dict]) -> None:
    uniform, adaptive = documents["uniform-small"], documents["until-correct-small"]

    assert {key for key in uniform if uniform[key] != adaptive[key]} == {"name", "allocation"}
    assert uniform.keys() == adaptive.keys()


def test_jobs_budget_is_a_number_and_not_text(documents: dict[str, dict]) -> None:
    # YAML 1.1 reads 4e11 as a string
    assert {type(document["budget"]["flops"]) for document in documents.values()} == {float}
