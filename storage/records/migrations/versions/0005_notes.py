"""Notes: values that frontends store, and the accounts that they are about."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("space", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.String(length=300)),
        sa.PrimaryKeyConstraint("space", "key", name=op.f("pk_notes")),
    )
    op.create_index(op.f("ix_notes_owner"), "notes", ["owner"], unique=False)
