"""The real engine, with a random Llama and a character tokenizer built here: one process, one engine start."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidInput
from service.flops import sample_flops
from service.jobs import PromptSpec
from service.records import PROBLEM_SCHEMA
from service.sampling import SamplingSpec
from service.work import PrepareWork
from tests.engine.drive_engine import model_spec
from tests.engine.own_process import drive
from tests.engine.tiny_llama import build_model
from tests.workers.generate_attempts import COST
from workers.engine import check_model_files
from workers.prepare import prepare
from workers.prepared import read_prepared, write_prepared

Summary = dict[str, object]


def prepare_prompts(folder: Path) -> None:
    rows = [
        {"problem_id": f"p{i}", "question": f"{i}+{3 * i}=▁", "reference": "", "level": None, "structure": None}
        for i in range(40)
    ]
    problems = folder / "problems.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA), problems)
    work = PrepareWork(
        model=model_spec(folder / "model"),
        problems_path=str(problems),
        num_problems=40,
        prompt=PromptSpec(template="{question}"),
        sampling=SamplingSpec(max_tokens=32),
        seed=0,
    )
    prepared = read_prepared(prepare(work, folder / "rendered", lambda done, total: None).path)
    token_ids = [prepared.tokens(i) for i in range(40)]
    # one more that only the engine finds invalid: its token is in no vocabulary
    write_prepared(
        out_dir=folder / "prepared",
        prompt_id=prepared.prompt_id,
        problem_ids=[*prepared.problem_ids, "bad"],
        prompts=[*prepared.prompts.to_pylist(), "?"],
        token_ids=[*token_ids, [9_999]],
        max_tokens=[*prepared.max_tokens.tolist(), 8],
        errors=[None] * 41,
        facts={},
    )


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Summary]]:
    folder = tmp_path_factory.mktemp("engine")
    build_model(folder / "model")
    prepare_prompts(folder)
    return folder, drive("drive_engine.py", model_spec(folder / "model"), folder)


def rows_of(summary: Summary) -> list[dict[str, object]]:
    return [row for path in summary["parts"] for row in pq.read_table(path).to_pylist()]  # type: ignore[attr-defined]


@pytest.mark.engine
def test_engine_draws_every_planned_sample_once(driven: tuple[Path, dict[str, Summary]]) -> None:
    summary = driven[1]["all"]

    pairs = sorted((row["problem_index"], row["sample_index"]) for row in rows_of(summary))
    assert summary["state"] == "succeeded"
    assert pairs == [(problem, sample) for problem in range(40) for sample in range(4)]
    assert len(summary["parts"]) > 1  # type: ignore[arg-type]


@pytest.mark.engine
def test_engine_token_counts_are_those_of_prompt_and_text(driven: tuple[Path, dict[str, Summary]]) -> None:
    folder, reports = driven
    prepared = read_prepared(folder / "prepared" / "part-00000.parquet")
    rows = rows_of(reports["all"])

    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    for row in rows:
        assert row["prompt_tokens"] == len(prepared.tokens(row["problem_index"]))  # type: ignore[arg-type]
        assert 1 <= row["completion_tokens"] <= 32  # type: ignore[operator]
        assert len(row["completion"]) <= row["completion_tokens"]  # type: ignore[arg-type]
        if row["finish_reason"] == "length":
            assert row["completion_tokens"] == 32
    # a character a token, but for the special ones, which the text leaves out
    text, tokens = (sum(len(row["completion"]) for row in rows), sum(row["completion_tokens"] for row in rows))  # type: ignore[arg-type, misc]
    assert 0.75 < text / tokens < 1  # type: ignore[operator]


@pytest.mark.engine
def test_engine_flops_of_rows_receipts_and_report_agree(driven: tuple[Path, dict[str, Summary]]) -> None:
    summary = driven[1]["all"]
    rows = rows_of(summary)

    for row in rows:
        expected = sample_flops(
            COST,
            prompt_tokens=row["prompt_tokens"],  # type: ignore[arg-type]
            cached_tokens=row["cached_tokens"],  # type: ignore[arg-type]
            completion_tokens=row["completion_tokens"],  # type: ignore[arg-type]
        )
        assert row["flops"] == expected
    assert sum(row["flops"] for row in rows) == summary["flops"] == summary["used"]  # type: ignore[misc]
    assert summary["inflight_worst"] == 0


@pytest.mark.engine
def test_engine_at_temperature_zero_repeats_itself_and_otherwise_does_not(
    driven: tuple[Path, dict[str, Summary]],
) -> None:
    def texts(name: str) -> set[object]:
        return {row["completion"] for row in rows_of(driven[1][name]) if row["problem_index"] == 0}

    assert len(texts("greedy")) == 1
    assert len(texts("all")) == 4


@pytest.mark.engine
def test_engine_texts_are_those_of_vllm_own_detokenizer(driven: tuple[Path, dict[str, Summary]]) -> None:
    def text_by_problem(name: str) -> dict[object, str]:
        return {row["problem_index"]: str(row["completion"]) for row in rows_of(driven[1][name])}

    ours = text_by_problem("ours")
    assert ours == text_by_problem("theirs")
    assert any(text.startswith(" ") for text in ours.values())


@pytest.mark.engine
def test_engine_aborted_returns_the_samples_and_counts_the_waste(driven: tuple[Path, dict[str, Summary]]) -> None:
    summary = driven[1]["abort"]

    assert summary["state"] == "stopped"
    assert summary["returned"] + len(rows_of(summary)) == 160  # type: ignore[operator]
    assert summary["inflight_worst"] == 0
    assert 0 < summary["wasted_samples"] <= 64  # type: ignore[operator]
    assert summary["wasted_tokens"] >= summary["wasted_samples"]  # type: ignore[operator]


@pytest.mark.engine
def test_engine_refusing_a_prompt_makes_error_rows_and_lives_on(driven: tuple[Path, dict[str, Summary]]) -> None:
    summary = driven[1]["refused"]

    rows = rows_of(summary)
    assert summary["state"] == "succeeded"
    assert [row["finish_reason"] for row in rows] == ["error", "error"]
    assert all("vocab" in str(row["error"]) for row in rows)
    assert summary["used"] == 0


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ([], "config.json"),
        (["config.json"], "model.safetensors"),
        (["config.json", "model.safetensors"], "tokenizer.json"),
        (["config.json", "pytorch_model.bin", "tokenizer.json"], "model.safetensors"),
    ],
)
def test_model_directory_without_a_file_is_refused_by_its_name(tmp_path: Path, files: list[str], missing: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")

    with pytest.raises(InvalidInput, match=missing.replace(".", r"\.")):
        check_model_files(tmp_path)


def test_model_directory_without_one_of_its_weight_files_is_refused_by_its_name(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model-1.safetensors"):
        (tmp_path / name).write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(InvalidInput, match=r"model-2\.safetensors.*1 of 2"):
        check_model_files(tmp_path)


@pytest.mark.engine
def test_engine_completions_have_the_structure_that_is_asked_for(driven: tuple[Path, dict[str, Summary]]) -> None:
    chosen, matching = (rows_of(driven[1][name]) for name in ("choice", "regex"))

    assert {row["completion"] for row in chosen} == {"12", "345"}
    assert {row["finish_reason"] for row in (*chosen, *matching)} == {"stop"}
    assert all(re.fullmatch("[0-3]{4}", str(row["completion"])) for row in matching)
    assert len({row["completion"] for row in matching}) > 10


@pytest.mark.engine
def test_engine_is_told_top_k_and_repetition_penalty(driven: tuple[Path, dict[str, Summary]]) -> None:
    greedy, top, penalised = (
        {row["problem_id"]: row["completion"] for row in rows_of(driven[1][name])}
        for name in ("ours", "top_k", "penalty")
    )

    assert top == greedy, "the likeliest of one token, at any temperature"
    assert penalised != greedy


def test_heads_that_a_cpu_has_no_attention_for_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    build_model(tmp_path, head_dim=16)

    said = drive("drive_refused.py", model_spec(tmp_path), tmp_path)["said"]

    assert "attention heads of size 16 cannot be computed on a CPU; allowed: 32, 64, " in said
