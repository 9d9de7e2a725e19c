"""Reading and writing the records. Every method is one transaction."""

import asyncio
import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal

from sqlalchemy import Executable, Select, and_, delete, event, func, or_, select, text
from sqlalchemy.engine import Connection, Row, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from storage.errors import UserError
from storage.folders import private_folder
from storage.jobs import SPECS, TERMINAL, JobKind, Payload, State, to_json
from storage.records import erasure as people
from storage.records import tables
from storage.records.erasure import avatars_in, jobs_about, live_grant
from storage.records.erasure import job_of as _job
from storage.records.erasure import now as _now
from storage.records.migrations import upgrade
from storage.records.rows import (
    AdapterOutcome,
    Avatar,
    AvatarState,
    ChatMessage,
    Forgotten,
    Grant,
    GranteeKind,
    Job,
    Linked,
    Note,
    Notice,
    Photo,
    Picture,
    User,
)

BUSY = 20.0
"""Seconds a writer waits for another process to finish writing (SQLite)."""
ACTIVE = (State.QUEUED, State.RUNNING)

HOLDS = "holds"
"""The space of notes that say who holds what: {"until"}, in seconds since 1970, the owner being the holder."""

JOBS_MOST = 100
"""Jobs that one query returns of a person, unless its caller says otherwise."""
LATELY = 20
"""How many jobs tell how long one of their kind takes."""
_VARIABLES = 500
"""Values of one query; old SQLites take 999."""
_SPEAKABLE = "23456789bcdfghjkmnpqrstvwxz"


