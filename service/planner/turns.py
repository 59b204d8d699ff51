"""Whose turn a place is, where more pools have work than there are places.

Work is grouped by model: an engine keeps its place while it has work, for loading another one costs time in which
nobody draws. It leaves when it has nothing to do, or when others wait and its turn is over: a turn lasts as long as it
must for the loads to stay a tenth of the time. Whoever has waited longest comes next, so nobody starves. A trainer
takes turns too where it takes a place, for all finetunes together; one that has begun is never interrupted. What has no
work leaves for a pool that wants more engines as well, and what does not start for whoever waits.

Consumes what waits and what hosts do; produces orders to leave, and places that are kept for those whose turn it is.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service import wording
from service.allocation import strategy_for
from service.cluster import HostKind, HostState
from service.planner.demand import pending_finetunes, pending_pools, wanted_pools, wants_engine
from service.planner.draft import Draft
from service.planner.health import START_LIMIT_S, has_not_started
from service.planner.places import (
    Room,
    free_places,
    has_gpus,
    most_on_one_node,
    place_holders,
    places_of,
    places_taken,
    rooms,
)
from service.planner.plan import HostView
from service.tasks import Task
from service.work import TaskKind

SWAP_SHARE = 0.1
"""Most of a place's time that loads may take while two have work for longer than their turns."""
GUESSED_LOAD_S = 30.0
"""Load time where neither of two is known [s]."""
REST_S = 3.0
"""An engine that has had no task for this long has nothing coming: tasks follow one another within a tick."""
FINETUNES = "finetunes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Work that waits for a place, with nobody at it.

    Args:
        pool: None for finetunes, which wait for a trainer.
        since: when it began to wait.
        num_places: places that its first engine takes.
    """

    pool: str | None
    since: datetime
    num_places: int

    @property
    def name(self) -> str:
        """For people."""
        return self.pool or FINETUNES


def take_turns(draft: Draft) -> None:
    """Grants free places to those who have waited longest, and has others leave where none is free."""
    if draft.seen.is_draining:
        return
    claims, wanted, promised = find_claims(draft), _wanted(draft), 0
    for claim in claims:
        found = rooms(draft, claim.num_places)
        if not claim.num_places or any(room.free >= claim.num_places for room in found):
            draft.granted.add(claim.pool)
            draft.num_reserved += claim.num_places
            continue
        missing = next(
            (lack for room in found if (lack := _secure(draft, claim, room, wanted, promised)) is not None), None
        )
        if missing is None and not _is_overtaken_enough(draft, claim):
            continue
        # what is free is kept for it as well, or smaller ones would take it again and again
        draft.num_reserved += max(0, free_places(draft))
        if missing is None:
            break  # engines go on until enough of them have had their turns
        promised += missing
    waiting = [claim for claim in claims if claim.pool not in draft.granted]
    _note_waiting(draft, waiting)
    if not waiting:
        _make_room_for_more(draft, wanted)


def find_claims(draft: Draft) -> list[Claim]:
    """Who waits, whoever has waited longest first. What no cluster of this size can hold does not count."""
    claims = [
        Claim(
            pool=name, since=draft.pools[name].waiting_since or draft.now, num_places=places_taken(draft, name)
        )
        for name in pending_pools(draft)
        if draft.pools[name].replicas > 0 and not draft.staying_hosts(HostKind.generator, name)
    ]  # fmt: skip
    finetunes = pending_finetunes(draft) if has_gpus(draft) else []
    if finetunes and not draft.staying_hosts(HostKind.trainer):
        claims.append(Claim(pool=None, since=_finetunes_wait_since(draft, finetunes), num_places=1))
    most = most_on_one_node(draft)
    return sorted((claim for claim in claims if claim.num_places <= most), key=lambda claim: claim.since)


def _finetunes_wait_since(draft: Draft, finetunes: Sequence[Task]) -> datetime:
    """Since the last trainer left, as a pool waits since its engine did, however long they have been there."""
    if any(host.kind is HostKind.trainer for host in draft.hosts.values()):
        return draft.now  # it has just given way
    oldest = min(task.created_at or draft.now for task in finetunes)
    return max(oldest, draft.snapshot.last_trainer_ended_at or oldest)


def must_yield(draft: Draft, host: HostView) -> bool:
    """Whether a host must take nothing new, for its turn is over and somebody waits for its place."""
    needed = 0
    for claim in find_claims(draft):
        if claim.pool in draft.granted or not claim.num_places:
            continue
        needed += claim.num_places
        if _is_over(draft, host, claim) and any(
            _would_help(draft, host, claim, room, needed) for room in rooms(draft, claim.num_places)
        ):
            return True
    return False


def _would_help(draft: Draft, host: HostView, claim: Claim, room: Room, needed: int) -> bool:
    """Whether what waits lacks this host's place, and would then have all that it needs.

    Args:
        needed: places that it and those before it need.
    """
    if all(holder.name != host.name for holder in room.holders):
        return False
    at_hand, wanted = room.free + room.leaving, _wanted(draft)
    gained = sum(
        places_of(draft, holder)
        for holder in room.holders
        if holder.name == host.name or _reason_to_leave(draft, holder, claim, wanted)
    )
    return at_hand < needed and claim.num_places <= at_hand + gained


def turn_s(draft: Draft, holder: str | None, waiting: str | None) -> float:
    """How long a host keeps its place at least, while it has work and `waiting` waits [s].

    Both loads count: that of what waits, and its own, for it will come back. What was never loaded is taken to load as
    long as the other.
    """
    own, other = _load_s(draft, holder), _load_s(draft, waiting)
    known = [load_s for load_s in (own, other) if load_s is not None]
    both = sum(known) if len(known) == 2 else 2 * (known or [GUESSED_LOAD_S])[0]
    return (1 / SWAP_SHARE - 1) * both


def _note_waiting(draft: Draft, claims: list[Claim]) -> None:
    """Remembers since when each pool waits, and says so once."""
    claim_of = {claim.pool: claim for claim in claims}
    for name, pool in list(draft.pools.items()):
        claim = claim_of.get(name)
        since = None if claim is None else claim.since
        if claim is not None and pool.waiting_since is None:
            holders = [_until(draft, host, claim) for host in place_holders(draft)]
            holders += [f"{pool or FINETUNES}, whose turn it is" for pool in sorted(draft.granted, key=str)]
            draft.event(None, "turn_waits", f"{name} waits for a place; taken by {', '.join(holders) or 'nobody'}")
        if pool.waiting_since != since:
            draft.pools[name] = dataclasses.replace(pool, waiting_since=since)


def _until(draft: Draft, host: HostView, claim: Claim) -> str:
    if host.is_stopping:
        return f"{host.name}, which is leaving"
    if host.ready_at is None:
        return f"{host.name}, which is {'starting' if host.state is HostState.starting else 'loading'}"
    had = (draft.now - host.ready_at).total_seconds()
    left = wording.duration(max(0.0, turn_s(draft, host.model, claim.pool) - had))
    return f"{host.name} while it has work, at most {left} more"


def _is_overtaken_enough(draft: Draft, claim: Claim) -> bool:
    """Whether it has waited for a whole turn of anybody, while others that need less were served."""
    longest = max((turn_s(draft, host.model, claim.pool) for host in place_holders(draft)), default=0.0)
    return (draft.now - claim.since).total_seconds() >= longest


def _wanted(draft: Draft) -> frozenset[str | None]:
    """Pools with work, and None where finetunes wait."""
    return frozenset([*wanted_pools(draft), *([None] if pending_finetunes(draft) else [])])


def _secure(draft: Draft, claim: Claim, room: Room, wanted: frozenset[str | None], promised: int) -> int | None:
    """Places that are not free yet but about to be, with which the room is enough; None if it cannot be had now.

    Args:
        wanted: see `_wanted`.
        promised: places about to be free that are for those before it.
    """
    missing = claim.num_places - room.free
    lacking = missing - max(0, room.leaving - promised)
    return missing if _make_room(draft, claim, room.holders, wanted, lacking) >= lacking else None


def _make_room(
    draft: Draft, claim: Claim, holders: Sequence[HostView], wanted: frozenset[str | None], missing: int
) -> int:
    """Has hosts leave until `missing` more places are about to be free; none if that many cannot be; how many are."""
    leave = [(reason, host) for host in holders if (reason := _reason_to_leave(draft, host, claim, wanted))]
    return _have_leave(draft, claim, leave, missing)


def _make_room_for_more(draft: Draft, wanted: frozenset[str | None]) -> None:
    """Has what has no work leave for pools that have engines and want more."""
    for name in wanted_pools(draft):
        if not 0 < len(draft.staying_hosts(HostKind.generator, name)) < draft.pools[name].replicas:
            continue
        claim = Claim(pool=name, since=draft.now, num_places=places_taken(draft, name))
        for room in rooms(draft, claim.num_places):
            lacking = claim.num_places - room.free - room.leaving
            spare = [((0, why), host) for host in room.holders if (why := _why_spare(draft, host, wanted))]
            if lacking <= 0 or _have_leave(draft, claim, spare, lacking):
                return  # one at a time: the place is taken before another one is looked for


def _why_spare(draft: Draft, host: HostView, wanted: frozenset[str | None]) -> str | None:
    """Why a host is not missed where it is; None if it may be: an operator keeps it, or it might soon load again."""
    pool = draft.pools.get(host.model or "")
    num_kept = 0 if pool is None else min(pool.minimum, pool.replicas)
    if host.is_stopping or host.model in wanted or not host.has_been_ready or not places_of(draft, host):
        return None
    if len(draft.staying_hosts(host.kind, host.model)) <= num_kept:
        return None
    # who has waited for work as long as a load takes has lost as much as a load would cost
    has_rested = draft.rested_s(host) > (_load_s(draft, host.model) or GUESSED_LOAD_S)
    return f"it has had no work for {wording.duration(draft.rested_s(host))}" if has_rested else None


def _have_leave(
    draft: Draft, claim: Claim, leave: list[tuple[tuple[int, str], HostView]], missing: int
) -> int:  # fmt: skip
    """Has as many of them leave as are needed; see `_make_room`."""
    if missing <= 0:
        return 0
    # those without work first, then whoever has had a place for longest
    leave.sort(key=lambda item: (item[0][0], item[1].ready_at or item[1].created_at))
    chosen: list[tuple[tuple[int, str], HostView]] = []
    while leave and sum(places_of(draft, host) for _, host in chosen) < missing:
        chosen.append(leave.pop(0))
    made = sum(places_of(draft, host) for _, host in chosen)
    if made < missing:
        return 0
    for (_, why), host in chosen:
        waited = wording.duration((draft.now - claim.since).total_seconds())
        draft.event(None, "turn_taken", f"{host.name} leaves for {claim.name}, which waited {waited}: {why}")
        draft.stop_host(host.name)
        if host.model in draft.pools:
            pool = draft.pools[host.model]
            draft.pools[host.model] = dataclasses.replace(pool, num_turns=pool.num_turns + 1)
    return made


def _reason_to_leave(
    draft: Draft, host: HostView, claim: Claim, wanted: frozenset[str | None]
) -> tuple[int, str] | None:
    """Why the host may make room, with its rank: lower ones leave first. None if it stays."""
    if host.is_stopping or host.model == claim.pool or not places_of(draft, host):
        return None
    if not host.has_been_ready:
        limit = wording.duration(START_LIMIT_S)
        return (0, f"it has not started for {limit}") if has_not_started(draft, host) else None
    is_idle = host.idle_since is not None and not draft.tasks_on(host.name)  # it may just have been given one
    if is_idle and host.model not in wanted:
        return 0, "it has no work"
    if is_idle and draft.rested_s(host) > REST_S and not _has_work_coming(draft, host):
        return 1, "it has nothing to do now"
    if _is_over(draft, host, claim) and (is_idle or host.kind is HostKind.generator):
        limit = wording.duration(turn_s(draft, host.model, claim.pool))
        return 2, f"its turn of {limit} is over"
    return None


def _is_over(draft: Draft, host: HostView, claim: Claim) -> bool:
    since = host.ready_at or host.created_at
    return (draft.now - since).total_seconds() >= turn_s(draft, host.model, claim.pool)


def _has_work_coming(draft: Draft, host: HostView) -> bool:
    """Whether something that needs no place is about to give the engine work: prompts, or scores that it depends on."""
    return host.model is not None and any(
        _is_fed_by_dispatcher(draft, job.id)
        for job in draft.jobs.values()
        if any(spec.pool == host.model and wants_engine(draft, job, spec.name) for spec in job.models)
    )


def _is_fed_by_dispatcher(draft: Draft, job_id: str) -> bool:
    job = draft.jobs[job_id]
    scores = draft.job_tasks(job_id, TaskKind.score)
    is_behind = len(scores) >= draft.options.max_unscored_parts
    is_adaptive = strategy_for(job.spec, job.num_problems).is_adaptive
    return bool(draft.job_tasks(job_id, TaskKind.prepare)) or is_behind or (is_adaptive and bool(scores))


def _load_s(draft: Draft, pool: str | None) -> float | None:
    """How long the last engine of the pool, or the living trainer, took to load [s]; None if none ever did."""
    if pool in draft.pools:
        return draft.pools[pool].load_s
    return next((host.load_s for host in draft.living_hosts(HostKind.trainer) if host.load_s is not None), None)
