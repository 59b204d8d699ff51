"""Usage in USD, and amounts that nobody can tell."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Null is not known. What was used so far was never priced in USD."""
    with op.batch_alter_table("usage") as batch:
        batch.add_column(sa.Column("nano_usd", sa.Float()))
        batch.alter_column("flops", existing_type=sa.Float(), nullable=True)
        batch.alter_column("flops_paper", existing_type=sa.Float(), nullable=True)