class Records:
    """The records behind one database URL, shared by as many processes as like. Unknown ids raise UserError."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._turn: AbstractAsyncContextManager[object] = (
            asyncio.Lock() if engine.dialect.name == "sqlite" else nullcontext()
        )

    @classmethod
    async def open(cls, url: str) -> "Records":
        """Connect and bring the schema up to date. `sqlite+aiosqlite://` keeps all in memory, for tests."""
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        in_memory = sqlite and parsed.database in (None, "", ":memory:")
        if sqlite and not in_memory:
            await asyncio.to_thread(_private_file, Path(str(parsed.database)))
        # A database in memory lives and dies with its one connection.
        pool: dict[str, Any] = (
            {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0} if in_memory else {}
        )
        # What people write and are called must not reach a log through an error of the database.
        engine = create_async_engine(parsed, hide_parameters=True, **pool)
        if sqlite:
            event.listen(engine.sync_engine, "connect", _tune_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        records = cls(engine)
        try:
            async with records._write() as connection:
                await connection.run_sync(upgrade)
        except BaseException:
            await records.close()
            raise
        return records

    async def close(self) -> None:
        """Give every connection back."""
        await self._engine.dispose()

    def _read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._engine.connect()

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        # Taking SQLite's write lock first: a reader that turns writer is refused without waiting if another wrote. And
        # in turn within the process: SQLite lets whoever waits sleep for up to 0.1 s, and wakes them in no order.
        async with self._turn, self._writing.begin() as connection:
            yield connection

    async def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        async with self._read() as connection:
            return [*await connection.execute(query)]

    # users

    async def user(self, platform: str, platform_id: str, name: str, *, request: str | None = None) -> User:
        """The user, known from now on if new, under the name they have now.

        `request` is the key of the request that they sent, as `create_job` takes it. Raises UserError forgotten, and
        writes nothing down, if they are unknown because that request's person was erased: it was delivered again.
        """
        table = tables.users
        account = (table.c.platform == platform, table.c.platform_id == platform_id)
        query = people.known(*account)
        if (rows := await self._rows(query)) and rows[0].name == name:
            return User(**rows[0]._mapping)
        values = {"platform": platform, "platform_id": platform_id, "name": name}
        async with self._write() as connection:
            if not (await connection.execute(table.update().where(*account).values(name=name))).rowcount:
                await people.refuse_erased_request(connection, [(platform, platform_id)], request)
                await people.first_seen(connection, {**_new(), **values})
            return User(**(await connection.execute(query)).one()._mapping)

    async def find_users(self, platform: str, words: str) -> list[User]:
        """Those whom this platform calls so: the one with this id there, or else all who go by this name."""
        table = tables.users
        by_id = people.known(table.c.platform == platform, table.c.platform_id.in_((words, words.lower())))
        if rows := await self._rows(by_id):
            return [User(**rows[0]._mapping)]
        # SQLite lowers ASCII only; other letters have to be as they are in the name.
        named = or_(table.c.name == words, func.lower(table.c.name) == words.lower())
        return [User(**row._mapping) for row in await self._rows(people.known(table.c.platform == platform, named))]

    async def knows(self, platform: str, platform_id: str) -> bool:
        """Whether somebody has this account here."""
        table = tables.users
        where = (table.c.platform == platform, table.c.platform_id == platform_id)
        return bool(await self._rows(select(table.c.id).where(*where)))

    async def accounts(self, user_id: str) -> list[User]:
        """The person's accounts, oldest first."""
        return [User(**row._mapping) for row in await self._rows(people.known(people.of_person(user_id)))]

    async def link_code(self, user_id: str) -> str:
        """A code that joins another account to this person, once and within ten minutes. It replaces earlier ones."""
        async with self._write() as connection:
            return await people.link_code(connection, user_id)

    async def link(self, user_id: str, code: str) -> Linked:
        """Join this account, and what it has, to the person who made the code.

        An avatar whose token that person has too gets another. Whoever was joined by this code before is told the same
        again, so that a call may be repeated. Raises UserError link_code (unknown, used or too old), link_self,
        link_same_platform or banned; nothing has changed then, and the code is good for nothing.
        """
        async with self._write() as connection:
            try:
                return await people.link(connection, user_id, code)
            except UserError as error:
                refusal = error  # the code stays spent: nobody tries several accounts on it
        raise refusal

    async def everything(self, user_id: str) -> dict[str, list[dict[str, Any]]]:
        """All rows that are about this person, by table."""
        async with self._read() as connection:
            return await people.everything(connection, user_id)

    async def belongings(self, user_id: str) -> list[str]:
        """The blobs of a person: keys, and prefixes that end in a slash."""
        async with self._read() as connection:
            return await people.belongings(connection, user_id)

    async def forget(self, user_id: str, *, lines: bool = False) -> Forgotten:
        """Erase a person: accounts, avatars, photos, jobs, pictures, grants, and with `lines` what the chat keeps.

        Other people's jobs that drew one of the person's avatars are emptied, and stopped if they are under way. What
        stays is a fingerprint of each account, for a day or for as long as a ban lasts.
        """
        async with self._write() as connection:
            gone = await people.forget(connection, user_id, lines)
        if self._engine.dialect.name == "sqlite":
            # Or what was erased stays readable in the log of writes until enough others follow.
            async with self._engine.execution_options(begin="").connect() as connection:
                await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        return gone

    async def person(self, user_id: str, platform: str) -> User | None:
        """The account under which the person is on this platform, unless they are not there."""
        there = people.known(people.of_person(user_id), tables.users.c.platform == platform)
        rows = await self._rows(there)
        return User(**rows[0]._mapping) if rows else None

    # avatars

    async def create_avatar(
        self, owner_id: str, token: str, noun: str, photo_keys: Sequence[str], consent_version: str
    ) -> Avatar:
        """A draft with its photos and its owner's consent.

        Raises UserError token_taken {token} if the owner has another avatar of this token that has not failed, or
        forgotten if there is no such owner any more.
        """
        async with self._write() as connection:
            owner_id = await people.person_id(connection, owner_id)
            values = {"owner_id": owner_id, "token": token, "noun": noun, "state": "draft", "details": {}}
            insert = tables.avatars.insert().values(**_new(), **values).returning(tables.avatars)
            try:
                avatar = Avatar(**(await connection.execute(insert)).one()._mapping)
            except IntegrityError as error:
                raise _token_taken(error, token) from None
            for position, key in enumerate(photo_keys):
                photo = {"id": uuid.uuid4().hex, "avatar_id": avatar.id, "position": position, "key": key}
                await connection.execute(tables.photos.insert().values(photo))
            consent = {"user_id": owner_id, "avatar_id": avatar.id, "version": consent_version}
            await connection.execute(tables.consents.insert().values(**_new(), **consent))
            return avatar

    async def avatar(self, avatar_id: str) -> Avatar | None:
        """The avatar, unless it is unknown or deleted."""
        rows = await self._rows(select(tables.avatars).where(tables.avatars.c.id == avatar_id))
        return Avatar(**rows[0]._mapping) if rows else None

    async def avatars_of(self, owner_id: str) -> list[Avatar]:
        """Those this user owns, in any state, oldest first."""
        query = select(tables.avatars).where(tables.avatars.c.owner_id == owner_id)
        return [Avatar(**row._mapping) for row in await self._rows(query.order_by(tables.avatars.c.created))]

    async def avatars_usable(self, user_id: str, room: str) -> list[Avatar]:
        """Those this user owns, and those granted to the user or to the room by now, in any state, oldest first.

        Nobody can use what belongs to somebody who is banned.
        """
        avatars, grants = tables.avatars, tables.grants
        granted = select(grants.c.avatar_id).where(
            or_(
                and_(grants.c.grantee_kind == "room", grants.c.grantee_id == room),
                and_(grants.c.grantee_kind == "user", grants.c.grantee_id == user_id),
            ),
            live_grant(),
        )
        banned = select(tables.users.c.id).where(tables.users.c.banned.is_not(None))
        query = select(avatars).where(
            or_(avatars.c.owner_id == user_id, avatars.c.id.in_(granted)), avatars.c.owner_id.not_in(banned)
        )
        return [Avatar(**row._mapping) for row in await self._rows(query.order_by(avatars.c.created))]

    async def avatar_set(
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
        async with self._write() as connection:
            row = await _known(connection, select(table).where(table.c.id == avatar_id), "missing_avatar")
            if given:
                update = table.update().where(table.c.id == avatar_id).values(given).returning(table)
                try:
                    row = (await connection.execute(update)).one()
                except IntegrityError as error:  # a failed avatar comes back, and its token is in use
                    raise _token_taken(error, row.token) from None
            return Avatar(**row._mapping)

    async def rename_avatar(self, avatar_id: str, token: str) -> Avatar:
        """Give the avatar another token. Raises UserError missing_avatar or token_taken {token}."""
        table = tables.avatars
        async with self._write() as connection:
            row = await _known(connection, select(table).where(table.c.id == avatar_id), "missing_avatar")
            values = people.renaming(row, token)
            try:
                update = table.update().where(table.c.id == avatar_id).values(values).returning(table)
                return Avatar(**(await connection.execute(update)).one()._mapping)
            except IntegrityError as error:
                raise _token_taken(error, token) from None

    async def prefer(self, avatar_id: str) -> Avatar:
        """Make the avatar its owner's default. Raises UserError missing_avatar."""
        table = tables.avatars
        update = table.update().where(table.c.id == avatar_id).values(preferred=_now()).returning(table)
        async with self._write() as connection:
            return Avatar(**(await _known(connection, update, "missing_avatar"))._mapping)

    async def delete_avatar(self, avatar_id: str) -> list[str]:
        """Forget the avatar, its photos, grants, consents and every picture drawn of it; cancel its jobs.

        Returns the blobs to erase: keys, and for what engines write below one avatar or job, prefixes ending in "/".
        Raises UserError missing_avatar.
        """
        avatars, photos, pictures = tables.avatars, tables.photos, tables.pictures
        async with self._write() as connection:
            await _known(connection, select(avatars).where(avatars.c.id == avatar_id), "missing_avatar")
            drawn = await jobs_about(connection, [avatar_id])
            keys = [*await connection.scalars(select(photos.c.key).where(photos.c.avatar_id == avatar_id))]
            keys += [f"adapters/{avatar_id}/", f"samples/{avatar_id}/"]
            for job in drawn:
                of_job = pictures.c.job_id == job.id
                keys += [*await connection.scalars(select(pictures.c.key).where(of_job))]
                keys += [f"pictures/{job.id}/", f"checkpoints/{job.id}/"]
                await connection.execute(pictures.delete().where(of_job))
                await _cancel(connection, job)
            await connection.execute(avatars.delete().where(avatars.c.id == avatar_id))
            return keys

    async def photos(self, avatar_id: str) -> list[Photo]:
        """The album, in order."""
        query = select(tables.photos).where(tables.photos.c.avatar_id == avatar_id)
        return [Photo(**row._mapping) for row in await self._rows(query.order_by(tables.photos.c.position))]

    async def photos_named(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are in somebody's album."""
        table, named = tables.photos, set()
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            named |= {row.key for row in await self._rows(select(table.c.key).where(table.c.key.in_(some)))}
        return named

    async def photo_verdicts(self, avatar_id: str, verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Save one verdict for each photo, in the album's order. Raises ValueError if their numbers differ."""
        table = tables.photos
        query = select(table.c.id).where(table.c.avatar_id == avatar_id).order_by(table.c.position)
        async with self._write() as connection:
            ids = (await connection.scalars(query)).all()
            for photo_id, verdict in zip(ids, verdicts, strict=True):
                await connection.execute(table.update().where(table.c.id == photo_id).values(verdict=dict(verdict)))

    async def grant(
        self, avatar_id: str, grantee_kind: GranteeKind, grantee_id: str, lasts: timedelta | None = None
    ) -> Grant:
        """Let a room or a user draw this avatar, for good or as long as `lasts`, in place of an earlier grant's end.

        Raises UserError missing_avatar.
        """
        table = tables.grants
        key = {"avatar_id": avatar_id, "grantee_kind": grantee_kind, "grantee_id": grantee_id}
        async with self._write() as connection:
            known = select(tables.avatars.c.id).where(tables.avatars.c.id == avatar_id)
            await _known(connection, known, "missing_avatar")
            now = people.now()
            await connection.execute(table.delete().where(table.c.expires <= now))
            expires = now + lasts if lasts else None
            update = table.update().filter_by(**key).values(expires=expires).returning(table)
            row = (await connection.execute(update)).one_or_none()
            if row is None:
                insert = table.insert().values(**_new(), **key, expires=expires).returning(table)
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
        async with self._write() as connection:
            return bool((await connection.execute(table.delete().where(*where))).rowcount)

    async def grants_of(self, avatar_id: str) -> list[Grant]:
        """Who else may draw this avatar now."""
        query = select(tables.grants).where(live_grant(avatar_id))
        return [Grant(**row._mapping) for row in await self._rows(query.order_by(tables.grants.c.created))]

    async def grant_of(self, grant_id: str) -> Grant | None:
        """The grant, unless it is unknown, ended or taken back."""
        rows = await self._rows(select(tables.grants).where(tables.grants.c.id == grant_id, live_grant()))
        return Grant(**rows[0]._mapping) if rows else None

    async def without_right(self, avatar_id: str) -> list[Job]:
        """The jobs under way that draw this avatar for somebody who may not any more."""
        async with self._read() as connection:
            return await people.without_right(connection, avatar_id)

    # jobs

    async def create_job(
        self,
        kind: JobKind,
        user_id: str,
        frontend: str,
        room: str,
        payload: Payload,
        place: str | None = None,
        language: str | None = None,
        *,
        request: str | None = None,
    ) -> Job:
        """Write a queued job down, once for each request of a person.

        `request` is a key of what the platform delivered, such as "telegram:<update id>". If this person made a job by
        the same request before, that job is returned as it is now and nothing is written. Requests are told apart by
        person, so that nobody receives the job of another person who sent the same key.

        Raises TypeError if the payload is another kind's, ValueError if the request made a job of another kind, and
        UserError forgotten if the person, or the person who sent this request, was erased.
        """
        if not isinstance(payload, SPECS[kind].payload):
            raise TypeError(f"{type(payload).__name__} is no payload of {kind}")
        job_id = "".join(secrets.choice(_SPEAKABLE) for _ in range(10))
        values = {
            "kind": kind.value,
            "user_id": user_id,
            "frontend": frontend,
            "room": room,
            "payload": to_json(payload),
            "state": State.QUEUED.value,
            "attempt": 0,
            "cancel_requested": False,
            "place": place,
            "language": language,
            "request": request,
        }
        table = tables.jobs
        async with self._write() as connection:
            values["user_id"] = owner_id = await people.person_id(connection, user_id)
            accounts = await people.accounts_of(connection, owner_id) if request is not None else []
            await people.refuse_erased_request(connection, accounts, request)
            insert = table.insert().values({**_new(), **values, "id": job_id}).returning(table)
            try:
                # The unique index decides, not a look before it: two processes may receive a request at once.
                async with connection.begin_nested():
                    return _job((await connection.execute(insert)).one())
            except IntegrityError:
                same_request = (table.c.user_id == values["user_id"], table.c.request == request)
                row = (await connection.execute(select(table).where(*same_request))).one_or_none()
                if row is None:
                    raise
            if row.kind != kind:
                raise ValueError(f"a request for {kind} made a job of {row.kind} before")
            return _job(row)

    async def job(self, job_id: str) -> Job | None:
        """The job, unless it is unknown."""
        rows = await self._rows(select(tables.jobs).where(tables.jobs.c.id == job_id))
        return _job(rows[0]) if rows else None

    async def requested_job(self, platform: str, platform_id: str, request: str) -> Job | None:
        """The job that this account's person made by this request, as `create_job` takes it."""
        jobs, users = tables.jobs, tables.users
        account = (users.c.platform == platform, users.c.platform_id == platform_id)
        person = select(func.coalesce(users.c.person_id, users.c.id)).where(*account).scalar_subquery()
        rows = await self._rows(select(jobs).where(jobs.c.user_id == person, jobs.c.request == request))
        return _job(rows[0]) if rows else None

    async def jobs_of(
        self, user_id: str, *, active_only: bool = False, since: datetime | None = None, limit: int = JOBS_MOST
    ) -> list[Job]:
        """The newest `limit` jobs of this user, newest first.

        active_only: only those queued or running. since: only those created at this moment or later.
        """
        table = tables.jobs
        query = select(table).where(table.c.user_id == user_id)
        if active_only:
            query = query.where(table.c.state.in_(ACTIVE))
        if since is not None:
            query = query.where(table.c.created >= since)
        return [_job(row) for row in await self._rows(query.order_by(table.c.created.desc(), table.c.id).limit(limit))]

    async def drawings_of(
        self, user_id: str, *, skip: int = 0, limit: int = JOBS_MOST
    ) -> list[tuple[Job, list[Picture]]]:
        """This user's drawings that have pictures left, newest first: `limit` jobs after the first `skip`.

        The pictures of a job are in order.
        """
        jobs, pictures = tables.jobs, tables.pictures
        has_pictures = select(pictures.c.id).where(pictures.c.job_id == jobs.c.id).exists()
        drawn = (jobs.c.user_id == user_id, jobs.c.kind == JobKind.IMAGINE, jobs.c.state == State.SUCCEEDED)
        newest = select(jobs).where(*drawn, has_pictures).order_by(jobs.c.created.desc(), jobs.c.id)
        page = newest.offset(skip).limit(limit).subquery()
        query = select(page, *(column.label(f"picture_{column.name}") for column in pictures.c)).join_from(
            page, pictures, pictures.c.job_id == page.c.id
        )
        found: dict[str, tuple[Job, list[Picture]]] = {}
        for row in await self._rows(query.order_by(page.c.created.desc(), page.c.id, pictures.c.position)):
            values = dict(row._mapping)
            picture = Picture(**{column.name: values.pop(f"picture_{column.name}") for column in pictures.c})
            _, drawn_pictures = found.setdefault(picture.job_id, (people.job_from(values), []))
            drawn_pictures.append(picture)
        return list(found.values())

    async def queue_place(self, job_id: str) -> int:
        """How many queued jobs of its kind it waits for, itself included: 1 is next, 0 is no longer queued."""
        table = tables.jobs
        own = table.alias()
        query = (
            select(func.count())
            .select_from(own)
            .join(
                table,
                and_(
                    table.c.kind == own.c.kind,
                    table.c.state == State.QUEUED,
                    or_(
                        table.c.created < own.c.created, and_(table.c.created == own.c.created, table.c.id <= own.c.id)
                    ),
                ),
            )
            .where(own.c.id == job_id, own.c.state == State.QUEUED)
        )
        return int((await self._rows(query))[0][0])

    async def queue_places(self) -> dict[str, int]:
        """The place of every queued job, as `queue_place` gives it, by the job's id."""
        table = tables.jobs
        query = select(table.c.id, table.c.kind).where(table.c.state == State.QUEUED)
        ahead: Counter[str] = Counter()
        places = {}
        for row in await self._rows(query.order_by(table.c.created, table.c.id)):
            ahead[row.kind] += 1
            places[row.id] = ahead[row.kind]
        return places

    async def usual_seconds(self, kind: JobKind) -> float | None:
        """Median seconds of the latest `LATELY` jobs of this kind that succeeded; None if none did."""
        table = tables.jobs
        query = select(table.c.started, table.c.finished).where(
            table.c.kind == kind.value, table.c.state == State.SUCCEEDED, table.c.started.is_not(None)
        )
        rows = await self._rows(query.order_by(table.c.created.desc()).limit(LATELY))
        return median((row.finished - row.started).total_seconds() for row in rows) if rows else None

    async def claim(self, job_id: str) -> Job | None:
        """Take the job: it is running, its attempt one higher, and every earlier attempt is fenced out.

        None if there is nothing to do: unknown, over, cancelled while its engine was dead, or claimed
        `max_attempts` times without an end, which fails it with the code crashed {attempts}.
        """
        table = tables.jobs
        async with self._write() as connection:
            row = (await connection.execute(select(table).where(table.c.id == job_id).with_for_update())).one_or_none()
            if row is None or (job := _job(row)).over:
                return None
            end: dict[str, Any] | None = None
            if job.cancel_requested:
                end = {"state": State.CANCELLED.value}
            elif job.attempt >= SPECS[job.kind].max_attempts:
                end = {"state": State.FAILED.value, "error": {"code": "crashed", "facts": {"attempts": job.attempt}}}
            if end:
                await connection.execute(table.update().where(table.c.id == job_id).values(finished=_now(), **end))
                return None
            values = {"state": State.RUNNING.value, "attempt": job.attempt + 1, "started": job.started or _now()}
            return _job(
                (
                    await connection.execute(table.update().where(table.c.id == job_id).values(values).returning(table))
                ).one()
            )

    async def renew(self, job_id: str, attempt: int) -> Literal["go", "cancel", "lost"]:
        """Whether this attempt goes on, shall end, or is no longer the job's (a newer one or an end exists)."""
        job = await self.job(job_id)
        if job is None or job.state != State.RUNNING or job.attempt != attempt:
            return "lost"
        return "cancel" if job.cancel_requested else "go"

    async def finish(
        self,
        job_id: str,
        attempt: int,
        state: State,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        pictures: Sequence[tuple[str, int]] = (),
        adapter: AdapterOutcome | None = None,
    ) -> bool:
        """End the job, with its pictures (key, seed) and its avatar's adapter, all or nothing.

        False, and nothing written, if this attempt no longer runs the job. False too if an avatar that was trained or
        drawn was deleted meanwhile, which makes the job a cancelled one. Raises ValueError if `state` is no end.
        """
        if state not in TERMINAL:
            raise ValueError(f"{state} is no end")
        table = tables.jobs
        held = (table.c.id == job_id, table.c.attempt == attempt, table.c.state == State.RUNNING)
        values = {"state": state.value, "finished": _now(), "result": result, "error": error}
        async with self._write() as connection:
            row = (await connection.execute(table.update().where(*held).values(values).returning(table))).one_or_none()
            if row is None:
                return False
            gone = bool(pictures) and not await _all_there(connection, avatars_in(_job(row).payload))
            if gone or (adapter and not await _hand_over(connection, adapter)):
                values = {"state": State.CANCELLED.value, "result": None}
                await connection.execute(table.update().where(table.c.id == job_id).values(values))
                return False
            for position, (key, seed) in enumerate(pictures):
                picture = {"job_id": job_id, "position": position, "key": key, "seed": seed}
                await connection.execute(tables.pictures.insert().values(**_new(), **picture))
            return True

    async def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask a running one to stop, leave one that is over. Raises UserError missing_job."""
        table = tables.jobs
        query = select(table).where(table.c.id == job_id)
        async with self._write() as connection:
            await _cancel(connection, _job(await _known(connection, query.with_for_update(), "missing_job")))
            return _job((await connection.execute(query)).one())

    async def unheld(self, held: Collection[str] = ()) -> list[Job]:
        """The jobs queued or running, oldest first, but for those whose ids are held by somebody."""
        table = tables.jobs
        rows = await self._rows(select(table).where(table.c.state.in_(ACTIVE)).order_by(table.c.created, table.c.id))
        return [_job(row) for row in rows if row.id not in held]

    async def undelivered(self, frontend: str) -> list[Job]:
        """This frontend's jobs that are over and not answered, in the order they ended."""
        table = tables.jobs
        query = select(table).where(
            table.c.frontend == frontend, table.c.state.in_(TERMINAL), table.c.delivered.is_(None)
        )
        return [_job(row) for row in await self._rows(query.order_by(table.c.finished, table.c.id))]

    async def mark_delivered(self, job_id: str) -> bool:
        """Record the answer. True for the first caller only; False also while the job is not over."""
        table = tables.jobs
        mine = (table.c.id == job_id, table.c.state.in_(TERMINAL), table.c.delivered.is_(None))
        async with self._write() as connection:
            return bool((await connection.execute(table.update().where(*mine).values(delivered=_now()))).rowcount)

    async def set_progress_ref(self, job_id: str, ref: str | None) -> None:
        """Remember the message that shows this job's progress."""
        async with self._write() as connection:
            await connection.execute(tables.jobs.update().where(tables.jobs.c.id == job_id).values(progress_ref=ref))

    async def pictures(self, job_id: str) -> list[Picture]:
        """What the job drew, in order."""
        query = select(tables.pictures).where(tables.pictures.c.job_id == job_id)
        return [Picture(**row._mapping) for row in await self._rows(query.order_by(tables.pictures.c.position))]

    async def delete_pictures(self, job_id: str) -> list[str]:
        """Forget the job's pictures. Returns the blobs to erase: keys, and the prefix below which engines write."""
        pictures = tables.pictures
        async with self._write() as connection:
            keys = await connection.scalars(
                delete(pictures).where(pictures.c.job_id == job_id).returning(pictures.c.key)
            )
            return [*keys, f"pictures/{job_id}/"]

    # what operators decide

    async def paused(self) -> bool:
        """Whether engines take no jobs for now."""
        return await self._setting("paused") is True

    async def pause(self, paused: bool) -> None:
        """Let engines take no jobs from now on, or let them again. What runs goes on."""
        await self._set("paused", paused)

    async def quota(self) -> dict[str, int | None]:
        """The trainings and pictures that a person has a day; None, or nothing, is as many as they like."""
        return dict(await self._setting("quota") or {})

    async def set_quota(self, quota: Mapping[str, int | None], user_id: str | None = None) -> None:
        """Give everybody these quotas, or one person their own."""
        if user_id is None:
            await self._set("quota", dict(quota))
            return
        async with self._write() as connection:
            table = tables.users
            await connection.execute(table.update().where(table.c.id == user_id).values(quota=dict(quota) or None))

    async def spent(self, user_id: str) -> dict[str, list[tuple[datetime, int]]]:
        """The trainings and pictures of the last 24 hours: when each counts no longer, and how many, soonest first."""
        async with self._write() as connection:
            return await people.spent(connection, user_id)

    async def ban(self, platform: str, platform_id: str) -> User | None:
        """Ban the person with this account. None back if nobody has it yet: they are banned once they come."""
        async with self._write() as connection:
            return await people.ban(connection, platform, platform_id, _now())

    async def unban(self, platform: str, platform_id: str) -> User | None:
        """Lift a ban."""
        async with self._write() as connection:
            return await people.ban(connection, platform, platform_id, None)

    async def figures(self) -> dict[str, dict[str, int]]:
        """How many there are: people, avatars by state, and the jobs of the last 24 hours by kind and by state."""
        avatars, jobs, users = tables.avatars, tables.jobs, tables.users
        recent = jobs.c.created > _now() - timedelta(days=1)
        persons = users.c.person_id.is_(None)
        queries: dict[str, Select[Any]] = {
            "people": select(users.c.platform, func.count()).where(persons).group_by(users.c.platform),
            "avatars": select(avatars.c.state, func.count()).group_by(avatars.c.state),
            "jobs": select(jobs.c.kind, func.count()).where(recent).group_by(jobs.c.kind),
            "states": select(jobs.c.state, func.count()).where(recent).group_by(jobs.c.state),
        }
        found: dict[str, dict[str, int]] = {}
        for name, query in queries.items():
            pairs: Any = await self._rows(query)
            found[name] = dict(pairs)
        return found

    async def notify(self, words: str, since: datetime, request: str = "") -> int:
        """Have every room told where somebody asked for something since then, or chatted; how many there are.

        `request`: what the notices come from. The same one makes the same notices, and who has posted them knows them.
        """
        jobs, messages, notices = tables.jobs, tables.messages, tables.notices
        asked = select(jobs.c.frontend, jobs.c.room).where(jobs.c.created > since).distinct()
        chatted = select(messages.c.room).where(messages.c.created > since).distinct()
        async with self._write() as connection:
            rooms = {(row.frontend, row.room) for row in await connection.execute(asked)}
            rooms |= {("chat", room) for room in await connection.scalars(chatted)}
            waiting = set(await connection.scalars(select(notices.c.id)))
            for frontend, room in sorted(rooms):
                values = {**_new(), "frontend": frontend, "room": room, "text": words}
                if request:
                    values["id"] = uuid.uuid5(uuid.NAMESPACE_OID, f"{request}|{frontend}|{room}").hex
                if values["id"] not in waiting:
                    await connection.execute(notices.insert().values(values))
        return len(rooms)

    async def notices(self, frontend: str, skip: int = 0, most: int = 20) -> list[Notice]:
        """The oldest notices that this frontend has not posted, `most` after the first `skip`."""
        table = tables.notices
        query = select(table).where(table.c.frontend == frontend).order_by(table.c.created, table.c.id)
        query = query.offset(skip).limit(most)
        return [Notice(**row._mapping) for row in await self._rows(query)]

    async def language_in(self, frontend: str, room: str) -> str | None:
        """The language in which somebody last asked for something in this room; None if nobody did."""
        jobs = tables.jobs
        here = and_(jobs.c.frontend == frontend, jobs.c.room == room, jobs.c.language.is_not(None))
        rows = await self._rows(select(jobs.c.language).where(here).order_by(jobs.c.created.desc()).limit(1))
        return rows[0][0] if rows else None

    async def notices_done(self, ids: Iterable[str]) -> None:
        """These are posted, or can't be."""
        async with self._write() as connection:
            await connection.execute(tables.notices.delete().where(tables.notices.c.id.in_(list(ids))))

    async def _setting(self, name: str) -> Any:
        rows = await self._rows(select(tables.server.c.value).where(tables.server.c.name == name))
        return rows[0][0] if rows else None

    async def _set(self, name: str, value: Any) -> None:
        table = tables.server
        async with self._write() as connection:
            if not (await connection.execute(table.update().where(table.c.name == name).values(value=value))).rowcount:
                await connection.execute(table.insert().values(name=name, value=value))

    # the local web chat

    async def chat_append(
        self, room: str, author: str, body: Mapping[str, Any], dedupe: str | None = None
    ) -> ChatMessage:
        """A new line in the room; the one that exists if the room knows `dedupe` already."""
        table = tables.messages
        async with self._write() as connection:
            if dedupe is not None:
                known = select(table).where(table.c.room == room, table.c.dedupe == dedupe)
                if row := (await connection.execute(known)).one_or_none():
                    return ChatMessage(**row._mapping)
            values = {"room": room, "author": author, "body": dict(body), "dedupe": dedupe, "created": _now()}
            return ChatMessage(
                **(await connection.execute(table.insert().values(values).returning(table))).one()._mapping
            )

    async def chat_edit(self, message_id: int, body: Mapping[str, Any]) -> ChatMessage:
        """Put another body in its place. Raises UserError missing_message."""
        table = tables.messages
        update = table.update().where(table.c.id == message_id).values(body=dict(body)).returning(table)
        async with self._write() as connection:
            return ChatMessage(**(await _known(connection, update, "missing_message"))._mapping)

    async def chat_history(self, room: str, after: int = 0, limit: int = 200) -> list[ChatMessage]:
        """The newest `limit` lines with an id above `after`, oldest first."""
        table = tables.messages
        query = select(table).where(table.c.room == room, table.c.id > after).order_by(table.c.id.desc()).limit(limit)
        return [ChatMessage(**row._mapping) for row in reversed(await self._rows(query))]

    async def chat_line(self, room: str, message_id: int) -> ChatMessage | None:
        """One line of a room, unless the room has no line of this id."""
        table = tables.messages
        rows = await self._rows(select(table).where(table.c.room == room, table.c.id == message_id))
        return ChatMessage(**rows[0]._mapping) if rows else None

    # what frontends remember of their platforms

    async def note_add(self, space: str, key: str, body: Mapping[str, Any], owner: str | None = None) -> bool:
        """Write a note down unless the space knows the key already; whether it was new.

        `owner`: the account it is about, as platform:id. Such a note is erased when that person is forgotten.
        """
        table = tables.notes
        async with self._write() as connection:
            known = select(table.c.key).where(table.c.space == space, table.c.key == key)
            if (await connection.execute(known)).one_or_none():
                return False
            values = {"space": space, "key": key, "body": dict(body), "owner": owner, "created": _now()}
            await connection.execute(table.insert().values(values))
            return True

    async def notes_add(self, space: str, notes: Mapping[str, tuple[Mapping[str, Any], str | None]]) -> set[str]:
        """Write many notes down at once, each a body and an owner by its key; the keys that were new."""
        table = tables.notes
        async with self._write() as connection:
            known = select(table.c.key).where(table.c.space == space, table.c.key.in_(notes.keys()))
            new = notes.keys() - set(await connection.scalars(known))
            rows = [
                {"space": space, "key": key, "body": dict(body), "owner": owner, "created": _now()}
                for key, (body, owner) in notes.items()
                if key in new
            ]
            if rows:
                await connection.execute(table.insert(), rows)
            return set(new)

    async def note_set(self, space: str, key: str, body: Mapping[str, Any], owner: str | None = None) -> None:
        """Write a note down, in place of what the key held, its owner too."""
        table = tables.notes
        async with self._write() as connection:
            update = table.update().where(table.c.space == space, table.c.key == key)
            if not (await connection.execute(update.values(body=dict(body), owner=owner))).rowcount:
                values = {"space": space, "key": key, "body": dict(body), "owner": owner, "created": _now()}
                await connection.execute(table.insert().values(values))

    async def note(self, space: str, key: str) -> Note | None:
        """The note, unless there is none."""
        table = tables.notes
        rows = await self._rows(select(table).where(table.c.space == space, table.c.key == key))
        return Note(**rows[0]._mapping) if rows else None

    async def notes(self, space: str, prefix: str = "") -> list[Note]:
        """The notes of a space whose keys start with `prefix`, oldest first."""
        table = tables.notes
        query = select(table).where(table.c.space == space, table.c.key.startswith(prefix, autoescape=True))
        return [Note(**row._mapping) for row in await self._rows(query.order_by(table.c.created, table.c.key))]

    async def note_delete(self, space: str, key: str) -> bool:
        """Forget a note; whether there was one."""
        table = tables.notes
        async with self._write() as connection:
            delete = table.delete().where(table.c.space == space, table.c.key == key)
            return bool((await connection.execute(delete)).rowcount)

    async def hold(self, key: str, holder: str, seconds: float) -> bool:
        """Hold a key for so long from now. False while another holder has it."""
        table = tables.notes
        of_key = (table.c.space == HOLDS, table.c.key == key)
        async with self._write() as connection:
            held = (await connection.execute(select(table.c.owner, table.c.body).where(*of_key))).one_or_none()
            if held and held.owner != holder and held.body["until"] > _now().timestamp():
                return False
            await connection.execute(table.delete().where(*of_key))
            values = {"space": HOLDS, "key": key, "owner": holder, "created": _now()}
            await connection.execute(table.insert().values(**values, body=_until(seconds)))
            return True

    async def hold_on(self, holder: str, seconds: float) -> None:
        """Hold all that this holder has for so long from now."""
        table = tables.notes
        async with self._write() as connection:
            update = table.update().where(table.c.space == HOLDS, table.c.owner == holder)
            await connection.execute(update.values(body=_until(seconds)))

    async def let_go(self, key: str, holder: str) -> None:
        """Hold a key no longer, if this holder does."""
        table = tables.notes
        async with self._write() as connection:
            of_key = (table.c.space == HOLDS, table.c.key == key)
            await connection.execute(table.delete().where(*of_key, table.c.owner == holder))

    async def notes_prune(self, space: str, before: datetime) -> int:
        """Forget the notes of a space that were first written before this moment; how many went."""
        table = tables.notes
        async with self._write() as connection:
            delete = table.delete().where(table.c.space == space, table.c.created < before)
            return int((await connection.execute(delete)).rowcount)


def _private_file(path: Path) -> None:
    private_folder(path.parent)
    path.touch(0o600)


def _until(seconds: float) -> dict[str, float]:
    return {"until": _now().timestamp() + seconds}


def _new() -> dict[str, Any]:
    return {"id": uuid.uuid4().hex, "created": _now()}


def _token_taken(error: IntegrityError, token: str) -> Exception:
    return UserError("token_taken", token=token) if "token" in str(error.orig) else error


async def _known(connection: AsyncConnection, statement: Executable, code: str) -> Row[Any]:
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise UserError(code)
    return row


async def _hand_over(connection: AsyncConnection, adapter: AdapterOutcome) -> bool:
    values = {"state": "ready", "adapter_key": adapter.adapter_key, "details": adapter.details}
    update = tables.avatars.update().where(tables.avatars.c.id == adapter.avatar_id).values(values)
    return bool((await connection.execute(update)).rowcount)


async def _all_there(connection: AsyncConnection, avatar_ids: Collection[str]) -> bool:
    table = tables.avatars
    query = select(func.count()).select_from(table).where(table.c.id.in_(avatar_ids))
    return bool(await connection.scalar(query) == len(set(avatar_ids)))


async def _cancel(connection: AsyncConnection, job: Job) -> None:
    if job.over:
        return
    end = {"state": State.CANCELLED.value, "finished": _now()} if job.state == State.QUEUED else {}
    update = tables.jobs.update().where(tables.jobs.c.id == job.id)
    await connection.execute(update.values(cancel_requested=True, **end))


def _tune_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # the driver leaves BEGIN to _begin_sqlite
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY * 1000)}", "journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if begin := connection.get_execution_options().get("begin", "BEGIN"):
        connection.exec_driver_sql(begin)
