"""Prepares a problem set for one model: rendered, tokenised, priced prompts in one Parquet file.

Owns the tokenizer. Invariant: row i is problem i; a problem that cannot be sampled becomes a row with its reason, and
the job goes on. Code from a model directory is never run. Must not import ray, vllm or torch; transformers is loaded
only when a real model is prepared.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2.exceptions import TemplateError

from service.currency import Currency, can_price, worst_cases
from service.devices import ONE_CORE
from service.endpoints import Dialect, PromptForm
from service.errors import CorruptFile, InvalidInput
from service.jobs import PromptSpec
from service.models import ModelSpec
from service.receipts import Receipt, Usage
from service.records import PROBLEM_SCHEMA
from service.spec_ids import spec_id
from service.work import PrepareWork
from workers.prepared import write_prepared
from workers.prompts import Message, check_prompt, render
from workers.simulated_engine import SimulatedTokenizer
from workers.token_pieces import counts_add_up

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 512
_NEEDED = ["problem_id", "question"]


class Tokenizer(Protocol):
    """What preparing needs of a tokenizer."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, a beginning of sequence included where the prompt asks for it."""
        ...

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, without any that begins or ends a sequence."""
        ...

    def counts_add_up(self) -> bool:
        """Whether a text has as many tokens as its pieces (`workers.token_pieces`)."""
        ...

    def gives_back(self, text: str, token_ids: Sequence[int]) -> bool:
        """Whether the ids are that text again, apart from what begins a sequence."""
        ...

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """Messages as one text that ends where the model's answer begins."""
        ...


def prepare(work: PrepareWork, out_dir: str | Path, progress: Callable[[int, int], None]) -> Receipt:
    """Writes `<out_dir>/part-00000.parquet` and returns its receipt.

    The receipt's `indices` name the problems that cannot be sampled. Its facts are `num_valid`,
    `num_errors`, `shortest_prompt_tokens`, `longest_prompt_tokens` and, over the problems that can be sampled,
    `mean_prompt_tokens` and for each currency c `min_worst_<c>` and `mean_worst_<c>`: worst cases of one sample in
    cost units. Without such a problem these last keys are missing, and so are those of a currency that the model
    cannot be priced in.

    Args:
        progress: called with problems done and problems in all.

    Raises:
        InvalidInput: prompt, problem set or tokenizer break a rule; nothing is written.
    """
    started = time.perf_counter()
    check_prompt(work.prompt)
    problem_ids, questions = _read_problems(work)
    tokenizer = load_tokenizer(work.model, work.prompt)
    prompts = [
        render(
            work.prompt,
            question,
            problem_id=problem_id,
            seed=work.seed,
            apply_chat_template=tokenizer.apply_chat_template,
        )
        for problem_id, question in zip(problem_ids, questions, strict=True)
    ]
    token_ids: list[list[int]] = []
    for start in range(0, len(prompts), _BATCH):
        token_ids += tokenizer.encode_batch(prompts[start : start + _BATCH])
        progress(len(token_ids), len(prompts))
    errors = [
        _error(len(ids), work.model) or _changed(tokenizer, prompt, ids, work.model)
        for prompt, ids in zip(prompts, token_ids, strict=True)
    ]
    kept = [ids if error is None else [] for ids, error in zip(token_ids, errors, strict=True)]
    max_tokens = np.array([_max_tokens(work, len(ids)) for ids in kept], dtype=np.int64)
    return write_prepared(
        out_dir=out_dir,
        prompt_id=spec_id(work.prompt),
        problem_ids=problem_ids,
        prompts=prompts,
        token_ids=kept,
        max_tokens=max_tokens.tolist(),
        errors=errors,
        facts=_facts(work.model, kept, max_tokens) | _lengths(token_ids),
        time=Usage.of_time(time.perf_counter() - started, ONE_CORE),
    )


def first_prompt(model: ModelSpec, prompt: PromptSpec, problems_path: str, seed: int) -> str:
    """The text of the first problem's prompt, as `prepare` would make it.

    Raises:
        CorruptFile: the problem set cannot be read.
        InvalidInput: prompt or chat template break a rule.
    """
    check_prompt(prompt)
    try:
        with pq.ParquetFile(problems_path) as file:
            first = next(file.iter_batches(batch_size=1, columns=_NEEDED)).to_pylist()[0]
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{problems_path}: cannot read the problem set: {error}") from error
    apply = load_tokenizer(model, prompt).apply_chat_template if prompt.use_chat_template else None
    return render(
        prompt, first["question"], problem_id=first["problem_id"], seed=seed, apply_chat_template=apply
    )  # fmt: skip


