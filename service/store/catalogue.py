"""Models, problem sets and pools: what jobs can name."""

import dataclasses
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, insert, select, update

from service.endpoints import LIMITS
from service.errors import Conflict, InvalidInput, UnknownName
from service.forward_cost import ForwardCost
from service.models import ModelSpec
from service.planner.plan import PoolView
from service.pricing import Price
from service.problems import ProblemSet
from service.store import schema
from service.store.codec import from_json, to_json
from service.store.rows import pool_from_row

DEFAULT_IDLE_S = 600.0
MAX_REPLICAS = 4096
_CHECKPOINT_NAME = re.compile(r"finetune-\d+-[0-9a-f]+/.*", re.DOTALL)
"""Names that checkpoints get while they are trained, which must be free then."""
_SELECTION_ID = re.compile(r"select-\d+-[0-9a-f]+")


def is_selection_id(name: str) -> bool:
    """Whether a name means the rows of a selection, where a problem set is named; no set has such a name."""
    return _SELECTION_ID.fullmatch(name) is not None


class Catalogue:
    """Registration is idempotent: the same content under the same name stays what it is, other content is refused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register_model(self, spec: ModelSpec) -> ModelSpec:
        """Stores a model and its pool; checkpoints and adapters have none, the pool of their base serves them.

        An adapter without a price of its own gets the one that its base has now.

        A known one keeps its name, price and limits, and gets what follows from its files as they were read now; so do
        its checkpoints. Jobs keep what they were submitted with.

        Raises:
            Conflict: the name stands for another revision, its tokens have another price, or its server other limits.
            UnknownName: the base of a checkpoint is not registered.
            InvalidInput: that base is a checkpoint itself, or the name is one that a finetune will give.
        """
        if not spec.is_student and _CHECKPOINT_NAME.fullmatch(spec.name):
            raise InvalidInput(f"name: got {spec.name!r}, allowed: one that no checkpoint of a finetune may get")
        if spec.base is not None and (root := self.model(spec.base).base) is not None:
            raise InvalidInput(
                f"model {spec.name!r}: its base {spec.base!r} is a checkpoint of {root!r}; name that one"
            )
        price = spec.price
        if price is None and spec.adapter is not None:
            price = self.model(spec.adapter.base).price
        with self._engine.begin() as connection:
            known = _find(connection, schema.models, spec.name)
            if known is not None:
                stored = from_json(ModelSpec, known)
                known_as, given = _identity(stored), _identity(spec)
                if others := [name for name in (*known_as, *given) if known_as.get(name) != given.get(name)]:
                    changed = ", ".join(
                        f"{name} {_shown(known_as.get(name))} (got {_shown(given.get(name))})"
                        for name in dict.fromkeys(others)
                    )
                    raise Conflict(f"model {spec.name!r} is registered with {changed}; register it under another name")
                if spec.price is not None and spec.price != stored.price:
                    raise Conflict(
                        f"model {spec.name!r} has another price; it is changed by PATCH /v1/models/{spec.name}"
                    )
                _check_limits(stored, spec)
                return _refresh(connection, stored, spec)
            spec = dataclasses.replace(spec, price=price)
            connection.execute(
                insert(schema.models).values(name=spec.name, document=to_json(spec), created_at=datetime.now(UTC))
            )
            if spec.base is None:
                connection.execute(
                    insert(schema.pools).values(
                        model=spec.name,
                        replicas=1,
                        minimum=0,
                        idle_s=DEFAULT_IDLE_S,
                        failures=0,
                        version=1,
                        num_turns=0,
                    )
                )
            return spec

    def change_price(self, name: str, price: Price | None) -> ModelSpec:
        """Sets what a model's tokens cost from now on; jobs keep the price that they were submitted with.

        Raises:
            UnknownName: no such model.
        """
        with self._engine.begin() as connection:
            spec = dataclasses.replace(self._model(connection, name), price=price)
            _write(connection, spec)
        return spec

    def change_limits(self, name: str, changes: Mapping[str, float | None]) -> ModelSpec:
        """Sets how a model's server is treated from now on; jobs keep the limits that they were submitted with.

        Args:
            changes: new values of fields of `EndpointOptions`, each one of `LIMITS`.

        Raises:
            UnknownName: no such model.
            InvalidInput: a model without a server, or a value out of range.
        """
        if others := sorted(changes.keys() - set(LIMITS)):
            raise ValueError(f"limits of a server, got {', '.join(others)}")
        with self._engine.begin() as connection:
            spec = self._model(connection, name)
            if spec.endpoint is None:
                raise InvalidInput(f"endpoint: got limits for {name!r}, which is loaded here; allowed: for an endpoint")
            endpoint = dataclasses.replace(spec.endpoint, **changes)  # type: ignore[arg-type]
            spec = dataclasses.replace(spec, endpoint=endpoint)
            _write(connection, spec)
        return spec

    def register_problems(self, problems: ProblemSet) -> ProblemSet:
        """Stores a problem set.

        Raises:
            Conflict: the name stands for other rows.
            InvalidInput: the name is one that a selection has.
        """
        if is_selection_id(problems.name):
            raise InvalidInput(f"name: got {problems.name!r}, allowed: one that no selection may get")
        with self._engine.begin() as connection:
            known = _find(connection, schema.problem_sets, problems.name)
            if known is not None:
                stored = from_json(ProblemSet, known)
                if stored.fingerprint != problems.fingerprint:
                    raise Conflict(
                        f"problem set {problems.name!r} is registered with {stored.num_problems} other problems "
                        f"({stored.fingerprint[:19]}); got {problems.fingerprint[:19]}; use another name"
                    )
                return stored
            connection.execute(
                insert(schema.problem_sets).values(
                    name=problems.name, document=to_json(problems), created_at=datetime.now(UTC)
                )
            )
            return problems

    def models(self) -> list[ModelSpec]:
        """Every model in the order of registration, so that a new one shifts nobody's place or colour."""
        models = schema.models
        return [from_json(ModelSpec, text) for text in self._documents(models, models.c.created_at, models.c.name)]

    def problem_sets(self) -> list[ProblemSet]:
        """Every problem set, by name."""
        sets = schema.problem_sets
        return [from_json(ProblemSet, text) for text in self._documents(sets, sets.c.name)]

    def model(self, name: str) -> ModelSpec:
        """One model.

        Raises:
            UnknownName: no such model.
        """
        with self._engine.begin() as connection:
            return self._model(connection, name)

    def _model(self, connection: Connection, name: str) -> ModelSpec:
        document = _find(connection, schema.models, name)
        if document is None:
            names = connection.execute(select(schema.models.c.name).order_by(schema.models.c.name)).scalars()
            raise UnknownName(kind="model", got=name, allowed=list(names))
        return from_json(ModelSpec, document)

    def problem_set(self, name: str) -> ProblemSet:
        """One problem set.

        Raises:
            UnknownName: no such set.
        """
        with self._engine.begin() as connection:
            document = _find(connection, schema.problem_sets, name)
        if document is None:
            raise UnknownName(kind="problem set", got=name, allowed=[item.name for item in self.problem_sets()])
        return from_json(ProblemSet, document)

    def pools(self) -> list[PoolView]:
        """Every pool, by model."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(schema.pools).order_by(schema.pools.c.model)).mappings()
            return [pool_from_row(row) for row in rows]

    def pool(self, model: str) -> PoolView:
        """One pool.

        Raises:
            UnknownName: no such model.
        """
        found = {pool.model: pool for pool in self.pools()}
        if model not in found:
            raise UnknownName(kind="pool", got=model, allowed=found)
        return found[model]

    def change_pool(
        self,
        model: str,
        *,
        replicas: int | None = None,
        minimum: int | None = None,
        idle_s: float | None = None,
        version: int | None = None,
    ) -> PoolView:
        """Sets what operators decide of a pool.

        Args:
            version: the version the caller saw; another one stored is a conflict.

        Raises:
            UnknownName: no such model.
            InvalidInput: numbers out of range.
            Conflict: somebody else changed the pool since.
        """
        pool = self.pool(model)
        replicas = pool.replicas if replicas is None else replicas
        minimum = pool.minimum if minimum is None else minimum
        idle_s = pool.idle_s if idle_s is None else idle_s
        if not 0 <= replicas <= MAX_REPLICAS:
            raise InvalidInput(f"replicas: got {replicas}, allowed: 0 to {MAX_REPLICAS}")
        if not 0 <= minimum <= replicas:
            raise InvalidInput(f"min: got {minimum}, allowed: 0 to replicas ({replicas})")
        if not idle_s >= 0:
            raise InvalidInput(f"idle_s: got {idle_s}, allowed: >= 0 seconds")
        pools = schema.pools
        seen = pool.version if version is None else version
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(pools)
                .where((pools.c.model == model) & (pools.c.version == seen))
                .values(replicas=replicas, minimum=minimum, idle_s=idle_s, version=seen + 1)
            )
        if changed.rowcount != 1:
            raise Conflict(f"pool {model!r}: you saw version {seen}, it is {self.pool(model).version} now")
        return self.pool(model)

    def _documents(self, table: Table, *order: Column[Any]) -> list[str]:
        with self._engine.begin() as connection:
            return list(connection.execute(select(table.c.document).order_by(*order)).scalars())


def _identity(spec: ModelSpec) -> dict[str, object]:
    """What registering a model again must not change, by the names of fields."""
    values: dict[str, object] = {"revision": spec.revision, "base": spec.base}
    for part in ("engine", "endpoint"):
        if (options := getattr(spec, part)) is not None:
            values |= {f"{part}.{name}": value for name, value in dataclasses.asdict(options).items()}
    if spec.adapter is not None:
        values |= {"adapter.base": spec.adapter.base, "adapter.revision": spec.adapter.revision}
    if spec.endpoint is not None:
        for name in (*LIMITS, "api_key_env"):
            del values[f"endpoint.{name}"]
        # what is traced follows from files, which are in the revision; the rest was declared
        values |= {"context_len": spec.context_len, "FLOP coefficients": "traced" if spec.cost.is_traced else spec.cost}
    return values


def _check_limits(stored: ModelSpec, spec: ModelSpec) -> None:
    if stored.endpoint is None or spec.endpoint is None:
        return
    known, given = stored.endpoint, spec.endpoint
    if others := [name for name in LIMITS if getattr(known, name) != getattr(given, name)]:
        changed = ", ".join(f"{name} {_shown(getattr(known, name))} (got {getattr(given, name)})" for name in others)
        raise Conflict(f"model {spec.name!r} has other limits: {changed}; PATCH /v1/models/{spec.name} changes them")


def _refresh(connection: Connection, stored: ModelSpec, read: ModelSpec) -> ModelSpec:
    """The stored model with what follows from its files as they were read now, which a release may read better."""
    derived = {"context_len": read.context_len, "cost": read.cost, "sampling": read.sampling}
    fresh = dataclasses.replace(stored, path=read.path, endpoint=read.endpoint, adapter=read.adapter, **derived)
    if fresh == stored:
        return stored
    _write(connection, fresh)
    for document in connection.execute(select(schema.models.c.document)).scalars().all():
        checkpoint = from_json(ModelSpec, document)
        if checkpoint.base == stored.name:
            _write(connection, dataclasses.replace(checkpoint, **derived))
    return fresh


def _write(connection: Connection, spec: ModelSpec) -> None:
    models = schema.models
    connection.execute(update(models).where(models.c.name == spec.name).values(document=to_json(spec)))


def _shown(value: object) -> str:
    """Of a digest its beginning; of coefficients how many parameters they are of."""
    if isinstance(value, ForwardCost):
        return f"of {value.parameters:,} parameters" if value.parameters else "unknown"
    return "none" if value is None else str(value)[:40]


def _find(connection: Any, table: Table, name: str) -> str | None:
    document: str | None = connection.execute(select(table.c.document).where(table.c.name == name)).scalar()
    return document
