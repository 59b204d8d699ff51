"""Active rows of a kind are found without going through those that have ended, of which a comparison has thousands."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """An index of kind and phase takes the place of the one of kind."""
    op.create_index("ix_jobs_kind_phase", "jobs", ["kind", "phase"])
    op.drop_index("ix_jobs_kind", table_name="jobs")