def load_tokenizer(model: ModelSpec, prompt: PromptSpec) -> Tokenizer:
    """The model's own tokenizer.

    Raises:
        InvalidInput: no tokenizer in the model's directory, or no chat template in it although the prompt uses one.
    """
    if model.endpoint is not None and not model.path:
        if prompt.use_chat_template:
            raise InvalidInput(
                f"model {model.name} is an endpoint without a tokenizer, so nobody knows its chat template; set "
                "use_chat_template: false, or register it with the directory of its tokenizer as path"
            )
        return _Bytes()
    if model.engine.simulated:
        if prompt.use_chat_template:
            raise InvalidInput(f"simulated model {model.name} has no chat template; set use_chat_template: false")
        return _SimulatedBatches(prompt)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"model {model.name}: no tokenizer can be loaded from {model.path}: {error}") from error
    if prompt.use_chat_template and not getattr(tokenizer, "chat_template", None):
        raise InvalidInput(
            f"model {model.name} has no chat template in {model.path}; set use_chat_template: false "
            "or register a model that has one"
        )
    return _HubTokenizer(tokenizer, prompt)


def decoder_of(model: ModelSpec) -> Callable[[Sequence[int]], str] | None:
    """Text of token ids as `load_tokenizer` made them, for servers that take text; None for those that take ids."""
    if model.endpoint is None or model.endpoint.prompt_form is not PromptForm.text:
        return None
    if not model.path:
        return _Bytes.decode
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
    # a plain server begins the sequence by itself; vLLM's is told not to
    begins = model.endpoint.dialect is Dialect.openai

    def decode(token_ids: Sequence[int]) -> str:
        has_begun = bool(begins and token_ids and token_ids[0] == tokenizer.bos_token_id)
        return _text_of(tokenizer, token_ids[1:] if has_begun else token_ids)

    return decode


def _text_of(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """All of the text, where many a tokenizer would by itself leave out spaces that were there."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


class _Bytes:
    """Of a model whose tokenizer only its server knows: one id a byte, so as many as tokens or more.

    The server's count is what is settled. One more stands for a beginning of sequence, which servers put before a text.
    """

    BEGIN = 256

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self.BEGIN, *text.encode()] for text in texts]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) for text in texts]

    def counts_add_up(self) -> bool:
        return True

    def gives_back(self, text: str, token_ids: Sequence[int]) -> bool:
        return self.decode(token_ids) == text

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        raise InvalidInput(f"an endpoint without a tokenizer has no chat template, got {len(messages)} messages")

    @classmethod
    def decode(cls, token_ids: Sequence[int]) -> str:
        return bytes(token for token in token_ids if token != cls.BEGIN).decode()


class _SimulatedBatches:
    """The tokenizer that belongs to the simulated engine."""

    def __init__(self, prompt: PromptSpec) -> None:
        self._tokenizer = SimulatedTokenizer()
        self._first = [SimulatedTokenizer.bos_token_id] if prompt.add_bos else []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._first + self._tokenizer.encode(text) for text in texts]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(self._tokenizer.encode(text)) for text in texts]

    def counts_add_up(self) -> bool:
        return True

    def gives_back(self, text: str, token_ids: Sequence[int]) -> bool:
        return True  # no server is sent them

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        raise InvalidInput(f"a simulated model has no chat template, got {len(messages)} messages")


class _HubTokenizer:
    """A tokenizer of the transformers library."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", prompt: PromptSpec) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        bos = getattr(tokenizer, "bos_token_id", None)
        self._first: list[int] = [bos] if prompt.add_bos and bos is not None else []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        # a chat template writes its own special tokens; adding them again would begin the sequence twice
        batch = self._tokenizer(list(texts), add_special_tokens=not self._prompt.use_chat_template)["input_ids"]
        return [self._with_bos(ids) for ids in batch]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        backend: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:  # ids never become Python objects
            return list(map(len, backend.encode_batch_fast(list(texts), add_special_tokens=False)))
        return list(map(len, self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]))

    def counts_add_up(self) -> bool:
        backend: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and counts_add_up(json.loads(backend.to_str()))

    def gives_back(self, text: str, token_ids: Sequence[int]) -> bool:
        bos: Any = getattr(self._tokenizer, "bos_token_id", None)
        if bos is not None and token_ids and token_ids[0] == bos:
            token_ids, text = token_ids[1:], text.removeprefix(str(self._tokenizer.bos_token))
        return _text_of(self._tokenizer, token_ids) == text

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        # the document refuses names that the library takes for itself
        kwargs: dict[str, Any] = dict(self._prompt.template_kwargs)
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **kwargs
            )
        except (TemplateError, TypeError, ValueError) as error:  # the last two of arguments of the wrong kind
            roles = ", ".join(message["role"] for message in messages)
            given = f" and {', '.join(kwargs)}" if kwargs else ""
            raise InvalidInput(f"the model's chat template refuses messages of {roles}{given}: {error}") from error
        assert isinstance(text, str), "tokenize=False gives text"
        return text

    def _with_bos(self, token_ids: list[int]) -> list[int]:
        return token_ids if token_ids[:1] == self._first else self._first + token_ids


