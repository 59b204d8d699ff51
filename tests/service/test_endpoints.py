"""Options of endpoints: what they refuse, that they never show a key, what tokens cost."""

from typing import Any

import pytest

from service.endpoints import EndpointOptions, api_key_of, read_keys
from service.errors import InvalidInput

SECRET = "sk-secret"


def options(**changes: Any) -> EndpointOptions:
    return EndpointOptions(**{"base_url": "https://host.example/v1", "model": "m", **changes})


@pytest.mark.parametrize(
    ("url", "kept", "host"),
    [
        ("https://host.example/v1/", "https://host.example/v1", "host.example"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_address_is_kept_without_a_slash_at_its_end(url: str, kept: str, host: str) -> None:
    assert (options(base_url=url).base_url, options(base_url=url).host) == (kept, host)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "ftp://host/v1"}, "got scheme 'ftp'; allowed: http, https"),
        ({"base_url": "host/v1"}, "got scheme ''"),
        ({"base_url": "https:///v1"}, "allowed: host, port and path"),
        ({"base_url": "https://host/v1?x=1"}, "nothing after it"),
        ({"base_url": "https://host/v1#x"}, "nothing after it"),
        ({"base_url": "https://ho st/v1"}, "nothing after it"),
        ({"base_url": "https://host:99999/v1"}, "cannot be read"),
        ({"base_url": f"https://user:{SECRET}@host/v1"}, "credentials in it; allowed: a key by api_key_env"),
        ({"model": ""}, "model"),
        ({"api_key_env": SECRET}, "not a key itself"),
        ({"max_in_flight": 0}, "max_in_flight: got 0; allowed: 1 or more"),
        ({"max_lost_tries": 0}, "max_lost_tries: got 0; allowed: 1 or more"),
        ({"max_refused_tries": -1}, "max_refused_tries: got -1"),
        ({"tokens_per_minute": 0.0}, "tokens_per_minute: got 0.0; allowed: more than 0"),
        ({"requests_per_minute": float("nan")}, "requests_per_minute: got nan"),
        ({"deadline_s": float("inf")}, "deadline_s: got inf; allowed: more than 0, finite"),
    ],
)
def test_option_that_breaks_its_rule_is_refused_by_name_without_credentials(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        options(**changes)

    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_key_is_read_from_the_variable_that_is_named() -> None:
    assert api_key_of(options(), {"KEY": SECRET}) is None
    assert api_key_of(options(api_key_env="KEY"), {"KEY": SECRET}) == SECRET


@pytest.mark.parametrize("environment", [{}, {"KEY": ""}, {"KEY": f"{SECRET}\n"}, {"KEY": f"{SECRET} é"}])
def test_key_that_is_none_is_refused_and_not_shown(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="KEY") as caught:
        api_key_of(options(api_key_env="KEY"), environment)

    assert SECRET not in str(caught.value)


def test_keys_are_read_by_address_and_one_that_is_missing_is_named() -> None:
    variables = {"https://a.example/v1/": "A_KEY", "http://127.0.0.1:8000/v1": None}

    assert read_keys(variables, {"A_KEY": SECRET, "OTHER": "x"}) == {"https://a.example/v1": SECRET}
    with pytest.raises(InvalidInput, match=r"A_KEY: holds the key of https://a.example/v1, got nothing"):
        read_keys(variables, {})
