"""A training set as token ids, and the order in which a run reads it.

Owns what a student sees. Invariants: a prompt has the token ids that an engine will be given for it, a completion ends
in the end of sequence; every optimizer step reads exactly `batch_size` rows; the order depends on the seed and the
number of rows alone, not on processes, micro batches or where a run was resumed. Must not import ray, vllm or torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import CorruptFile, InvalidInput
from service.finetunes import TrainingSpec
from service.shards import check_file
from service.work import FinetuneWork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
_COLUMNS = ["prompt", "completion", "problem_id", "sample_id"]
_BATCH = 1024
_SHOWN_CHARACTERS = 60
_SHOWN_PIECES = 5
_MAX_UNREADABLE = 0.01
"""Share of examples with text that the student's tokenizer does not know. What models write does not always come back
as tokens, so a few are left out; more mean that student and data do not belong together."""

TokenIds = list[int]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Examples that fit, in the order of the file.

    Args:
        token_ids: prompt and completion of each, beginning and end of sequence included.
        prompt_tokens: int64, where each completion begins [tokens].
        sequence_tokens: int64, length of each [tokens].
        num_too_long: examples left out because they are longer than `max_length`.
        num_unreadable: examples left out because the tokenizer does not know all of their text.
    """

    token_ids: list[TokenIds]
    prompt_tokens: Counts
    sequence_tokens: Counts
    num_too_long: int
    num_unreadable: int

    @property
    def num_rows(self) -> int:
        """Examples that are trained on."""
        return len(self.token_ids)

    def labels(self, row: int) -> TokenIds:
        """What the loss compares with: the completion; prompts have none."""
        start = int(self.prompt_tokens[row])
        return [IGNORED_LABEL] * start + self.token_ids[row][start:]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOrder:
    """Rows in the order of training, shape [steps * batch_size]: one seeded permutation of the rows after another.

    A step goes on across the end of an epoch, so that all steps are equally large, whatever the size of the set.
    """

    rows: npt.NDArray[np.int64]
    batch_size: int
    micro_batch_size: int
    num_rows: int

    @classmethod
    def of(cls, training: TrainingSpec, num_rows: int) -> "ReadingOrder":
        """The order of a run over `num_rows` examples."""
        wanted = training.steps * training.batch_size
        epochs = -(-wanted // num_rows)
        orders = [np.random.default_rng([training.seed, epoch]).permutation(num_rows) for epoch in range(epochs)]
        return cls(
            rows=np.concatenate(orders)[:wanted],
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size,
            num_rows=num_rows,
        )

    def between(self, first_step: int, last_step: int) -> npt.NDArray[np.int64]:
        """Rows of the steps after `first_step` up to and with `last_step`."""
        return self.rows[first_step * self.batch_size : last_step * self.batch_size]

    def epoch(self, step: int) -> float:
        """How often the set has been read after `step` steps."""
        return step * self.batch_size / self.num_rows

    def padding(self, sequence_tokens: Counts, first_step: int, last_step: int) -> int:
        """Tokens that fill micro batches up to their longest example in these steps."""
        lengths = sequence_tokens[self.between(first_step, last_step)].reshape(-1, self.micro_batch_size)
        return int((lengths.max(axis=1, keepdims=True) - lengths).sum())


def load_training_data(work: FinetuneWork, tokenizer: "PreTrainedTokenizerBase") -> TrainingData:
    """Reads and tokenises the training set; examples that do not fit or cannot be read are counted and left out.

    Cutting off one that is longer than `max_length` would teach a completion without an answer and an end.

    Raises:
        CorruptFile: the file is not the one that was selected.
        InvalidInput: nothing in it that fits, or too much text that the student's tokenizer does not know.
    """
    table = _read(work)
    prompts, completions = table["prompt"].to_pylist(), table["completion"].to_pylist()
    encoder = _Encoder(tokenizer, work.base.name)
    token_ids: list[TokenIds] = []
    prompt_tokens: list[int] = []
    longest = _max_length(work)
    for start in range(0, len(prompts), _BATCH):
        texts = prompts[start : start + _BATCH], completions[start : start + _BATCH]
        names = table.slice(start, _BATCH).select(["problem_id", "sample_id"]).to_pylist()
        for prompt, completion in encoder.encode(*texts, names):
            if len(prompt) + len(completion) <= longest:
                token_ids.append(prompt + completion)
                prompt_tokens.append(len(prompt))
    if encoder.num_unreadable > _MAX_UNREADABLE * len(prompts):
        raise InvalidInput(
            f"student {work.base.name} cannot read {encoder.num_unreadable:,} of {len(prompts):,} examples, allowed: "
            f"{_MAX_UNREADABLE:.0%}; {encoder.first_unreadable}; choose a student whose tokenizer covers the training "
            "set"
        )
    if not token_ids:
        raise InvalidInput(
            f"{work.dataset_path}: none of its {len(prompts)} examples fits into {longest} tokens; "
            f"that is max_length, at most the context of {work.base.name}"
        )
    return TrainingData(
        token_ids=token_ids,
        prompt_tokens=np.array(prompt_tokens, dtype=np.int64),
        sequence_tokens=np.array(list(map(len, token_ids)), dtype=np.int64),
        num_too_long=len(prompts) - len(token_ids) - encoder.num_unreadable,
        num_unreadable=encoder.num_unreadable,
    )


def _read(work: FinetuneWork) -> pa.Table:
    check_file(work.dataset_path, work.dataset_sha256)
    try:
        table = pq.read_table(work.dataset_path, columns=_COLUMNS)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{work.dataset_path}: cannot read the training set: {error}") from error
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise InvalidInput(f"{work.dataset_path}: a training set needs the columns {_COLUMNS}, {missing} are missing")
    if table.num_rows == 0:
        raise InvalidInput(f"{work.dataset_path}: the training set is empty; a run needs at least one example")
    return table


def _max_length(work: FinetuneWork) -> int:
    context = work.base.context_len
    return context if work.training.max_length is None else min(work.training.max_length, context)


class _Encoder:
    """Texts to token ids as `workers.prepare` makes them for engines, plus the end of sequence.

    Args:
        tokenizer: of the transformers library, whose types of special tokens are wider than what they hold.
        model: name of the student.

    Attributes:
        num_unreadable: examples so far with text that the tokenizer does not know.
        first_unreadable: what it does not know of the first of them.
    """

    def __init__(self, tokenizer: Any, model: str) -> None:
        if tokenizer.eos_token_id is None:
            raise InvalidInput(
                f"student {model}: its tokenizer has no end-of-sequence token, so it cannot learn to stop"
            )
        self._tokenizer = tokenizer
        self.num_unreadable = 0
        self.first_unreadable = ""
        self._eos: int = tokenizer.eos_token_id
        self._first: TokenIds = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        # some tokenizers use one token for unknown text and for the ends of a sequence: then nobody can tell
        is_special = tokenizer.unk_token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        self._unknown: int | None = None if is_special else tokenizer.unk_token_id

    def encode(
        self, prompts: Sequence[str], completions: Sequence[str], names: Sequence[dict[str, str]]
    ) -> list[tuple[TokenIds, TokenIds]]:
        """Prompt and completion of each example that can be read.

        A completion has the ids that it has right after its prompt; where the two would grow together at the border,
        which an engine cannot do, the ids it has alone.
        """
        prompt_ids = self._begin(prompts)
        together = self._begin([prompt + text for prompt, text in zip(prompts, completions, strict=True)])
        alone = self._ids(completions, add_special_tokens=False)
        encoded: list[tuple[TokenIds, TokenIds]] = []
        for row, prompt in enumerate(prompt_ids):
            has_border = together[row][: len(prompt)] == prompt
            completion = together[row][len(prompt) :] if has_border else alone[row]
            if self._unknown in prompt or self._unknown in completion:
                self._leave_out(prompts[row] + completions[row], names[row])
                continue
            if prompt[:1] != self._first:
                prompt = self._first + prompt
            if completion[-1:] != [self._eos]:
                completion = [*completion, self._eos]
            encoded.append((prompt, completion))
        return encoded

    def _begin(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of texts that begin a sequence; one that a chat template wrote has its special tokens already."""
        ids = self._ids(texts, add_special_tokens=True)
        bos = self._tokenizer.bos_token
        if rows := [row for row, text in enumerate(texts) if isinstance(bos, str) and text.startswith(bos)]:
            plain = self._ids([texts[row] for row in rows], add_special_tokens=False)
            for row, without in zip(rows, plain, strict=True):
                ids[row] = without
        return ids

    def _ids(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[TokenIds]:
        return list(self._tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"])

    def _leave_out(self, text: str, name: dict[str, str]) -> None:
        self.num_unreadable += 1
        if self.first_unreadable:
            return
        shown = repr(text[:_SHOWN_CHARACTERS])
        if self._tokenizer.is_fast:
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            spans = zip(found["offset_mapping"], found["input_ids"], strict=True)
            unknown = {repr(text[start:end]) for (start, end), token in spans if token == self._unknown}
            shown = ", ".join(sorted(unknown)[:_SHOWN_PIECES]) or shown
        self.first_unreadable = (
            f"of example {name['sample_id']} (problem {name['problem_id']}) its tokenizer does not know {shown}"
        )