def _read_problems(work: PrepareWork) -> tuple[list[str], list[str]]:
    try:
        table = pq.read_table(work.problems_path, columns=_NEEDED)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{work.problems_path}: cannot read the problem set: {error}") from error
    if table.column_names != _NEEDED:
        raise InvalidInput(
            f"{work.problems_path}: has columns {table.column_names} of those needed, expected {_NEEDED} "
            f"as in {PROBLEM_SCHEMA.names}"
        )
    if table.num_rows < work.num_problems:
        raise InvalidInput(f"{work.problems_path}: {work.num_problems} problems wanted, it has {table.num_rows}")
    table = table.slice(0, work.num_problems)
    return table["problem_id"].to_pylist(), table["question"].to_pylist()


def context_len(model: ModelSpec) -> int:
    """Most tokens of prompt and completion together, as the engine will be loaded [tokens]."""
    return min(model.context_len, model.engine.max_model_len or model.context_len)


def _error(num_tokens: int, model: ModelSpec) -> str | None:
    longest = context_len(model) - 1
    if num_tokens == 0:
        return "prompt has no tokens; an engine needs at least one"
    if num_tokens > longest:
        return f"prompt has {num_tokens} tokens; with a context of {longest + 1} at most {longest} leave room for one"
    return None


def _changed(tokenizer: Tokenizer, prompt: str, token_ids: Sequence[int], model: ModelSpec) -> str | None:
    if model.endpoint is None or model.endpoint.prompt_form is not PromptForm.text:
        return None
    if tokenizer.gives_back(prompt, token_ids):
        return None
    return (
        "prompt is another text after the model's tokenizer, and its server takes text; rows would not hold what it saw"
    )


def _max_tokens(work: PrepareWork, num_tokens: int) -> int:
    if num_tokens == 0:
        return 0
    remaining = context_len(work.model) - num_tokens
    return remaining if work.sampling.max_tokens is None else min(work.sampling.max_tokens, remaining)


def _lengths(token_ids: Sequence[Sequence[int]]) -> dict[str, float]:
    """The shortest and the longest prompt, those that cannot be sampled included [tokens]."""
    lengths = [len(ids) for ids in token_ids]
    return {
        "shortest_prompt_tokens": float(min(lengths, default=0)),
        "longest_prompt_tokens": float(max(lengths, default=0)),
    }


def _facts(model: ModelSpec, token_ids: Sequence[Sequence[int]], max_tokens: npt.NDArray[np.int64]) -> dict[str, float]:
    lengths = np.array(list(map(len, token_ids)), dtype=np.int64)
    is_valid = lengths > 0
    facts = {"num_valid": float(is_valid.sum()), "num_errors": float((~is_valid).sum())}
    if not is_valid.any():
        return facts
    facts["mean_prompt_tokens"] = float(lengths[is_valid].mean())
    for currency in Currency:
        if not can_price(currency, model.pricing):
            continue
        worst = worst_cases(currency, model.pricing, prompt_tokens=lengths[is_valid], max_tokens=max_tokens[is_valid])
        facts[f"min_worst_{currency}"] = float(worst.min())
        facts[f"mean_worst_{currency}"] = float(worst.mean())
    return facts
