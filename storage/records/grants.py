"""Grants: who may draw somebody else's avatar."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select

from storage.jobs import TERMINAL
from storage.records import tables
from storage.records.database import Database, one
from storage.records.jobs import jobs_about
from storage.records.rows import Grant, GranteeKind, Job


def live_grants(now: datetime, avatar_id: str | None = None) -> ColumnElement[bool]:
    """Whether a grant, of this avatar if one is given, has not ended."""
    table = tables.grants
    lives = or_(table.c.expires.is_(None), table.c.expires > now)
    return and_(lives, table.c.avatar_id == avatar_id) if avatar_id is not None else lives


class Grants:
    """Owners' permissions to rooms and other users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, avatar_id: str, grantee_kind: GranteeKind, grantee_id: str, lifetime: timedelta | None = None
    ) -> Grant:
        """Let a room or a user draw this avatar, for good or for `lifetime`. It replaces an earlier grant's end.

        Raises UserError missing_avatar.
        """
        table = tables.grants
        key = {"avatar_id": avatar_id, "grantee_kind": grantee_kind, "grantee_id": grantee_id}
        async with self._database.write() as connection:
            await one(connection, select(tables.avatars.c.id).where(tables.avatars.c.id == avatar_id), "missing_avatar")
            now = self._database.now()
            await connection.execute(table.delete().where(table.c.expires <= now))
            expires = now + lifetime if lifetime else None
            update = table.update().filter_by(**key).values(expires=expires).returning(table)
            row = (await connection.execute(update)).one_or_none()
            if row is None:
                insert = table.insert().values(**self._database.new_row(), **key, expires=expires).returning(table)
                row = (await connection.execute(insert)).one()
            return Grant(**row._mapping)

    async def revoke(self, avatar_id: str, grantee_kind: GranteeKind, grantee_id: str) -> bool:
        """Take a grant back. False if there was none."""
        table = tables.grants
        where = (
            table.c.avatar_id == avatar_id,
            table.c.grantee_kind == grantee_kind,
            table.c.grantee_id == grantee_id,
        )
        async with self._database.write() as connection:
            return bool((await connection.execute(table.delete().where(*where))).rowcount)

    async def get(self, grant_id: str) -> Grant | None:
        """The grant, or None if it is unknown, ended or revoked."""
        live = live_grants(self._database.now())
        row = await self._database.first(select(tables.grants).where(tables.grants.c.id == grant_id, live))
        return Grant(**row._mapping) if row else None

    async def for_avatar(self, avatar_id: str) -> list[Grant]:
        """The grants of this avatar that have not ended, oldest first."""
        query = select(tables.grants).where(live_grants(self._database.now(), avatar_id))
        return [Grant(**row._mapping) for row in await self._database.rows(query.order_by(tables.grants.c.created))]

    async def unauthorized_jobs(self, avatar_id: str) -> list[Job]:
        """The jobs under way that draw this avatar for somebody who neither owns it nor has a grant for it now."""
        users, now = tables.users, self._database.now()
        query = select(users.c.id, users.c.banned).join(tables.avatars, tables.avatars.c.owner_id == users.c.id)
        async with self._database.read() as connection:
            owner = (await connection.execute(query.where(tables.avatars.c.id == avatar_id))).one_or_none()
            granted: set[tuple[str, str]] = set()
            if owner is not None and not owner.banned:
                grants = await connection.execute(select(tables.grants).where(live_grants(now, avatar_id)))
                granted = {(grant.grantee_kind, grant.grantee_id) for grant in grants}
            return [
                job
                for job in await jobs_about(connection, [avatar_id])
                if job.state not in TERMINAL
                and (owner is None or job.user_id != owner.id)
                and not granted & {("user", job.user_id), ("room", job.grant_scope or f"{job.frontend}:{job.room}")}
            ]
