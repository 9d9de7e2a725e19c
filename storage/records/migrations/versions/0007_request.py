"""The request that made a job, unique among its person's jobs, so that a second delivery makes no second job."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request", sa.String(length=255)))
    # An index instead of a constraint: SQLite adds no constraint to a table that exists. Nulls are distinct in it.
    op.create_index("uq_jobs_user_id_request", "jobs", ["user_id", "request"], unique=True)
