"""Avatars, their photos and their owners' consent."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, or_, select
from sqlalchemy.exc import IntegrityError

from storage import keys
from storage.errors import UserError
from storage.records import tables
from storage.records.accounts import person_id
from storage.records.database import Database, one
from storage.records.grants import live_grants
from storage.records.jobs import cancel, jobs_about
from storage.records.rows import Avatar, AvatarState, Photo

_KEYS_MOST = 500
"""Values of one query; old SQLites take 999."""
_LEARNED = ("training", "ready")


def new_token_values(avatar: Row[Any], token: str) -> dict[str, Any]:
    """The values that give an avatar another token. An adapter keeps answering to the word it was learned as."""
    return {"token": token, "word": (avatar.word or avatar.token) if avatar.state in _LEARNED else None}


class Avatars:
    """Avatars and their albums."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner_id: str, token: str, noun: str, photo_keys: Sequence[str], consent_version: str
    ) -> Avatar:
        """A draft with its photos and its owner's consent.

        Raises UserError token_taken {token} if the owner has another avatar of this token that has not failed, or
        forgotten if the owner was erased.
        """
        async with self._database.write() as connection:
            owner_id = await person_id(connection, owner_id)
            values = {"owner_id": owner_id, "token": token, "noun": noun, "state": "draft", "details": {}}
            insert = tables.avatars.insert().values(**self._database.new_row(), **values).returning(tables.avatars)
            try:
                avatar = Avatar(**(await connection.execute(insert)).one()._mapping)
            except IntegrityError as error:
                raise _token_taken(error, token) from None
            for position, key in enumerate(photo_keys):
                photo = {"id": uuid.uuid4().hex, "avatar_id": avatar.id, "position": position, "key": key}
                await connection.execute(tables.photos.insert().values(photo))
            consent = {"user_id": owner_id, "avatar_id": avatar.id, "version": consent_version}
            await connection.execute(tables.consents.insert().values(**self._database.new_row(), **consent))
            return avatar

    async def get(self, avatar_id: str) -> Avatar | None:
        """The avatar, or None if it is unknown or deleted."""
        row = await self._database.first(select(tables.avatars).where(tables.avatars.c.id == avatar_id))
        return Avatar(**row._mapping) if row else None

    async def owned_by(self, user_id: str) -> list[Avatar]:
        """The avatars that this user owns, in any state, oldest first."""
        query = select(tables.avatars).where(tables.avatars.c.owner_id == user_id)
        return [Avatar(**row._mapping) for row in await self._database.rows(query.order_by(tables.avatars.c.created))]

    async def usable_by(self, user_id: str, room: str) -> list[Avatar]:
        """The avatars that this user owns or has a grant for, and those granted to the room; any state, oldest first.

        Nobody can use the avatars of an owner who is banned.
        """
        avatars, grants = tables.avatars, tables.grants
        granted = select(grants.c.avatar_id).where(
            or_(
                and_(grants.c.grantee_kind == "room", grants.c.grantee_id == room),
                and_(grants.c.grantee_kind == "user", grants.c.grantee_id == user_id),
            ),
            live_grants(self._database.now()),
        )
        banned = select(tables.users.c.id).where(tables.users.c.banned.is_not(None))
        query = select(avatars).where(
            or_(avatars.c.owner_id == user_id, avatars.c.id.in_(granted)), avatars.c.owner_id.not_in(banned)
        )
        return [Avatar(**row._mapping) for row in await self._database.rows(query.order_by(avatars.c.created))]

    async def update(
        self,
        avatar_id: str,
        *,
        state: AvatarState | None = None,
        adapter_key: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Avatar:
        """Change what is given; details replace the old ones. Raises UserError missing_avatar or token_taken."""
        values = {"state": state, "adapter_key": adapter_key, "details": None if details is None else dict(details)}
        given = {name: value for name, value in values.items() if value is not None}
        table = tables.avatars
        async with self._database.write() as connection:
            row = await one(connection, select(table).where(table.c.id == avatar_id), "missing_avatar")
            if given:
                update = table.update().where(table.c.id == avatar_id).values(given).returning(table)
                try:
                    row = (await connection.execute(update)).one()
                except IntegrityError as error:  # a failed avatar comes back, and its token is in use
                    raise _token_taken(error, row.token) from None
            return Avatar(**row._mapping)

    async def rename(self, avatar_id: str, token: str) -> Avatar:
        """Give the avatar another token. Raises UserError missing_avatar or token_taken {token}."""
        table = tables.avatars
        async with self._database.write() as connection:
            row = await one(connection, select(table).where(table.c.id == avatar_id), "missing_avatar")
            values = new_token_values(row, token)
            try:
                update = table.update().where(table.c.id == avatar_id).values(values).returning(table)
                return Avatar(**(await connection.execute(update)).one()._mapping)
            except IntegrityError as error:
                raise _token_taken(error, token) from None

    async def set_default(self, avatar_id: str) -> Avatar:
        """Make the avatar its owner's default. Raises UserError missing_avatar."""
        table = tables.avatars
        values = {"preferred": self._database.now()}
        update = table.update().where(table.c.id == avatar_id).values(values).returning(table)
        async with self._database.write() as connection:
            return Avatar(**(await one(connection, update, "missing_avatar"))._mapping)

    async def delete(self, avatar_id: str) -> list[str]:
        """Delete the avatar, its photos, grants, consents and every picture drawn of it; cancel its jobs.

        Returns the blobs to erase: keys, and for what engines write below one avatar or job, prefixes ending in "/".
        Raises UserError missing_avatar.
        """
        avatars, photos, pictures = tables.avatars, tables.photos, tables.pictures
        async with self._database.write() as connection:
            await one(connection, select(avatars).where(avatars.c.id == avatar_id), "missing_avatar")
            blobs = [*await connection.scalars(select(photos.c.key).where(photos.c.avatar_id == avatar_id))]
            blobs += [keys.adapters(avatar_id), keys.samples(avatar_id)]
            for job in await jobs_about(connection, [avatar_id]):
                of_job = pictures.c.job_id == job.id
                blobs += [*await connection.scalars(select(pictures.c.key).where(of_job))]
                blobs += [keys.pictures(job.id), keys.checkpoints(job.id)]
                await connection.execute(pictures.delete().where(of_job))
                await cancel(connection, job, self._database.now())
            await connection.execute(avatars.delete().where(avatars.c.id == avatar_id))
            return blobs

    async def photos(self, avatar_id: str) -> list[Photo]:
        """The album, in order."""
        query = select(tables.photos).where(tables.photos.c.avatar_id == avatar_id)
        return [Photo(**row._mapping) for row in await self._database.rows(query.order_by(tables.photos.c.position))]

    async def photo_keys_in_use(self, photo_keys: Sequence[str]) -> set[str]:
        """Those of the keys that are in somebody's album."""
        table, used = tables.photos, set()
        for start in range(0, len(photo_keys), _KEYS_MOST):
            some = photo_keys[start : start + _KEYS_MOST]
            used |= {row.key for row in await self._database.rows(select(table.c.key).where(table.c.key.in_(some)))}
        return used

    async def set_verdicts(self, avatar_id: str, verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Save one verdict for each photo, in the album's order. Raises ValueError if their numbers differ."""
        table = tables.photos
        query = select(table.c.id).where(table.c.avatar_id == avatar_id).order_by(table.c.position)
        async with self._database.write() as connection:
            ids = (await connection.scalars(query)).all()
            for photo_id, verdict in zip(ids, verdicts, strict=True):
                await connection.execute(table.update().where(table.c.id == photo_id).values(verdict=dict(verdict)))


def _token_taken(error: IntegrityError, token: str) -> Exception:
    return UserError("token_taken", token=token) if "token" in str(error.orig) else error
