"""How an OpenAI-compatible server is reached: address, name of the model there, limits, retries.

Owns the rules for these values. Invariant: no key is ever among them, only the name of the environment variable that
holds it, so that options may be stored, shown and sent to workers. Opens no connection.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from service.errors import InvalidInput
from service.sampling import FIELDS, OFF, SamplingSpec

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[!-~]+")


class Dialect(StrEnum):
    """Which fields of a request the server knows: OpenAI's own, or those that vLLM added."""

    openai = "openai"
    vllm = "vllm"


class PromptForm(StrEnum):
    """What prompts are sent as. Token ids are exact; a server that takes only text tokenises it by itself."""

    token_ids = "token_ids"
    text = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """One model of one server.

    A try that fails is *refused* where the server did no work (no connection, 429, 503) and *lost* where it may have
    worked and charged (a stall, a cut answer, 5xx). Both are tried again, each up to its own number.

    Args:
        base_url: what `/completions` is appended to, e.g. "https://host/v1"; http or https, without credentials.
        model: the model's name there.
        api_key_env: environment variable that holds the key; None where the server wants none.
        stream: whether tokens are sent as they come. Without, a stall cannot be told from a long completion, and
            `read_timeout_s` has to be longer than the longest completion takes.
        sends_seed: whether each request carries the sample's seed, cut to 31 bits. Not to vLLM on a CPU: there a seed
            kills the engine when a prompt is computed in two parts.
        drops_unsupported: whether sampling fields that the dialect does not know are left out; else a request that
            needs one is refused before it is sent.
        max_in_flight: requests that the server holds at the same time.
        requests_per_minute: no more are begun; None for no limit.
        tokens_per_minute: the same of prompt tokens and most completion tokens together.
        connect_timeout_s: until the connection stands [s].
        read_timeout_s: longest silence of the server within one try [s].
        deadline_s: longest time of one try, from its start to its last byte [s].
        max_refused_tries: refused tries after which a request becomes an error.
        max_lost_tries: lost tries after which it does, so that no request is charged more often than that.
        backoff_s: the wait after a first failed try is drawn from 0 to this, after each further one up to double [s].
        max_backoff_s: no wait is drawn from more than this [s].
        max_wait_s: longest `Retry-After` that is waited for; a server that asks for more makes an error [s].

    Raises:
        InvalidInput: a field breaks its rule; the message says what, got, allowed, and never shows credentials.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    dialect: Dialect = Dialect.openai
    prompt_form: PromptForm = PromptForm.token_ids
    stream: bool = True
    sends_seed: bool = True
    drops_unsupported: bool = False
    max_in_flight: int = 32
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 120.0
    deadline_s: float = 1800.0
    max_refused_tries: int = 10
    max_lost_tries: int = 2
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_wait_s: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked_url(self.base_url))
        if not self.model:
            raise InvalidInput("endpoint model: the model's name at the server, got ''; allowed: one character or more")
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # what stands there may be the key itself, so it is not repeated
            raise InvalidInput(
                "endpoint api_key_env: name of an environment variable, got something else; "
                "allowed: letters, digits and _, not a key itself"
            )
        for name in ("max_in_flight", "max_refused_tries", "max_lost_tries"):
            _check_least(name, getattr(self, name), 1)
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        for name in ("connect_timeout_s", "read_timeout_s", "deadline_s", "backoff_s", "max_backoff_s", "max_wait_s"):
            _check_positive(name, getattr(self, name))

    @property
    def host(self) -> str:
        """Host and port of the server, for people."""
        return urlsplit(self.base_url).netloc


LIMITS = (
    "max_in_flight",
    "requests_per_minute",
    "tokens_per_minute",
    "connect_timeout_s",
    "read_timeout_s",
    "deadline_s",
    "max_refused_tries",
    "max_lost_tries",
)
"""Options that decide how much is asked of a server and how long, not what it draws: operators may change them."""


def with_limits_of(options: EndpointOptions, other: EndpointOptions) -> EndpointOptions:
    """The same server and requests under the limits of `other`, whose key's variable is the one of today too."""
    return replace(options, api_key_env=other.api_key_env, **{name: getattr(other, name) for name in LIMITS})


_OPENAI_KNOWS = ("top_p",)
"""Of the fields that a model's authors may set: what OpenAI's own API has a word for."""


def unsupported_fields(options: EndpointOptions, sampling: SamplingSpec) -> list[str]:
    """What the server cannot be told and would not do by itself; nothing where the options say to leave it out."""
    if options.dialect is Dialect.vllm or options.drops_unsupported:
        return []
    resolved = sampling.resolved_for(OFF)
    found = [name for name in FIELDS if name not in _OPENAI_KNOWS and getattr(resolved, name) != getattr(OFF, name)]
    return found + ([] if resolved.structure is None else ["structure"])


def told_of(options: EndpointOptions, sampling: SamplingSpec) -> SamplingSpec:
    """What of it the server is told: a number for every field, that which changes nothing where it has no word."""
    resolved = sampling.resolved_for(OFF)
    if options.dialect is Dialect.vllm:
        return resolved
    off = {name: getattr(OFF, name) for name in FIELDS if name not in _OPENAI_KNOWS}
    return replace(resolved, structure=None, **off)


def read_keys(variables: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, str]:
    """The keys of all servers that want one, by address.

    Args:
        variables: the environment variable of each server's key, by address.

    Raises:
        InvalidInput: as `EndpointOptions` and `api_key_of`.
    """
    keys: dict[str, str] = {}
    for url, variable in variables.items():
        options = EndpointOptions(base_url=url, model="any", api_key_env=variable)
        if (key := api_key_of(options, environment)) is not None:
            keys[options.base_url] = key
    return keys


def api_key_of(options: EndpointOptions, environment: Mapping[str, str]) -> str | None:
    """The key that the options name, or None where they name none.

    Raises:
        InvalidInput: the variable is not set, or holds what no header can; the message names the variable only.
    """
    if options.api_key_env is None:
        return None
    key = environment.get(options.api_key_env, "")
    if not key:
        raise InvalidInput(
            f"{options.api_key_env}: holds the key of {options.base_url}, got nothing; set it to the key"
        )
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{options.api_key_env}: holds the key of {options.base_url}, got {len(key)} characters, some of which no "
            "header can carry; allowed: printable ASCII without spaces"
        )
    return key


def _checked_url(url: str) -> str:
    """The address without a slash at its end."""
    rule = "endpoint base_url: address of an OpenAI-compatible server such as https://host/v1"
    try:
        parts = urlsplit(url)
        is_server = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InvalidInput(f"{rule}, got one that cannot be read: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"{rule}, got one with credentials in it; allowed: a key by api_key_env")
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(f"{rule}, got scheme {parts.scheme!r}; allowed: http, https")
    if not is_server or parts.query or parts.fragment or any(character.isspace() for character in url):
        raise InvalidInput(f"{rule}, got {url!r}; allowed: host, port and path, nothing after it")
    return url.rstrip("/")


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidInput(f"endpoint {name}: got {value}; allowed: {least} or more")


def _check_positive(name: str, value: float) -> None:
    if not (0 < value < math.inf):
        raise InvalidInput(f"endpoint {name}: got {value}; allowed: more than 0, finite")
