"""Jobs of other kinds than generation: selections, finetunes, and comparisons with their children."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every job so far generates, and was not counted for its right answers: only comparisons ask for that number."""
    op.add_column("jobs", sa.Column("kind", sa.String(length=20), nullable=False, server_default="generate"))
    op.add_column("jobs", sa.Column("num_correct", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_jobs_kind", "jobs", ["kind"])
    op.create_table(
        "children",
        sa.Column("comparison_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=400), nullable=False),
        sa.Column("child_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["comparison_id"], ["jobs.id"], name=op.f("fk_children_comparison_id_jobs")),
        sa.ForeignKeyConstraint(["child_id"], ["jobs.id"], name=op.f("fk_children_child_id_jobs")),
        sa.PrimaryKeyConstraint("comparison_id", "key", name=op.f("pk_children")),
    )
    op.create_index("ix_children_child_id", "children", ["child_id"])
