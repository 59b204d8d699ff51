"""The GPU benchmark as far as a machine without one can hold it: refusals, models, examples, what the table says."""

import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from api.cli import app
from api.local.bench_gpu import DrawingResult, GpuResult, PlainTurns, summarise
from api.local.bench_gpu_report import RECORD_FILE, TABLE_FILE, to_markdown, write_record
from api.local.bench_gpu_training import StepPair, StepTimes, TrainingComparison, check_losses, compare_training
from api.local.bench_machine import this_machine
from api.local.bench_throughput import Pair, PlainRun, ServiceRun
from api.local.gpu_card import Card, NoGpu, find_card, parse_card
from api.local.random_models import SHAPES, Shape, random_text, write_examples, write_model, write_problems
from service.errors import IsoflopError
from service.finetunes import Method, TrainingSpec
from workers.model_files import inspect_model

ROOT = Path(__file__).parents[3]
SMALL = Shape(
    name="small",
    like="nothing",
    config={
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 128,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    },
)


def write_fake_nvidia_smi(directory: Path, answer: str, code: int) -> Path:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    program.chmod(0o755)
    return directory


def service_run(*, tokens: int = 1000, seconds: float, drawing_s: float, flops: float) -> ServiceRun:
    return ServiceRun(
        samples=10, tokens=tokens, seconds=seconds, drawing_s=drawing_s, scored_s=seconds, busy_s=4.0, flops=flops
    )


LOSSES = (3.0, 3.2, 2.9, 3.1)
PAIR = Pair(service=service_run(seconds=10.0, drawing_s=8.0, flops=320.0), plain=PlainRun(tokens=1000, seconds=5.0))


def gpu_result(*, peak: float | None = 100.0, pairs: Sequence[Pair] = (PAIR,)) -> GpuResult:
    run = StepTimes(step_s=2.0, load_s=1.0, losses=LOSSES, peak_gib=7.0)
    training = TrainingComparison.of(
        SMALL,
        TrainingSpec(method=Method.lora, steps=4),
        step_flops=50.0,
        pairs=[StepPair(ours=run, plain=StepTimes(step_s=1.6, load_s=1.0, losses=LOSSES, peak_gib=6.0))],
    )
    return GpuResult(
        machine=this_machine(),
        card=Card(name="Card", memory_gib=80.0, driver="1", compute_capability="9.0", peak_flops_per_second=peak),
        matmul_flops_per_second=80.0,
        drawing=(summarise(SMALL, 1000, 12.0, 34.0, list(pairs)),),
        training=(training,),
    )


def row_of(lines: list[str], side: str) -> list[str]:
    (line,) = [line for line in lines if f"| {side} |" in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_find_card_without_the_driver_is_refused_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoGpu, match=r"needs an NVIDIA GPU, got no nvidia-smi on PATH; allowed: a machine where"):
        find_card()


@pytest.mark.parametrize(
    ("answer", "code"), [("No devices were found", 6), ("No devices were found", 0), ("", 0), ("a, b, c, d", 0)]
)
def test_find_card_of_a_driver_without_a_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setenv("PATH", f"{write_fake_nvidia_smi(tmp_path, answer, code)}:{os.environ['PATH']}")

    with pytest.raises(NoGpu, match="got an nvidia-smi that says"):
        find_card()


def test_find_card_reads_the_first_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H100 80GB HBM3, 81559, 580.1, 9.0"
    monkeypatch.setenv("PATH", f"{write_fake_nvidia_smi(tmp_path, line, 0)}:{os.environ['PATH']}")

    card = find_card()

    assert (card.name, card.peak_flops_per_second) == ("NVIDIA H100 80GB HBM3", 989e12)
    assert card.memory_gib == pytest.approx(79.6, abs=0.1)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("NVIDIA T400", None)],
)
def test_parse_card_knows_the_peak_of_the_card_it_names(name: str, peak: float | None) -> None:
    assert parse_card(f"{name}, 1024, 580, 8.9").peak_flops_per_second == peak


def test_bench_gpu_without_a_gpu_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    result = CliRunner().invoke(app, ["bench", "gpu", "--directory", str(tmp_path / "check")])

    assert result.exit_code != 0
    assert "needs an NVIDIA GPU" in result.output
    assert not (tmp_path / "check").exists()


def test_bench_gpu_of_an_unknown_shape_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA L4, 23034, 580.1, 8.9"
    monkeypatch.setenv("PATH", f"{write_fake_nvidia_smi(tmp_path, line, 0)}:{os.environ['PATH']}")

    result = CliRunner().invoke(app, ["bench", "gpu", "--shape", "3b", "--directory", str(tmp_path / "check")])

    assert result.exit_code != 0
    assert "3b" in result.output
    assert "1b" in result.output


