"""Jobs of other kinds than generation: selections and finetunes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the kind; every job so far generates."""
    op.add_column("jobs", sa.Column("kind", sa.String(length=20), nullable=False, server_default="generate"))
    op.create_index("ix_jobs_kind", "jobs", ["kind"])
