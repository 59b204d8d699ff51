"""Real training of a model of two layers with the tiny world's tokenizer: a few steps at a time."""

import dataclasses
import itertools
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from service.checkpoints import find_checkpoints, read_checkpoint
from service.errors import CorruptFile, InvalidInput
from service.finetunes import Method, TrainingSpec
from service.jobs import PromptSpec
from service.models import ModelSpec
from service.receipts import Receipt
from service.shards import file_sha256
from service.training_flops import training_flops
from service.work import FinetuneWork
from tests.workers.finetune_work import BASE, TRAINING, finetune_work, write_dataset
from workers.adapter_merge import merge_adapter
from workers.finetune import OutOfMemory, finetune
from workers.finetune_data import IGNORED_LABEL, ReadingOrder, load_training_data
from workers.finetune_watch import LOG_FILE, LogEntry, TrainingDiverged
from workers.model_files import inspect_model
from workers.prepare import load_tokenizer as load_job_tokenizer

TOKENIZER = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"
PAIRS = [
    (
        f"Eva starts with {a} coins. She buys {b} coins. How many coins does she have now?\n",
        f"{a}+{b}={a + b}. #### {a + b}",
    )
    for a, b in ((3, 4), (12, 30), (46, 16), (7, 5), (21, 9), (14, 2), (33, 11))
]
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return make_base(tmp_path_factory.mktemp("base"), torch.float32)


@pytest.fixture(scope="module")
def half_base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return make_base(tmp_path_factory.mktemp("half"), torch.bfloat16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "part-00000.parquet", PAIRS)


