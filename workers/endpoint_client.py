"""A server of OpenAI's `/completions` by HTTP: one try of a completion, and its list of models.

Owns the connection and what each way of failing means: *refused* where the server did no work, *lost* where it may have
worked and charged. Invariants: no message that went through `redacted` holds the key; neither a redirect nor a proxy
takes prompts or key elsewhere. Used by the thread of an event loop. Must not import vllm, torch or ray.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx

from service.endpoints import EndpointOptions
from workers.endpoint_answer import Completion, EventLines, Lost, Refused, Served, TryFailed, failure_of
from workers.endpoint_tries import Tries

_OK = 200
_KEY_REFUSED = (401, 403)
_BUSY = (408, 429)
_SERVER_ERROR = 500
_CHECK_TRIES = 5
_MODELS_SHOWN = 20


class EndpointClient:
    """One server.

    Args:
        api_key: sent as a bearer token; None for a server that wants none.
    """

    def __init__(self, options: EndpointOptions, api_key: str | None) -> None:
        self._options = options
        self._api_key = api_key
        self._http = _http_client(options, api_key)

    def with_options(self, options: EndpointOptions) -> "EndpointClient":
        """The same server with the same key under other limits, on connections of its own."""
        return EndpointClient(options, self._api_key)

    def redacted(self, message: str) -> str:
        """The message without the key, which a server may repeat in what it says."""
        return message if self._api_key is None else message.replace(self._api_key, "[key]")

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def complete(self, content: bytes, completion: Completion) -> Served:
        """One exchange with the server.

        Args:
            content: body of the request.
            completion: takes what comes, as it comes.

        Raises:
            TryFailed: it brought no completion.
        """
        lines = EventLines()
        try:
            async with (
                asyncio.timeout(self._options.deadline_s),
                self._http.stream("POST", "/completions", content=content) as response,
            ):
                if response.status_code != _OK:
                    raise await _failure(response)
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    async for chunk in response.aiter_bytes():
                        for document in lines.feed(chunk):
                            completion.add(document)
                else:
                    completion.add(await response.aread())
                    lines.has_ended = True
        except TimeoutError as error:
            raise Lost(f"the server's answer had no end after {self._options.deadline_s:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Refused(f"no connection: {text_of(error)}") from error
        except httpx.ReadTimeout as error:
            if not lines.has_ended:
                raise Lost(f"the server was silent for {self._options.read_timeout_s:g} s") from error
        except httpx.RequestError as error:
            if not lines.has_ended:
                raise Lost(f"the connection broke: {text_of(error)}") from error
        return completion.served(is_whole=lines.has_ended)

    async def trouble(self, tries: Tries, sleep: Callable[[float], Awaitable[None]]) -> str | None:
        """What is wrong with the server: no answer, a key that it refuses, other models only; None if nothing is.

        Args:
            tries: how long to wait between them.
        """
        trouble = None
        for _ in range(_CHECK_TRIES):
            try:
                response = await self._http.get("/models")
            except httpx.RequestError as error:
                trouble = Refused(f"the host does not answer: {text_of(error)}")
            else:
                if response.status_code in _KEY_REFUSED:
                    variable = self._options.api_key_env
                    return f"the key is refused, {'none was sent' if variable is None else f'it is from {variable}'}"
                if response.status_code == _OK:
                    return self._missing_in(response)
                if response.status_code not in _BUSY and response.status_code < _SERVER_ERROR:
                    return None
                trouble = Refused(f"the host answers with status {response.status_code}")
            if (wait_s := tries.wait_after(trouble)) is None:
                break
            await sleep(wait_s)
        return str(trouble)

    def _missing_in(self, response: httpx.Response) -> str | None:
        """That the server's list of models has others only."""
        try:
            known = [str(entry["id"]) for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return None
        if not known or self._options.model in known:
            return None
        return f"model {self._options.model!r} is unknown there; it serves {', '.join(known[:_MODELS_SHOWN])}"


def _http_client(options: EndpointOptions, api_key: str | None) -> httpx.AsyncClient:
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        base_url=options.base_url,
        headers=headers,
        timeout=httpx.Timeout(options.read_timeout_s, connect=options.connect_timeout_s),
        limits=httpx.Limits(max_connections=options.max_in_flight, max_keepalive_connections=options.max_in_flight),
        # a redirect would take prompts and key elsewhere, and so would a proxy or a password file of the machine
        follow_redirects=False,
        trust_env=False,
    )


async def _failure(response: httpx.Response) -> TryFailed:
    """What a status says, also where its explanation does not arrive."""
    try:
        body = await response.aread()
    except httpx.RequestError:
        body = b""
    return failure_of(response.status_code, body, response.headers.get("retry-after"), datetime.now(UTC))


def text_of(error: BaseException) -> str:
    """An exception for people: some have no words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
