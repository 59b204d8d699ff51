"""Pools remember since when they wait, how long their engine takes to load and how often it left; hosts, when ready."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; nothing is known of what was before."""
    op.add_column("hosts", sa.Column("ready_at", sa.DateTime(timezone=True)))
    op.add_column("pools", sa.Column("waiting_since", sa.DateTime(timezone=True)))
    op.add_column("pools", sa.Column("load_s", sa.Float()))
    op.add_column("pools", sa.Column("num_turns", sa.Integer(), nullable=False, server_default="0"))
