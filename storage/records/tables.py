"""The schema. A change here needs a migration in `migrations/versions`; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware datetime, in UTC on either side; SQLite itself keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def _id() -> Column[str]:
    return Column("id", String(32), primary_key=True)


def _created() -> Column[datetime]:
    return Column("created", Moment, nullable=False)


def _of(table: str) -> ForeignKey:
    return ForeignKey(f"{table}.id", ondelete="CASCADE")


# none_as_null: an absent value is SQL's NULL, not the JSON text "null".
_json = JSON(none_as_null=True)

users = Table(
    "users",
    metadata,
    _id(),
    Column("platform", String(32), nullable=False),
    Column("platform_id", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    _created(),
    # The account that owns this person's avatars and jobs; null if it is this one.
    Column("person_id", String(32), ForeignKey("users.id"), index=True),
    Column("banned", Moment),
    Column("quota", _json),
    UniqueConstraint("platform", "platform_id"),
)

avatars = Table(
    "avatars",
    metadata,
    _id(),
    Column("owner_id", String(32), _of("users"), nullable=False),
    Column("token", String(64), nullable=False),
    Column("noun", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("adapter_key", String(255)),
    Column("details", _json, nullable=False),
    _created(),
    # The token that it was trained with, if it was renamed since.
    Column("word", String(64)),
    # When its owner made it the default; the avatar with the latest time is the default.
    Column("preferred", Moment),
)
Index(
    "uq_avatars_live_token",
    avatars.c.owner_id,
    avatars.c.token,
    unique=True,
    sqlite_where=text("state != 'failed'"),
    postgresql_where=text("state != 'failed'"),
)

photos = Table(
    "photos",
    metadata,
    _id(),
    Column("avatar_id", String(32), _of("avatars"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", String(255), nullable=False),
    Column("verdict", _json),
    UniqueConstraint("avatar_id", "position"),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),
    Column("user_id", String(32), _of("users"), nullable=False, index=True),
    Column("frontend", String(32), nullable=False),
    Column("room", String(255), nullable=False),
    Column("payload", _json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    _created(),
    Column("started", Moment),
    Column("finished", Moment),
    Column("result", _json),
    Column("error", _json),
    Column("cancel_requested", Boolean, nullable=False),
    Column("progress_ref", String(255)),
    Column("delivered", Moment),
    # Job.grant_scope: the room that the request came from, named as in grants.
    Column("place", String(255)),
    # The language of the request; null if it is not known.
    Column("language", String(16)),
    # What the platform delivered, such as "telegram:<update id>", so that a second delivery makes no second job.
    Column("request", String(255)),
    Index("uq_jobs_user_id_request", "user_id", "request", unique=True),
    Index("ix_jobs_state_kind_created", "state", "kind", "created"),
)

pictures = Table(
    "pictures",
    metadata,
    _id(),
    Column("job_id", String(32), _of("jobs"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", String(255), nullable=False),
    Column("seed", BigInteger, nullable=False),
    _created(),
    UniqueConstraint("job_id", "position"),
)

grants = Table(
    "grants",
    metadata,
    _id(),
    Column("avatar_id", String(32), _of("avatars"), nullable=False),
    Column("grantee_kind", String(8), nullable=False),
    Column("grantee_id", String(255), nullable=False),
    _created(),
    Column("expires", Moment),
    UniqueConstraint("avatar_id", "grantee_kind", "grantee_id"),
)

consents = Table(
    "consents",
    metadata,
    _id(),
    Column("user_id", String(32), _of("users"), nullable=False),
    Column("avatar_id", String(32), _of("avatars"), nullable=False, index=True),
    Column("version", String(32), nullable=False),
    _created(),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("room", String(255), nullable=False),
    Column("author", String(255), nullable=False),
    Column("body", _json, nullable=False),
    Column("dedupe", String(255)),
    _created(),
    UniqueConstraint("room", "dedupe"),
    Index("ix_messages_room_id", "room", "id"),
    # Otherwise SQLite would reuse the id of a deleted last message.
    sqlite_autoincrement=True,
)

link_codes = Table(
    "link_codes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("user_id", String(32), _of("users"), nullable=False, index=True),
    Column("expires", Moment, nullable=False),
)

server = Table(
    "server",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", _json, nullable=False),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column("fingerprint", String(64), primary_key=True),
    Column("banned", Moment),
    Column("spent", _json, nullable=False),
    Column("until", Moment, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    _id(),
    Column("frontend", String(32), nullable=False, index=True),
    Column("room", String(255), nullable=False),
    Column("text", String(4000), nullable=False),
    _created(),
)

notes = Table(
    "notes",
    metadata,
    Column("space", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body", _json, nullable=False),
    _created(),
    # The account that it is about, as platform:id, so that it is deleted when that person is erased. It needs no row of
    # `users`: people may send photos before their first command.
    Column("owner", String(300), index=True),
)
