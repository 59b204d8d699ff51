"""Usage by arm. Which arm it was is not on record where a job spelled its arms out; elsewhere each model was one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column of the key."""
    with op.batch_alter_table("usage") as batch:
        batch.add_column(sa.Column("arm", sa.String(length=200), nullable=False, server_default=""))
        batch.drop_constraint("pk_usage", type_="primary")
        batch.create_primary_key("pk_usage", ["job_id", "model", "arm", "stage", "outcome", "bucket"])
    op.execute(
        "UPDATE usage SET arm = model WHERE NOT EXISTS "
        "(SELECT 1 FROM tasks WHERE tasks.job_id = usage.job_id AND tasks.arm <> tasks.model)"
    )
