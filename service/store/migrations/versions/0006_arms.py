"""Tasks, files and prompts belong to arms of a job. Until now each model was one, under its own name."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Names the arm of everything there is after its model. Prompts are found by arm from now on."""
    for table in ("tasks", "parts"):
        op.add_column(table, sa.Column("arm", sa.String(length=200), nullable=False, server_default=""))
        op.execute(f"UPDATE {table} SET arm = model")
    # Alembic has no rename for SQLite, both databases do
    op.execute("ALTER TABLE prepared RENAME COLUMN model TO arm")
