"""A simulated engine: no model, no weights, seeded lengths and answers. For tests, rehearsals and load measurements.

Owns everything that pretends. What it returns is never a model's work, and its `version` says so in every row.
Completions depend on the request's seed, its prompt and the weights named alone, so a sample is the same wherever it is
drawn.

A prompt may carry markers: `[answer=18]` makes about `answer_accuracy` of its completions end in 18 and the others in
a wrong number, `[answer=yes]` makes them say yes or no likewise, `[poison]` kills the engine in the step after it
entered. Must not import vllm, torch or ray.
"""

import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from service.errors import InvalidInput
from service.models import ModelSpec
from service.sampling import SamplingSpec
from workers.engine_protocol import EngineDead, Finished

_ANSWER = re.compile(r"\[answer=(-?\d+|yes|no)\]")
_OTHER_WORD = {"yes": "no", "no": "yes"}
_POISON = "[poison]"
_SPREAD = 0.5
LENGTH_STEPS = 0xFFFF
"""Lengths are drawn at so many steps between the quantiles 0 and 1, both included, all as likely."""


class SimulatedTokenizer:
    """One token a UTF-8 byte, moved up by one so that id 0 stays free for a beginning of sequence."""

    bos_token_id = 0

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without a beginning of sequence."""
        return [byte + 1 for byte in text.encode()]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The inverse of `encode`; ids that are no byte are left out."""
        return bytes(token - 1 for token in token_ids if 0 < token <= 256).decode(errors="replace")


