"""The seam between a generator and whatever draws completions: vLLM, or a simulation of it.

Owns the vocabulary of that seam. An engine is driven by one thread: `add`, `abort` and `load_weights` happen between
two `step`s. A request that cannot be served comes back as a `Finished` with an error, weights that cannot be loaded as
an InvalidInput that leaves the old ones in place; any other exception means that the engine is lost, with every request
in it. Must not import vllm, torch or ray.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from service.models import ModelSpec
from service.sampling import SamplingSpec


class EngineDead(RuntimeError):
    """The engine is lost with everything in it; its process has to end.

    Args:
        charges: how often each request that was inside may have been paid for, by id; None where nobody can say.
    """

    def __init__(self, message: str, *, charges: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.charges = charges


class Finished(NamedTuple):
    """A request that left the engine. A tuple, because one is made for every sample.

    Args:
        completion_tokens: tokens sampled, an end-of-sequence token included [tokens].
        cached_tokens: leading prompt tokens that were found in the KV cache [tokens].
        finish_reason: "stop", "length" or "error".
        error: why, when the reason is "error".
        lost_tries: tries before this answer, or in place of one, that brought nothing and may have cost up to the
            request's worst case each. Only a server elsewhere makes any.
        prompt_tokens: as a server counts a prompt that went as text; None where they are those that were sent [tokens].
    """

    request_id: str
    text: str
    completion_tokens: int
    cached_tokens: int
    finish_reason: str
    error: str | None
    lost_tries: int = 0
    prompt_tokens: int | None = None


class Engine(Protocol):
    """Draws completions of token prompts, many at a time."""

    version: str
    seed: int | None
    """Of the engine's own random numbers; None where every request's own seed decides alone."""
    model: ModelSpec | None
    """Whose weights are loaded; None as long as none were named."""
    max_num_seqs: int
    """Requests that run at the same time; more may be added, and wait inside."""

    def add(
        self, request_id: str, token_ids: Sequence[int], *, max_tokens: int, sampling: SamplingSpec, seed: int
    ) -> None:
        """Queues one request for one completion."""
        ...

    def step(self) -> list[Finished]:
        """Advances every running request by a token or so, and returns those that ended."""
        ...

    def abort(self, request_ids: Iterable[str]) -> list[Finished]:
        """Drops requests and returns what each had computed; one that had not begun is missing from the answer."""
        ...

    def load_weights(self, model: ModelSpec) -> None:
        """Swaps the weights in place for those of a checkpoint; everything drawn from now on is that model's.

        Args:
            model: a checkpoint of the shape that the engine was built for; how to load it is not asked.

        Raises:
            InvalidInput: they cannot be loaded, the message names the file; the engine is as it was.
            ValueError: requests are inside.
        """
        ...

    def num_unfinished(self) -> int:
        """Requests inside, running or waiting."""
        ...

    def unfinished_tokens(self) -> int:
        """Completion tokens sampled so far by the requests inside [tokens]: how progress shows before any ends."""
        ...

    def disconnect(self) -> None:
        """Lets go of connections to elsewhere; it is of no use afterwards. Memory goes with the process."""
        ...
