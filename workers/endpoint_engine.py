"""An engine whose completions a server elsewhere draws: OpenAI's `/completions`, by HTTP.

Owns the requests on their way; one exchange with the server is `endpoint_client`'s. The thread that drives the engine
only hands them over and collects answers; a second thread runs an event loop with one task a request, of which
`max_in_flight` are at the server at once. A step waits for an answer no longer than `_STEP_S`.

Invariants: a try that the server may have charged for and that brought no completion is in `Finished.lost_tries` of its
request; no message holds the key; a server that does not take the key is a dead engine, anything else that goes wrong
ends as an error of the request. Must not import vllm, torch or ray.
"""

import asyncio
import json
import queue
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from service.endpoints import EndpointOptions, PromptForm, with_limits_of
from service.errors import InvalidInput
from service.models import ModelSpec
from service.rate_limit import RateLimit
from service.sampling import SamplingSpec
from workers.endpoint_answer import Completion, KeyRefused, Refused, Served, TryFailed
from workers.endpoint_client import EndpointClient, text_of
from workers.endpoint_request import request_body
from workers.endpoint_tries import Tries
from workers.engine_protocol import EngineDead, Finished

_STEP_S = 0.1
_CLOSE_S = 10.0


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    """One request; written by the loop's thread once it is there, read by both."""

    id: str
    content: bytes
    num_prompt_tokens: int
    max_tokens: int
    tries: Tries
    completion: Completion = field(default_factory=Completion)
    is_at_server: bool = False