@pytest.fixture(scope="module")
def through(base: ModelSpec, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> "Heard":
    """The default run, from the first step to the last."""
    return run(finetune_work(base, dataset=dataset), tmp_path_factory.mktemp("through") / "a.1")


def make_base(directory: Path, dtype: torch.dtype) -> ModelSpec:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=114,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=192,
        tie_word_embeddings=True,
        attention_dropout=0.1,  # draws random numbers in every step: a resumed run has to draw the same ones
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(dtype=dtype).save_pretrained(directory)  # type: ignore[arg-type]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(TOKENIZER / name, directory / name)
    revision = inspect_model(directory).revision
    return dataclasses.replace(BASE, path=str(directory), revision=revision)


@dataclass
class Heard:
    lines: list[LogEntry] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def last_directory(self) -> Path:
        return Path(self.receipts[-1].path).parent


def run(work: FinetuneWork, out_dir: Path, *, stop_after: int | None = None) -> Heard:
    """Trains, and ends after `stop_after` steps."""
    heard = Heard()
    asked = itertools.count()  # before the first step, then after each

    def should_stop() -> bool:
        return next(asked) == stop_after

    finetune(work, out_dir, on_log=heard.lines.append, on_checkpoint=heard.receipts.append, should_stop=should_stop)
    return heard


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def lora(**changes: Any) -> TrainingSpec:
    return dataclasses.replace(TRAINING, method=Method.lora, lora_rank=4, lora_alpha=8, **changes)


def test_run_makes_its_steps_and_equally_spaced_checkpoints_that_engines_can_load(
    base: ModelSpec, through: Heard
) -> None:
    heard, out_dir = through, through.last_directory.parent
    assert [line.step for line in heard.lines] == [1, 2, 3, 4]
    assert [(part.part, part.facts["step"], part.facts["checkpoint"]) for part in heard.receipts] == [
        (0, 2, 1),
        (1, 4, 2),
    ]
    # as text here and below: what nobody can tell is NaN, which is not equal to itself
    assert repr(find_checkpoints(out_dir)) == repr(tuple(heard.receipts))
    written = [LogEntry(**json.loads(line)) for line in (out_dir / LOG_FILE).read_text().splitlines()]
    assert written == heard.lines
    assert sorted(path.name for path in (out_dir).iterdir()) == ["checkpoint-2", "checkpoint-4", LOG_FILE]
    state = json.loads((through.last_directory / "state" / "trainer_state.json").read_text())
    assert state["log_history"] == [], "a checkpoint does not hold the log once more"
    for part in heard.receipts:
        directory = Path(part.path).parent
        files = inspect_model(directory)
        assert (files.dtype, files.context_len) == ("float32", 192)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            assert (directory / name).read_bytes() == (Path(base.path) / name).read_bytes()
        before, after = weights(Path(base.path)), weights(directory)
        assert before.keys() == after.keys()
        assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
        AutoModelForCausalLM.from_pretrained(directory)


def test_receipts_count_the_real_tokens_of_what_was_trained_since_the_last_one(
    base: ModelSpec, dataset: Path, through: Heard
) -> None:
    work, heard = finetune_work(base, dataset=dataset), through
    data = load_training_data(work, AutoTokenizer.from_pretrained(base.path))
    order = ReadingOrder.of(work.training, data.num_rows)
    for part, first_step in zip(heard.receipts, (0, 2), strict=True):
        rows = order.rows[4 * first_step : 4 * (first_step + 2)]
        assert part.rows == len(rows) == 8
        prompts = [len(data.token_ids[row][: int(data.prompt_tokens[row])]) for row in rows]
        assert part.usage.prompt_tokens == sum(prompts)
        assert part.usage.prompt_tokens + part.usage.completion_tokens == sum(len(data.token_ids[row]) for row in rows)
        lengths = data.sequence_tokens[rows]
        assert part.usage.flops == training_flops(base.cost, lengths, lengths - data.prompt_tokens[rows]).sum()
        assert part.usage.flops_paper == 6 * base.cost.parameters * lengths.sum()
        pairs = lengths.reshape(-1, 2)
        assert part.facts["padding_tokens"] == abs(pairs[:, 0] - pairs[:, 1]).sum()
        assert part.facts["loss"] == pytest.approx(sum(line.loss for line in heard.lines[first_step:][:2]) / 2)
        assert part.usage.busy_s > 0
    assert heard.lines[-1].tokens == sum(
        part.usage.prompt_tokens + part.usage.completion_tokens for part in heard.receipts
    )
    assert heard.lines[-1].epoch == heard.receipts[-1].facts["epoch"] == 16 / 7


@pytest.mark.parametrize("training", [TRAINING, lora()], ids=["full", "lora"])
def test_interrupted_and_resumed_run_ends_with_the_weights_of_one_that_went_through(
    base: ModelSpec, dataset: Path, through: Heard, tmp_path: Path, training: TrainingSpec
) -> None:
    work = finetune_work(base, dataset=dataset, training=training)
    if training != TRAINING:
        through = run(work, tmp_path / "a.1")

    interrupted = run(work, tmp_path / "b.1", stop_after=3)
    assert [line.step for line in interrupted.lines] == [1, 2, 3]
    resumed_work = dataclasses.replace(work, resume_from=str(interrupted.last_directory))
    resumed = run(resumed_work, tmp_path / "b.2")

    assert [line.step for line in resumed.lines] == [3, 4]
    assert [(part.part, part.facts["step"], part.facts["checkpoint"]) for part in resumed.receipts] == [(0, 4, 2)]
    for after_both, after_one in zip(resumed.lines, through.lines[2:], strict=True):
        assert dataclasses.replace(after_both, seconds=0.0) == dataclasses.replace(after_one, seconds=0.0)
    torch.testing.assert_close(weights(resumed.last_directory), weights(through.last_directory), **EXACT)


def test_student_of_lower_precision_is_trained_in_full_precision_and_saved_in_its_own(
    half_base: ModelSpec, dataset: Path, tmp_path: Path
) -> None:
    work = finetune_work(half_base, dataset=dataset)
    through = run(work, tmp_path / "a.1")
    interrupted = run(work, tmp_path / "b.1", stop_after=3)
    resumed = run(dataclasses.replace(work, resume_from=str(interrupted.last_directory)), tmp_path / "b.2")

    kept = load_file(through.last_directory / "state" / "model.safetensors")
    served = weights(through.last_directory)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert served.keys() == kept.keys()
    torch.testing.assert_close(served, {name: tensor.to(torch.bfloat16) for name, tensor in kept.items()}, **EXACT)
    assert inspect_model(through.last_directory).dtype == "bfloat16"
    resumed_state = load_file(resumed.last_directory / "state" / "model.safetensors")
    torch.testing.assert_close(resumed_state, kept, **EXACT)


def test_attempt_that_finds_its_own_checkpoints_goes_on_and_then_trains_nothing(
    base: ModelSpec, dataset: Path, through: Heard, tmp_path: Path
) -> None:
    work = finetune_work(base, dataset=dataset)
    first = run(work, tmp_path / "b.1", stop_after=3)

    second = run(work, tmp_path / "b.1")
    third = run(work, tmp_path / "b.1")

    assert [line.step for line in second.lines] == [3, 4]
    assert [part.part for part in second.receipts] == [0, 1]
    assert repr(second.receipts[0]) == repr(first.receipts[0])
    steps = [json.loads(line)["step"] for line in (tmp_path / "b.1" / LOG_FILE).read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    torch.testing.assert_close(weights(second.last_directory), weights(through.last_directory), **EXACT)
    assert (third.lines, repr(third.receipts)) == ([], repr(second.receipts))


def test_resuming_from_the_last_checkpoint_trains_nothing(
    base: ModelSpec, dataset: Path, through: Heard, tmp_path: Path
) -> None:
    work = finetune_work(base, dataset=dataset, resume_from=str(through.last_directory))
    again = run(work, tmp_path / "a.2")
    assert (again.lines, again.receipts) == ([], [])


def test_checkpoint_of_another_run_is_refused(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    work = finetune_work(base, dataset=dataset)
    first = run(work, tmp_path / "a.1", stop_after=3)
    resumed = dataclasses.replace(work, resume_from=str(first.last_directory))
    hotter = dataclasses.replace(TRAINING, learning_rate=2e-3)
    with pytest.raises(InvalidInput, match=r"belongs to another run .* different: training"):
        run(dataclasses.replace(resumed, training=hotter), tmp_path / "a.2")


@pytest.mark.parametrize(("num_checkpoints", "goes_on_after"), [(4, 2), (2, 0)])
def test_run_whose_newest_checkpoint_is_damaged_goes_on_from_one_before_and_makes_none_twice(
    base: ModelSpec, dataset: Path, through: Heard, tmp_path: Path, num_checkpoints: int, goes_on_after: int
) -> None:
    training = dataclasses.replace(TRAINING, num_checkpoints=num_checkpoints)
    work = finetune_work(base, dataset=dataset, training=training)
    first = run(work, tmp_path / "a.1", stop_after=3)
    damage(first.last_directory / "state" / "optimizer.pt")

    resumed = run(dataclasses.replace(work, resume_from=str(first.last_directory)), tmp_path / "a.2")

    assert [line.step for line in resumed.lines] == list(range(goes_on_after + 1, 5))
    assert [(part.part, part.facts["step"]) for part in resumed.receipts] == [(0, 4)]
    assert resumed.receipts[0].rows == TRAINING.batch_size * (4 - goes_on_after)
    torch.testing.assert_close(weights(resumed.last_directory), weights(through.last_directory), **EXACT)


def test_damaged_last_checkpoint_is_not_made_again(
    base: ModelSpec, dataset: Path, through: Heard, tmp_path: Path
) -> None:
    shutil.copytree(through.last_directory.parent, tmp_path / "a.1")
    last = tmp_path / "a.1" / "checkpoint-4"
    damage(last / "state" / "optimizer.pt")
    with pytest.raises(CorruptFile, match=r"optimizer\.pt: \d+ bytes"):
        run(finetune_work(base, dataset=dataset, resume_from=str(last)), tmp_path / "a.2")


def test_lora_checkpoint_is_the_base_with_its_adapter_merged_in(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    work = finetune_work(base, dataset=dataset, training=lora(learning_rate=1e-2))

    heard = run(work, tmp_path)

    directory = heard.last_directory
    assert inspect_model(directory).context_len == 192
    merged = AutoModelForCausalLM.from_pretrained(directory).eval()
    plain = AutoModelForCausalLM.from_pretrained(base.path).eval()
    token_ids = torch.tensor([[1, 20, 30, 40, 50]])
    untrained = plain(token_ids).logits
    adapted = PeftModel.from_pretrained(plain, str(directory / "adapter")).eval()
    torch.testing.assert_close(merged(token_ids).logits, adapted(token_ids).logits, rtol=1e-4, atol=1e-5)
    assert (merged(token_ids).logits - untrained).abs().max() > 1e-3
    registered = merge_adapter(base, directory / "adapter", tmp_path / "merged").directory
    assert (registered / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    lengths = heard.receipts[0].usage
    assert lengths.flops_paper == 4 * base.cost.parameters * (lengths.prompt_tokens + lengths.completion_tokens)


def test_only_the_newest_checkpoints_keep_what_a_resumed_run_needs(
    base: ModelSpec, dataset: Path, tmp_path: Path
) -> None:
    work = finetune_work(base, dataset=dataset, training=dataclasses.replace(TRAINING, num_checkpoints=4))
    heard = run(work, tmp_path)
    has_state = [(Path(part.path).parent / "state").exists() for part in heard.receipts]
    assert has_state == [False, False, True, True]
    assert repr([read_checkpoint(Path(part.path).parent) for part in heard.receipts]) == repr(heard.receipts)


def test_attempts_at_a_run_keep_two_states_between_them(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    def with_state() -> list[str]:
        return sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/checkpoint-*/state"))

    work = finetune_work(base, dataset=dataset, training=dataclasses.replace(TRAINING, num_checkpoints=4))
    run(work, tmp_path / "b.1", stop_after=1)
    newest, found = None, []
    for number, steps in ((1, 2), (2, 1), (3, 1)):
        resumed = dataclasses.replace(work, resume_from=newest)
        newest = str(run(resumed, tmp_path / f"a.{number}", stop_after=steps).last_directory)
        found.append(with_state())

    other = "b.1/checkpoint-1"
    assert found == [
        ["a.1/checkpoint-1", "a.1/checkpoint-2", other],
        ["a.1/checkpoint-2", "a.2/checkpoint-3", other],
        ["a.2/checkpoint-3", "a.3/checkpoint-4", other],
    ]


def test_micro_batches_change_memory_and_not_the_result(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    def final(size: int) -> dict[str, torch.Tensor]:
        training = dataclasses.replace(TRAINING, micro_batch_size=size, optimizer="sgd", learning_rate=0.1)
        config = json.loads((Path(base.path) / "config.json").read_text()) | {"attention_dropout": 0.0}
        directory = tmp_path / f"base-{size}"
        shutil.copytree(base.path, directory)
        (directory / "config.json").write_text(json.dumps(config))
        work = finetune_work(dataclasses.replace(base, path=str(directory)), dataset=dataset, training=training)
        return weights(run(work, tmp_path / f"out-{size}").last_directory)

    torch.testing.assert_close(final(1), final(4), rtol=1e-4, atol=1e-6)


def test_rate_rises_during_warmup_and_then_falls_as_asked(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, warmup=0.5, decay="linear")
    rates = [
        line.learning_rate for line in run(finetune_work(base, dataset=dataset, training=training), tmp_path).lines
    ]
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])


def test_run_that_diverges_ends_for_good_and_keeps_its_last_good_checkpoint(
    base: ModelSpec, dataset: Path, tmp_path: Path
) -> None:
    training = dataclasses.replace(TRAINING, learning_rate=1e30, max_grad_norm=0.0, num_checkpoints=4, warmup=0.25)
    with pytest.raises(TrainingDiverged, match=r"diverged; last good checkpoint: step 2; try a learning_rate under"):
        run(finetune_work(base, dataset=dataset, training=training), tmp_path)
    assert [part.facts["step"] for part in find_checkpoints(tmp_path)] == [1, 2]
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(tmp_path / "checkpoint-2").values())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_run_out_of_memory_names_the_next_micro_batch_to_try(
    base: ModelSpec, dataset: Path, tmp_path: Path, error: BaseException
) -> None:
    def on_log(line: LogEntry) -> None:
        raise error

    work = finetune_work(base, dataset=dataset)
    with pytest.raises(
        OutOfMemory, match=r"micro_batch_size 2; try micro_batch_size 1: a step still trains 4 examples"
    ):
        finetune(work, tmp_path, on_log=on_log, on_checkpoint=lambda receipt: None, should_stop=lambda: False)


def test_run_out_of_memory_with_the_smallest_micro_batch_names_what_else_helps(
    base: ModelSpec, dataset: Path, tmp_path: Path
) -> None:
    def on_log(line: LogEntry) -> None:
        raise MemoryError

    work = finetune_work(base, dataset=dataset)
    smallest = dataclasses.replace(work, training=dataclasses.replace(TRAINING, micro_batch_size=1))
    with pytest.raises(OutOfMemory, match="it cannot be smaller: try a shorter max_length"):
        finetune(smallest, tmp_path, on_log=on_log, on_checkpoint=lambda receipt: None, should_stop=lambda: False)


def test_student_sees_the_ids_that_engines_are_given_and_an_end(base: ModelSpec, dataset: Path) -> None:
    data = load_training_data(finetune_work(base, dataset=dataset), AutoTokenizer.from_pretrained(base.path))
    prompted = load_job_tokenizer(base, PromptSpec()).encode_batch([prompt for prompt, _ in PAIRS])
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    for row, (_, completion) in enumerate(PAIRS):
        ids, start = data.token_ids[row], int(data.prompt_tokens[row])
        assert ids[:start] == prompted[row]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[start:-1]) == completion
        assert data.labels(row) == [IGNORED_LABEL] * start + ids[start:]


def test_text_with_its_own_beginning_of_sequence_does_not_get_a_second_one(base: ModelSpec, tmp_path: Path) -> None:
    pairs = [PAIRS[0], ("<bos>" + PAIRS[0][0], PAIRS[0][1])]
    path = write_dataset(tmp_path / "data.parquet", pairs)
    data = load_training_data(finetune_work(base, dataset=path), AutoTokenizer.from_pretrained(base.path))
    assert data.token_ids[0] == data.token_ids[1]


def test_examples_that_are_too_long_are_counted_and_left_out(base: ModelSpec, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data.parquet", [*PAIRS, (PAIRS[0][0] * 12, "3")])
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    data = load_training_data(finetune_work(base, dataset=path), tokenizer)
    assert (data.num_rows, data.num_too_long) == (len(PAIRS), 1)
    short = dataclasses.replace(TRAINING, max_length=8)
    with pytest.raises(InvalidInput, match="none of its 8 examples fits into 8 tokens"):
        load_training_data(finetune_work(base, dataset=path, training=short), tokenizer)


def test_text_that_the_tokenizer_does_not_know_is_refused_by_name(base: ModelSpec, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data.parquet", [*PAIRS, ("What is \\frac{1}{2}?\n", "0.5")])
    refusal = r"cannot read 1 of 8 examples, allowed: 1%; of example s7 \(problem p7\) its tokenizer does not know"
    with pytest.raises(InvalidInput, match=refusal):
        load_training_data(finetune_work(base, dataset=path), AutoTokenizer.from_pretrained(base.path))


def test_a_few_texts_that_the_tokenizer_does_not_know_are_counted_and_left_out(base: ModelSpec, tmp_path: Path) -> None:
    pairs = [*PAIRS * 20, ("What is \\frac{1}{2}?\n", "0.5")]
    path = write_dataset(tmp_path / "data.parquet", pairs)
    data = load_training_data(finetune_work(base, dataset=path), AutoTokenizer.from_pretrained(base.path))
    assert (data.num_rows, data.num_unreadable, data.num_too_long) == (len(pairs) - 1, 1, 0)


def test_empty_training_set_and_one_that_changed_are_refused(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    empty = write_dataset(tmp_path / "empty.parquet", [])
    with pytest.raises(InvalidInput, match="the training set is empty"):
        run(finetune_work(base, dataset=empty), tmp_path / "a.1")
    with pytest.raises(CorruptFile, match="sha256 is"):
        run(finetune_work(base, dataset=dataset, dataset_sha256=file_sha256(empty)), tmp_path / "a.2")


def test_qlora_without_what_it_needs_is_refused(base: ModelSpec, dataset: Path, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, method=Method.qlora)
    with pytest.raises(InvalidInput, match=r"method qlora .* the package bitsandbytes here; allowed: full, lora"):
        run(finetune_work(base, dataset=dataset, training=training), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"micro_batch_size": 3}, r"multiple of micro_batch_size x processes \(3 x 1\), got 4"),
        ({"num_checkpoints": 5}, r"num_checkpoints must be <= steps \(4\), got 5"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"warmup": 1.0}, r"must be in \[0, 1\), got 1.0"),
        ({"decay": "step"}, "decay must be one of linear, cosine, constant, got 'step'"),
        ({"optimizer": "lion_64bit"}, "optimizer 'lion_64bit'"),
    ],
)
def test_training_that_cannot_be_is_refused(
    base: ModelSpec, dataset: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    training = dataclasses.replace(TRAINING, **change)
    with pytest.raises(InvalidInput, match=message):
        run(finetune_work(base, dataset=dataset, training=training), tmp_path)


@pytest.mark.parametrize("num_rows", [1, 3, 4, 7, 100])
def test_reading_order_repeats_every_row_equally_and_depends_on_the_seed_alone(num_rows: int) -> None:
    order = ReadingOrder.of(TRAINING, num_rows)
    assert len(order.rows) == TRAINING.steps * TRAINING.batch_size
    whole = len(order.rows) // num_rows * num_rows
    for start in range(0, whole, num_rows):
        assert sorted(order.rows[start : start + num_rows].tolist()) == list(range(num_rows))
    assert len(set(order.rows[whole:].tolist())) == len(order.rows) - whole
    same = ReadingOrder.of(dataclasses.replace(TRAINING, micro_batch_size=4), num_rows)
    assert order.rows.tolist() == same.rows.tolist()
    other = ReadingOrder.of(dataclasses.replace(TRAINING, seed=1), num_rows)
    assert num_rows < 7 or order.rows.tolist() != other.rows.tolist()
