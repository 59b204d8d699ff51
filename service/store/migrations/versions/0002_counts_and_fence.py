"""Jobs count their samples, errors and engine deaths, so that a tick need not add up their history; the fence."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the counts, samples and errors filled from the rollups, and a fence that nobody holds."""
    table = op.create_table(
        "controller",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_controller")),
    )
    op.bulk_insert(table, [{"id": 1, "fence": 0, "holder": "nobody"}])
    for name in ("num_samples", "num_errors", "num_engine_deaths"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    for name, source in (("num_samples", "samples"), ("num_errors", "errors")):
        op.execute(
            f"UPDATE jobs SET {name} = (SELECT COALESCE(SUM(u.{source}), 0) FROM usage u WHERE u.job_id = jobs.id "
            "AND u.stage = 'generate' AND u.outcome IN ('useful', 'truncated'))"
        )