class EndpointEngine:
    """Draws completions from a server; implements `workers.engine_protocol.Engine`.

    Args:
        options: which server, and how it is treated.
        api_key: sent as a bearer token; None for a server that wants none.
        model: the catalogue entry that the server stands for.
        decode: text of token ids; needed where prompts are sent as text.
        clock: monotonic seconds.
        sleep: what waits on that clock.
        rng: draws the waits between tries.

    Raises:
        InvalidInput: prompts are to be sent as text, and nothing decodes them.
    """

    seed: int | None = None

    def __init__(
        self,
        options: EndpointOptions,
        *,
        api_key: str | None,
        model: ModelSpec | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if options.prompt_form is PromptForm.text and decode is None:
            raise InvalidInput(f"{options.host}: prompts as text need the model's tokenizer, got none")
        self.version = f"endpoint {options.host} {options.model}"
        self.model = model
        self.max_num_seqs = options.max_in_flight
        self._options = options
        self._decode = decode if options.prompt_form is PromptForm.text else None
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._client = EndpointClient(options, api_key)
        self._limit = RateLimit(
            requests_per_minute=options.requests_per_minute, tokens_per_minute=options.tokens_per_minute, clock=clock
        )
        self._slots = asyncio.Semaphore(options.max_in_flight)
        self._gate = asyncio.Lock()
        # of the driver's thread
        self._inside: dict[str, _Request] = {}
        self._error: BaseException | None = None
        # between the threads
        self._results: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()
        # of the loop's thread
        self._tasks: dict[str, asyncio.Task[Finished]] = {}
        self._is_lost = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Asks the server for its models: whether it answers, takes the key and has this one. A list it lacks is none.

        Raises:
            EngineDead: it does not answer, refuses the key, or lists other models only; the message says which.
        """
        asked = asyncio.run_coroutine_threadsafe(
            self._client.trouble(Tries(self._options, self._rng), self._sleep), self._loop
        )
        if (trouble := asked.result()) is not None:
            raise EngineDead(self._client.redacted(f"{self._options.base_url}: {trouble}"), charges={})

    def add(
        self, request_id: str, token_ids: Sequence[int], *, max_tokens: int, sampling: SamplingSpec, seed: int
    ) -> None:
        """Queues a request. One that the server cannot be told is returned by the next step, with the reason."""
        prompt = token_ids if self._decode is None else self._decode(token_ids)
        request = _Request(
            id=request_id,
            content=b"",
            num_prompt_tokens=len(token_ids),
            max_tokens=max_tokens,
            tries=Tries(self._options, self._rng),
        )
        self._inside[request_id] = request
        try:
            body = request_body(self._options, prompt, max_tokens=max_tokens, sampling=sampling, seed=seed)
        except InvalidInput as error:
            self._results.put(Finished(request_id, "", 0, 0, "error", str(error)))
            return
        request.content = json.dumps(body).encode()
        self._loop.call_soon_threadsafe(self._begin, request)

    def step(self) -> list[Finished]:
        """Waits a moment for an answer, and returns all that are there.

        Raises:
            EngineDead: the server does not take the key.
        """
        finished = self._collect(_STEP_S if self._inside and self._error is None else 0.0)
        if self._error is not None and not finished:
            reason = str(self._error) if isinstance(self._error, EngineDead) else text_of(self._error)
            charges = {name: each.tries.num_lost + each.is_at_server for name, each in self._inside.items()}
            raise EngineDead(
                self._client.redacted(f"{self._options.base_url}: {reason}"), charges=charges
            ) from self._error
        return finished

    def abort(self, request_ids: Iterable[str]) -> list[Finished]:
        """Drops requests; nobody knows how far one at the server came, so it counts as drawn to its last token."""
        dropped: list[Finished] = []
        ready = {finished.request_id: finished for finished in self._collect(0.0, keep=True)}
        for request_id in request_ids:
            request = self._inside.pop(request_id, None)
            if request is None:
                continue
            done = ready.pop(request_id, None)
            if done is not None and done.error is None:
                dropped.append(done._replace(text="", finish_reason="error", error="aborted"))
                continue
            self._loop.call_soon_threadsafe(self._cancel, request_id)
            charged = done.lost_tries if done is not None else request.tries.num_lost + request.is_at_server
            if charged:
                dropped.append(Finished(request_id, "", request.max_tokens, 0, "error", "aborted", charged - 1))
        for finished in ready.values():
            self._results.put(finished)
        return dropped

    def load_weights(self, model: ModelSpec) -> None:
        """Takes over the limits of a model that is the same one of the same server; a server keeps its weights.

        Raises:
            InvalidInput: it is another model.
            ValueError: requests are inside.
        """
        if self._inside:
            raise ValueError(f"{len(self._inside)} requests are inside; weights are swapped in an empty engine")
        options = model.endpoint
        if options is None or with_limits_of(options, self._options) != self._options:
            raise InvalidInput(
                f"{model.name}: weights cannot be loaded into {self._options.host}, which serves {self._options.model}"
            )
        asyncio.run_coroutine_threadsafe(self._limit_by(options), self._loop).result()
        self.max_num_seqs = options.max_in_flight
        self.model = model

    def num_unfinished(self) -> int:
        """Requests at the server, waiting for it, or between two tries."""
        return len(self._inside)

    def unfinished_tokens(self) -> int:
        """Pieces of text that have come so far, each a token or a few; 0 where answers are not streamed [tokens]."""
        return sum(request.completion.num_pieces for request in self._inside.values())

    def disconnect(self) -> None:
        """Drops what is inside, and ends the thread."""
        self.close()

    def close(self) -> None:
        """Drops what is inside, and ends the thread. The engine is of no use afterwards."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        self._loop.close()

    # the driver's thread

    def _collect(self, wait_s: float, *, keep: bool = False) -> list[Finished]:
        """Answers that are there, at most `wait_s` after none is; they leave the engine unless they are to be kept."""
        finished: list[Finished] = []
        try:
            result = self._results.get(timeout=wait_s) if wait_s else self._results.get_nowait()
            while True:
                if isinstance(result, BaseException):
                    self._error = self._error or result
                elif result.request_id in self._inside:  # else it was aborted
                    finished.append(result)
                    if not keep:
                        del self._inside[result.request_id]
                result = self._results.get_nowait()
        except queue.Empty:
            return finished

    # the loop's thread

    def _begin(self, request: _Request) -> None:
        if self._is_lost:
            return
        task = self._tasks[request.id] = self._loop.create_task(self._serve(request))
        task.add_done_callback(lambda task: self._end(request, task))

    def _cancel(self, request_id: str) -> None:
        if (task := self._tasks.get(request_id)) is not None:
            task.cancel()

    def _end(self, request: _Request, task: asyncio.Task[Finished]) -> None:
        del self._tasks[request.id]
        if task.cancelled():
            return
        error = task.exception()
        self._results.put(task.result() if error is None else error)
        if error is not None:  # what is at the server must not go on costing
            self._is_lost = True
            for other in self._tasks.values():
                other.cancel()

    async def _limit_by(self, options: EndpointOptions) -> None:
        """Other limits for an empty engine; those that were dropped and are still here have no use for the old ones."""
        client, self._client = self._client, self._client.with_options(options)
        await client.close()
        self._slots = asyncio.Semaphore(options.max_in_flight)
        self._limit.change(requests_per_minute=options.requests_per_minute, tokens_per_minute=options.tokens_per_minute)
        self._options = options

    async def _shut(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _serve(self, request: _Request) -> Finished:
        """Tries until there is a completion or no further try."""
        async with self._slots:
            while True:
                await self._pass_limit(request)
                request.completion, request.is_at_server = Completion(), True
                try:
                    served = await self._client.complete(request.content, request.completion)
                except KeyRefused as refusal:
                    variable = self._options.api_key_env
                    raise EngineDead(f"{refusal}; {'no key was sent' if variable is None else variable}") from None
                except TryFailed as failure:
                    wait_s = request.tries.wait_after(failure)
                    if wait_s is None:
                        return self._failed(request, request.tries.text_of(failure))
                    if isinstance(failure, Refused) and failure.retry_after_s is not None:
                        self._limit.pause(failure.retry_after_s)  # the server means everybody
                else:
                    self._limit.give_back(
                        request.num_prompt_tokens + request.max_tokens - served.prompt_tokens - served.completion_tokens
                    )
                    return self._finished(request, served)
                # not before it is certain to come back: an answer that is not collected yet has cost something
                request.is_at_server = False
                await self._sleep(wait_s)

    async def _pass_limit(self, request: _Request) -> None:
        """Waits for the limits of requests and tokens; one after the other, so that none is overtaken."""
        num_tokens = request.num_prompt_tokens + request.max_tokens
        async with self._gate:
            while (wait_s := self._limit.wait_s(num_tokens)) > 0:
                await self._sleep(wait_s)
            self._limit.take(num_tokens)

    def _finished(self, request: _Request, served: Served) -> Finished:
        """The completion, unless it is not what was asked for; such a one has cost all the same."""
        error = None
        if served.finish_reason not in ("stop", "length"):
            error = f"the server ended the request: {served.finish_reason}"
        elif self._decode is None and served.prompt_tokens != request.num_prompt_tokens:
            error = f"the server counts {served.prompt_tokens} prompt tokens, {request.num_prompt_tokens} were sent"
        elif served.prompt_tokens > request.num_prompt_tokens:
            error = f"the server counts {served.prompt_tokens} prompt tokens, at most {request.num_prompt_tokens} are"
        elif served.completion_tokens > request.max_tokens:
            error = f"the server counts {served.completion_tokens} completion tokens, {request.max_tokens} were allowed"
        if error is not None:
            request.tries.num_lost += 1
            return self._failed(request, error)
        return Finished(
            request.id,
            served.text,
            served.completion_tokens,
            served.cached_tokens,
            served.finish_reason,
            None,
            request.tries.num_lost,
            None if self._decode is None else served.prompt_tokens,
        )

    def _failed(self, request: _Request, error: str) -> Finished:
        message = self._client.redacted(f"{self._options.host}: {error}")
        return Finished(request.id, "", 0, 0, "error", message, request.tries.num_lost)
