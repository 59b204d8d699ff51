"""Tables. SQLite by default, PostgreSQL by URL; changed only through Alembic migrations.

Amounts are 64-bit integers in ledger units. Documents (specs) are JSON text written and read through `codec`, never
queried into. Times are UTC ISO strings in `DateTime` columns with time zone dropped on SQLite; `codec` puts it back.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("document", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

problem_sets = Table(
    "problem_sets",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("document", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("kind", String(20), nullable=False, server_default="generate"),
    Column("name", String(200), nullable=False),
    Column("document", Text, nullable=False),
    Column("resolved", Text, nullable=False),
    Column("idempotency_key", String(200), unique=True),
    Column("request_sha256", String(64), nullable=False),
    Column("desired", String(20), nullable=False),
    Column("phase", String(30), nullable=False, index=True),
    Column("closing", Text),
    Column("error", Text),
    Column("num_samples", BigInteger, nullable=False, server_default="0"),
    Column("num_errors", BigInteger, nullable=False, server_default="0"),
    Column("num_correct", BigInteger, nullable=False, server_default="0"),
    Column("num_engine_deaths", BigInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Index("ix_jobs_kind_phase", "kind", "phase"),
)

children = Table(
    "children",
    metadata,
    Column("comparison_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("key", String(400), primary_key=True),
    Column("child_id", String(40), ForeignKey("jobs.id"), nullable=False, index=True),
)
"""Which job, selection or finetune is which node of a comparison; comparisons share those they both ask for."""

controller = Table(
    "controller",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("holder", String(300), nullable=False),
)
"""One row: the number of the controller that may commit, and who it is."""

prepared = Table(
    "prepared",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("arm", String(200), primary_key=True),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("facts", Text, nullable=False),
    Column("excluded", LargeBinary),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(60), primary_key=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("order", Integer, nullable=False),
    Column("model", String(200), nullable=False),
    Column("arm", String(200), nullable=False, server_default=""),
    Column("state", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("host", String(200)),
    Column("runs", LargeBinary),
    Column("source_attempt", String(80)),
    Column("source_part", Integer),
    Column("source_path", Text),
    Column("source_sha256", String(64)),
    Column("num_planned", Integer, nullable=False),
    Column("credit", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("settled_value", Float, nullable=False),
    Column("grant_version", Integer, nullable=False),
    Column("is_final_sent", Boolean, nullable=False),
    Column("num_parts", Integer, nullable=False),
    Column("busy_s", Float, nullable=False, server_default="0"),
    Column("written_s", Float, nullable=False, server_default="0"),
    Column("num_lost", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("not_before", DateTime(timezone=True)),
    Column("submitted_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("error", Text),
    Index("ix_tasks_job_state", "job_id", "state"),
    Index("ix_tasks_job_order", "job_id", "order"),
    Index("ix_tasks_state", "state"),
)

parts = Table(
    "parts",
    metadata,
    Column("attempt_id", String(80), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("task_id", String(60), ForeignKey("tasks.id"), nullable=False, index=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("arm", String(200), nullable=False, server_default=""),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("usage", Text, nullable=False),
    Column("indices", LargeBinary),
    Column("source_attempt", String(80)),
    Column("source_part", Integer),
    Column("committed_at", DateTime(timezone=True), nullable=False),
    Index("ix_parts_job_kind", "job_id", "kind"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("currency", String(20), nullable=False),
    Column("limit", BigInteger),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("exceeded", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("spent >= 0 AND reserved >= 0", name="not_negative"),
    CheckConstraint('"limit" IS NULL OR spent + reserved <= "limit"', name="within_limit"),
)

transfers = Table(
    "transfers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account", String(100), ForeignKey("accounts.id"), nullable=False, index=True),
    Column("attempt_id", String(80), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("number", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("account", "attempt_id", "kind", "number"),
)

usage = Table(
    "usage",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("arm", String(200), primary_key=True, server_default=""),
    Column("stage", String(20), primary_key=True),
    Column("outcome", String(20), primary_key=True),
    Column("bucket", DateTime(timezone=True), primary_key=True),
    Column("samples", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("truncated", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("flops", Float),
    Column("flops_paper", Float),
    Column("busy_s", Float, nullable=False),
    Column("gpu_s", Float, nullable=False, server_default="0"),
    Column("cpu_s", Float, nullable=False, server_default="0"),
    Column("nano_usd", Float),
)
"""Null is not known: of a model without FLOP coefficients or price, or used before prices were kept."""

hosts = Table(
    "hosts",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("model", String(200)),
    Column("state", String(20), nullable=False, index=True),
    Column("is_stopping", Boolean, nullable=False),
    Column("has_been_ready", Boolean, nullable=False),
    Column("error", Text),
    Column("load_s", Float),
    Column("pid", Integer),
    Column("node", String(200)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("ready_at", DateTime(timezone=True)),
    Column("idle_since", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("gpus", Integer, nullable=False, server_default="0"),
    Column("cores", Integer, nullable=False, server_default="0"),
    Column("held_s", Float, nullable=False, server_default="0"),
    Column("start_s", Float, nullable=False, server_default="0"),
    Column("busy_s", Float, nullable=False, server_default="0"),
    Column("swap_s", Float, nullable=False, server_default="0"),
    Column("num_swaps", Integer, nullable=False, server_default="0"),
)

pools = Table(
    "pools",
    metadata,
    Column("model", String(200), ForeignKey("models.name"), primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("minimum", Integer, nullable=False),
    Column("idle_s", Float, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("waiting_since", DateTime(timezone=True)),
    Column("load_s", Float),
    Column("num_turns", Integer, nullable=False, server_default="0"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", String(40), index=True),
    Column("kind", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)