def test_make_gpu_check_without_a_gpu_refuses_before_it_installs(tmp_path: Path) -> None:
    path = f"{write_fake_nvidia_smi(tmp_path, 'No devices were found', 6)}:{os.environ['PATH']}"

    done = subprocess.run(
        ["make", "gpu-check", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "needs an NVIDIA GPU" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_write_model_is_one_that_can_be_registered_and_whose_words_are_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_model(SMALL, tmp_path / "model", device="cpu")

    files = inspect_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = random_text(random.Random(0), SMALL, 50)
    ids = tokenizer(text)["input_ids"]
    assert (files.model_type, files.context_len, files.dtype) == ("llama", 1024, "bfloat16")
    assert len(ids) == 50
    assert tokenizer.decode(ids) == text


def test_write_problems_are_different_and_as_long_as_asked(tmp_path: Path) -> None:
    write_problems(tmp_path / "p.jsonl", SMALL, num_problems=3, prompt_tokens=20)

    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [len(row["question"].split()) for row in rows] == [20, 20, 20]
    assert len({row["question"] for row in rows}) == 3


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_have_the_sizes_they_are_named_for(shape: Shape, tmp_path: Path) -> None:
    from workers.flop_trace import trace_forward_cost

    assert shape.config["model_type"] == SMALL.config["model_type"]  # whose tokenizer is tested above
    (tmp_path / "config.json").write_text(json.dumps(shape.config))
    cost = trace_forward_cost(tmp_path)

    assert cost.parameters / 1e9 == pytest.approx({"1b": 1.24, "7b": 7.25}[shape.name], rel=0.005)


def test_table_says_mfu_of_both_peaks_and_ratios_of_the_same_pair() -> None:
    lines = to_markdown(gpu_result())

    assert row_of(lines, "isoflop, from submission")[2:] == ["100", "0.500", "32.0%", "40.0%", "12.0", "4.0"]
    assert row_of(lines, "isoflop, from the first task")[2:6] == ["125", "0.625", "40.0%", "50.0%"]
    assert row_of(lines, "plain vLLM")[2:7] == ["200", "1", "64.0%", "80.0%", "34.0"]
    assert row_of(lines, "lora")[2:] == ["2.000", "1.600", "1.250", "8,192", "25.0%", "7.0", "6.0"]


def test_table_of_a_card_without_a_known_peak_says_so() -> None:
    lines = to_markdown(gpu_result(peak=None))

    assert "no peak known" in lines[0]
    assert row_of(lines, "plain vLLM")[4:6] == ["not known", "80.0%"]


def test_record_holds_everything_that_the_table_is_made_of(tmp_path: Path) -> None:
    write_record(tmp_path, gpu_result())

    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record["drawing"][0]["pairs"][0]["service"]["flops"] == 320.0
    assert record["training"][0]["method"] == "lora"
    assert (tmp_path / TABLE_FILE).read_text().splitlines() == to_markdown(gpu_result())


def test_summary_takes_ratios_within_pairs() -> None:
    fast = Pair(service=service_run(seconds=10.0, drawing_s=8.0, flops=1.0), plain=PlainRun(tokens=1000, seconds=8.0))
    slow = Pair(service=service_run(seconds=20.0, drawing_s=16.0, flops=1.0), plain=PlainRun(tokens=1000, seconds=16.0))

    found: DrawingResult = summarise(SMALL, 1000, 1.0, 1.0, [fast, slow])

    assert (found.ratio.lowest, found.ratio.highest) == (pytest.approx(0.8), pytest.approx(0.8))
    assert found.drawing_ratio.median == pytest.approx(1.0)
    assert found.gpu_s == pytest.approx(8.0)


def test_compare_training_too_short_to_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps must be more than 2, got 2"):
        compare_training(tmp_path, SMALL, tmp_path, Method.lora, 2, 1)


def test_check_losses_of_the_same_examples_allows_for_rounding() -> None:
    check_losses([loss + 0.01 for loss in LOSSES], LOSSES)


@pytest.mark.parametrize("ours", [(3.2, 3.0, 2.9, 3.1), tuple(loss + 0.1 for loss in LOSSES), (float("nan"),) * 4])
def test_check_losses_of_other_examples_is_refused(ours: tuple[float, ...]) -> None:
    with pytest.raises(IsoflopError, match=r"did not train the same: .* allowed: 0.25; ours .* plain 3.0000 3.2000"):
        check_losses(ours, LOSSES)


def test_write_examples_hold_few_words_each_so_that_losses_tell_them_apart(tmp_path: Path) -> None:
    write_examples(tmp_path / "e.parquet", SMALL, num_rows=4, prompt_tokens=8, completion_tokens=65)

    rows = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert [len(row["completion"].split()) for row in rows] == [64] * 4, "and the end of the sequence"
    assert all(len(set(row["completion"].split())) <= 8 for row in rows)
    assert len({frozenset(row["completion"].split()) for row in rows}) == 4


def test_plain_turns_of_a_process_that_fails_end_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    with pytest.raises(IsoflopError, match=r"plain vLLM ended with 1; the last it said: (.|\n)*no job 'gone'"):
        PlainTurns(tmp_path / "data" / "isoflop.db", "gone", os.nice(0)).__enter__()


def test_table_of_two_pairs_has_their_middle_and_not_the_better() -> None:
    slower = Pair(service=service_run(seconds=40.0, drawing_s=32.0, flops=320.0), plain=PAIR.plain)
    lines = to_markdown(gpu_result(pairs=(PAIR, slower)))

    assert row_of(lines, "isoflop, from submission")[4] == "20.0%", "of 32 and 8"
