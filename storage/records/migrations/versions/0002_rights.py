"""Grants that end, a default avatar, names that change, and where a drawing was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("avatars", sa.Column("word", sa.String(length=64)))
    op.add_column("avatars", sa.Column("preferred", sa.DateTime(timezone=True)))
    op.add_column("grants", sa.Column("expires", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("place", sa.String(length=255)))
    # A room is one of its platform's from now on; until now only the local chat's could have a grant.
    op.execute(sa.text("UPDATE grants SET grantee_id = 'chat:' || grantee_id WHERE grantee_kind = 'room'"))
