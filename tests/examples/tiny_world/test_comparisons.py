"""The comparison files of the example are accepted as they stand, with the example's models and problem sets."""

from pathlib import Path

import pytest

from api.job_files import read_job_file
from api.resolve_comparison import to_comparison
from api.wire.comparisons import ComparisonDocument
from service.experiments.graph import count_nodes
from service.experiments.spec import ComparisonSpec, Split
from service.models import ModelSpec
from service.problems import ProblemSource, register_problems
from service.selection.spec import Keep
from service.store import Store
from tests.databases import new_store
from tests.simulation.world import COST

EXAMPLE = Path(__file__).parents[3] / "examples" / "tiny-world"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    directory = tmp_path_factory.mktemp("comparisons")
    made = new_store(directory)
    for name in ("small", "large", "early"):
        path = str(EXAMPLE / "models" / f"gsm-mini-{name}")
        spec = ModelSpec(name=f"gsm-mini-{name}", path=path, revision="sha256:0", context_len=192, cost=COST)
        made.catalogue.register_model(spec)
    for split in Split:
        source = ProblemSource(path=str(EXAMPLE / "problems" / f"{split}.jsonl"))
        registered = register_problems(name=f"gsm-mini/{split}", source=source, data_dir=directory)
        made.catalogue.register_problems(registered)
    return made


def resolve(store: Store, name: str) -> ComparisonSpec:
    document = ComparisonDocument.model_validate(read_job_file(EXAMPLE / f"{name}.yaml"))
    return to_comparison(document, store)[0]


def test_compare_file_asks_for_three_paradigms_at_two_budgets_over_three_seeds(store: Store) -> None:
    spec = resolve(store, "compare")

    assert {student.base for student in spec.students} == {"gsm-mini-early", "gsm-mini-small", "gsm-mini-large"}
    assert (len(spec.budgets), len(spec.seeds), spec.reference) == (2, 3, "larger")
    assert count_nodes(spec) == 305


def test_self_training_file_compares_rounds_with_one_draw(store: Store) -> None:
    spec = resolve(store, "self-training")

    assert {arm.name: (arm.rounds, arm.allocation.strategy) for arm in spec.arms} == {
        "once": (1, "uniform"),
        "rounds": (3, "uniform"),
        "adastar": (3, "adastar"),
    }


def test_false_positives_file_compares_filtered_with_unfiltered_data_over_five_seeds(store: Store) -> None:
    spec = resolve(store, "false-positives")

    rules = {arm.name: arm.keep or spec.selection.keep for arm in spec.arms}
    assert rules == {"smaller": Keep.correct, "smaller-verified": Keep.verified, "larger": Keep.correct}
    assert len(spec.seeds) == 5
