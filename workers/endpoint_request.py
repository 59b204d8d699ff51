"""What a request for one completion says to an OpenAI-compatible server.

Owns the words of `/completions` in either dialect. Invariant: a server that has defaults of its own never decides how a
completion is drawn: what it knows is told, and what it cannot be told is refused, unless the options let it go.
"""

from collections.abc import Sequence
from typing import Any

from service.endpoints import Dialect, EndpointOptions, unsupported_fields
from service.errors import InvalidInput
from service.sampling import FIELDS, OFF, SamplingSpec, Structure

_SEED_BITS = 31  # what servers in other languages take, too


def request_body(
    options: EndpointOptions, prompt: str | Sequence[int], *, max_tokens: int, sampling: SamplingSpec, seed: int
) -> dict[str, Any]:
    """The JSON document of one request.

    Raises:
        InvalidInput: the dialect has no word for a field that is set, and the options do not say to drop it.
    """
    resolved = sampling.resolved_for(OFF)
    body: dict[str, Any] = {
        "model": options.model,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "max_tokens": max_tokens,
        "temperature": resolved.temperature,
        "n": 1,
        "stream": options.stream,
    }
    if options.stream:
        body["stream_options"] = {"include_usage": True}
    if resolved.stop:
        body["stop"] = list(resolved.stop)
    if options.sends_seed:
        body["seed"] = seed % (1 << _SEED_BITS)
    if options.dialect is Dialect.vllm:
        # all of them, also those that change nothing: else the server takes what its model's authors suggest
        body |= {name: getattr(resolved, name) for name in FIELDS}
        body["add_special_tokens"] = False  # of a prompt in text: it is rendered with all it needs
        if resolved.structure is not None:
            body["structured_outputs"] = _structure(resolved.structure)
        return body
    body["top_p"] = resolved.top_p
    if unsupported := unsupported_fields(options, sampling):
        raise InvalidInput(
            f"{options.host} speaks plain OpenAI and cannot be told {', '.join(unsupported)}; allowed: leave them out, "
            "dialect vllm where the server knows it, or drops_unsupported"
        )
    return body


def _structure(wanted: Structure) -> dict[str, Any]:
    if wanted.json_schema is not None:
        return {"json": wanted.json_schema}
    return {"regex": wanted.regex} if wanted.regex is not None else {"choice": list(wanted.choice)}
