"""Device time: what jobs used of it, and what hosts held it for."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Columns for what is counted from now on. Which devices worked before is not on record: each counts as a core."""
    for name in ("gpu_s", "cpu_s"):
        op.add_column("usage", _seconds(name))
    usage = sa.table("usage", sa.column("busy_s"), sa.column("cpu_s"))
    op.execute(usage.update().values(cpu_s=usage.c.busy_s))
    for name in ("held_s", "start_s", "busy_s", "swap_s"):
        op.add_column("hosts", _seconds(name))
    for name in ("gpus", "cores", "num_swaps"):
        op.add_column("hosts", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("accounts", sa.Column("exceeded", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("busy_s", "written_s"):
        op.add_column("tasks", _seconds(name))


def _seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False, server_default="0")
