"""What operators decide: bans, quotas, a pause, notices to all; and the little that outlives an erasure."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("banned", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("quota", sa.JSON(none_as_null=True)))
    op.create_table(
        "server",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server")),
    )
    op.create_table(
        "forgotten",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("banned", sa.DateTime(timezone=True)),
        sa.Column("spent", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_forgotten")),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("frontend", sa.String(length=32), nullable=False),
        sa.Column("room", sa.String(length=255), nullable=False),
        sa.Column("text", sa.String(length=4000), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(op.f("ix_notices_frontend"), "notices", ["frontend"], unique=False)
