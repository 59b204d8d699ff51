"""When two solutions count as the same, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.normalize import equations_key, exact_key, normalized_key

KEYS = [exact_key, normalized_key, equations_key]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # exact, normalized, equations
        ("First 1+2=3.", "First 1+2=3.", (True, True, True)),
        ("First 1+2=3.", "first  1+2=3", (False, True, True)),
        ("First 1+2=3.", "Then 1+2=3.", (False, False, True)),
        ("1 + 2 = 3", "1+2=3", (False, False, True)),
        ("He pays $1,000+$2=$1,002", "1000+2=1002", (False, False, True)),
        ("1+2=<<1+2=3>>3 eggs", "There are <<1+2=3>>3", (False, False, True)),
        ("1+2=3. 3+4=7.", "3+4=7. 1+2=3.", (False, False, False)),
        ("1+2=3.", "2+1=3.", (False, False, False)),
        ("It is three.", "It is, THREE!", (False, True, True)),
        ("It is three.", "It is four.", (False, False, False)),
        ("It costs 3.5", "It costs 35", (False, False, False)),
        ("\N{FULLWIDTH DIGIT THREE} eggs", "3 eggs", (False, True, True)),
    ],
)
def test_keys_equal_exactly_when_the_rule_says_same(one: str, other: str, same: tuple[bool, bool, bool]) -> None:
    assert tuple(key(one) == key(other) for key in KEYS) == same


def test_keys_are_the_same_on_every_machine() -> None:
    assert exact_key("1+2=3.") == 17798840951129967394
    assert normalized_key("1+2=3.") == 11560949818595099545
    assert equations_key("1+2=3.") == 506247706176785615


@given(st.text())
def test_keys_fit_64_bits_and_refine_each_other(text: str) -> None:
    assert all(0 <= key(text) < 2**64 for key in KEYS)
    assert normalized_key(text.upper().lower()) == normalized_key(text.upper().lower() + " ")


def test_keys_lone_surrogate_has_a_key() -> None:
    assert exact_key("\ud800") != exact_key("\ud801")