class SimulatedEngine:
    """Draws seeded completions; implements `workers.engine_protocol.Engine`.

    Args:
        model: whose weights it pretends to have.
        max_num_seqs: requests that run at the same time.
        mean_tokens: mean completion length before max_tokens cuts it [tokens].
        tokens_per_step: tokens every running request gains per step.
        quantile: length at a quantile in [0, 1] before max_tokens cuts it [tokens]; None for lengths spread evenly over
            half to one and a half times `mean_tokens`.
        answer_accuracy: mean share of right answers; each problem has its own rate around it, drawn from its prompt.
        step_s: real seconds a step takes; 0 for no waiting.
        load_s: real seconds until the engine exists.
        swap_s: real seconds until it has other weights.
        sleep: what waits.
    """

    version = "simulated-1"
    seed: int | None = None

    def __init__(
        self,
        *,
        model: ModelSpec | None = None,
        max_num_seqs: int = 256,
        mean_tokens: int = 32,
        quantile: Callable[[float], float] | None = None,
        tokens_per_step: int = 8,
        answer_accuracy: float = 0.5,
        step_s: float = 0.0,
        load_s: float = 0.0,
        swap_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self._seed_of_weights = 0 if model is None else _seed_of_weights(model)
        self.max_num_seqs = max_num_seqs
        self._quantile = quantile or _spread_around(mean_tokens)
        self._tokens_per_step = tokens_per_step
        self._answer_accuracy = answer_accuracy
        self._step_s = step_s
        self._swap_s = swap_s
        self._sleep = sleep
        self._prompts: dict[tuple[int, ...], tuple[str | None, float, bool]] = {}
        self._waiting: deque[Finished] = deque()
        self._due: dict[int, list[Finished]] = {}
        """Running requests by the step in which they end."""
        self._running: dict[str, tuple[int, int]] = {}
        """First step and number of tokens of each running request."""
        self._step = 0
        self._num_running = 0
        self._poisoned: set[str] = set()
        if load_s:
            sleep(load_s)

    def add(
        self, request_id: str, token_ids: Sequence[int], *, max_tokens: int, sampling: SamplingSpec, seed: int
    ) -> None:
        """Queues a request whose length and text are decided here and now."""
        key = tuple(token_ids)
        answer, accuracy, is_poison = self._prompts.get(key) or self._read(key)
        if is_poison:
            self._poisoned.add(request_id)
        bits = ((seed + self._seed_of_weights) * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
        bits ^= bits >> 29
        wished = max(1, int(self._quantile((bits & LENGTH_STEPS) / LENGTH_STEPS)))
        is_right = (bits >> 16 & 0xFFFF) < accuracy * 0x10000
        is_cut = wished > max_tokens
        finished = Finished(
            request_id,
            _text(answer, bits >> 32, is_right=is_right, is_cut=is_cut),
            min(wished, max_tokens),
            0,
            "length" if is_cut else "stop",
            None,
        )
        self._waiting.append(finished)

    def step(self) -> list[Finished]:
        """Lets requests in, moves all of them on, and returns those that reached their length.

        Raises:
            EngineDead: a running prompt is poison.
        """
        if self._step_s:
            self._sleep(self._step_s)
        while self._waiting and len(self._running) < self.max_num_seqs:
            finished = self._waiting.popleft()
            tokens = finished.completion_tokens
            self._running[finished.request_id] = (self._step, tokens)
            end = self._step + (tokens - 1) // self._tokens_per_step
            self._due.setdefault(end, []).append(finished)
            if finished.request_id in self._poisoned:
                raise EngineDead(f"request {finished.request_id} carries {_POISON}")
        self._num_running = len(self._running)
        done = self._due.pop(self._step, [])
        for finished in done:
            del self._running[finished.request_id]
        self._step += 1
        return done

    def abort(self, request_ids: Iterable[str]) -> list[Finished]:
        """Drops requests; those that ran are returned with the tokens they had."""
        dropped = set(request_ids)
        self._waiting = deque(finished for finished in self._waiting if finished.request_id not in dropped)
        partial = [
            Finished(request_id, "", self._tokens_so_far(*self._running.pop(request_id)), 0, "error", "aborted")
            for request_id in dropped & self._running.keys()
        ]
        for end, due in self._due.items():
            self._due[end] = [finished for finished in due if finished.request_id not in dropped]
        return partial

    def load_weights(self, model: ModelSpec) -> None:
        """Pretends to have other weights from now on.

        Raises:
            InvalidInput: their FLOP coefficients are those of another shape.
            ValueError: requests are inside.
        """
        if self.num_unfinished():
            raise ValueError(f"{self.num_unfinished()} requests are inside; weights are swapped in an empty engine")
        if self.model is not None and model.cost != self.model.cost:
            raise InvalidInput(f"{model.path or model.name}: weights of another shape than those of {self.model.name}")
        if self._swap_s:
            self._sleep(self._swap_s)
        self.model, self._seed_of_weights = model, _seed_of_weights(model)

    @property
    def num_running(self) -> int:
        """Requests that ran in the last step; the others waited."""
        return self._num_running

    def num_unfinished(self) -> int:
        """Requests running or waiting."""
        return len(self._running) + len(self._waiting)

    def disconnect(self) -> None:
        """Has no connections."""

    def unfinished_tokens(self) -> int:
        """Completion tokens of the running requests so far [tokens]."""
        return sum(self._tokens_so_far(*running) for running in self._running.values())

    def _tokens_so_far(self, first_step: int, completion_tokens: int) -> int:
        return min(completion_tokens, (self._step - first_step) * self._tokens_per_step)

    def _read(self, token_ids: tuple[int, ...]) -> tuple[str | None, float, bool]:
        """The marked answer, this problem's own accuracy and whether it is poison."""
        text = SimulatedTokenizer().decode(token_ids)
        marked = _ANSWER.search(text)
        reach = min(self._answer_accuracy, 1 - self._answer_accuracy)
        accuracy = self._answer_accuracy + (2 * zlib.crc32(text.encode()) / 0xFFFFFFFF - 1) * reach
        known = (marked[1] if marked else None, accuracy, _POISON in text)
        self._prompts[token_ids] = known
        return known


def _spread_around(mean: float) -> Callable[[float], float]:
    return lambda share: mean * (1 - _SPREAD + 2 * _SPREAD * share)


def _seed_of_weights(model: ModelSpec) -> int:
    """What sets a checkpoint's completions apart from those of its base and of its siblings."""
    return 0 if model.base is None else zlib.crc32(model.revision.encode())


def _text(answer: str | None, bits: int, *, is_right: bool, is_cut: bool) -> str:
    """One line of arithmetic that ends in `#### <answer>`, or a verdict, unless it is cut before."""
    if answer in _OTHER_WORD:
        word = answer if is_right else _OTHER_WORD[answer]
        return "I read it." if is_cut else f"I read it. Verdict: {word}"
    value = bits % 100 if answer is None else int(answer)
    if not is_right:
        value += 1 + bits % 9
    first = (bits >> 8) % 20
    derivation = f"{first}+{value - first}={value}."
    return derivation if is_cut else f"{derivation} #### {value}"
