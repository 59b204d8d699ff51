"""Limits a minute, on a clock that only the test moves."""

import random

import pytest

from service.rate_limit import RateLimit, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def limit(clock: Clock, *, requests: float | None = None, tokens: float | None = None) -> RateLimit:
    return RateLimit(requests_per_minute=requests, tokens_per_minute=tokens, clock=clock)


def send(limit: RateLimit, clock: Clock, tokens: int) -> float:
    """Waits as long as it is told to, and sends; when that was."""
    while (wait_s := limit.wait_s(tokens)) > 0:
        clock.now += wait_s
    limit.take(tokens)
    return clock.now


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_sees_much_more_than_its_limit_and_the_long_run_uses_it_up(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    both = limit(clock, requests=120, tokens=6000)
    sent: list[tuple[float, int]] = []
    while clock.now < 1200:
        tokens = rng.randint(1, 150)
        sent.append((send(both, clock, tokens), tokens))
        clock.now += rng.choice([0.0, 0.0, 0.1])

    for start, _ in sent:
        within = [tokens for at, tokens in sent if start <= at < start + 60]
        assert len(within) <= 120 * 1.1
        assert sum(within) <= 6000 * 1.1
    assert sum(tokens for _, tokens in sent) > 0.95 * 20 * 6000


def test_one_a_minute_goes_at_once_and_then_every_minute() -> None:
    clock = Clock()
    slow = limit(clock, requests=1)

    assert [send(slow, clock, 5) for _ in range(3)] == [0.0, pytest.approx(60), pytest.approx(120)]


def test_request_larger_than_the_bucket_goes_from_a_full_one_and_leaves_a_debt() -> None:
    clock = Clock()
    bucket = TokenBucket(600, clock)  # ten a second, and at most 60 at once

    assert bucket.wait_s(300) == 0
    bucket.take(300)
    assert bucket.wait_s(10) == pytest.approx(25)  # 240 of debt, and 10
    clock.now = 1000
    assert bucket.wait_s(60) == 0
    bucket.take(60)
    assert bucket.wait_s(1) == pytest.approx(0.1)


def test_tokens_given_back_may_be_taken_again_but_fill_no_more_than_the_bucket() -> None:
    clock = Clock()
    tokens = limit(clock, tokens=600)
    tokens.take(60)
    assert tokens.wait_s(50) == pytest.approx(5)

    tokens.give_back(50)
    assert tokens.wait_s(50) == 0
    tokens.give_back(1000)
    tokens.take(60)
    assert tokens.wait_s(10) == pytest.approx(1)


def test_limit_that_changes_keeps_what_was_taken() -> None:
    clock = Clock()
    both = limit(clock, tokens=600)
    assert send(both, clock, 300) == 0  # 240 in debt
    both.change(requests_per_minute=60, tokens_per_minute=1200)

    assert both.wait_s(10) == pytest.approx(12.5)
    both.change(requests_per_minute=60, tokens_per_minute=None)
    assert both.wait_s(10) == pytest.approx(1)  # where there was no limit, nobody knows what went
    both.change(requests_per_minute=None, tokens_per_minute=None)
    assert both.wait_s(10) == 0


def test_pause_holds_everything_and_a_shorter_one_does_not_end_it() -> None:
    clock = Clock()
    free = limit(clock)
    assert free.wait_s(10**9) == 0

    free.pause(30)
    free.pause(5)
    assert free.wait_s(1) == 30
    clock.now = 31
    assert free.wait_s(1) == 0
