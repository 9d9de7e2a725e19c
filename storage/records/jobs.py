"""Jobs: from a request to its answer, fenced by attempts; and the pictures that they drew."""

import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Literal

from sqlalchemy import String, and_, cast, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.jobs import SPECS, TERMINAL, Imagine, JobKind, Payload, State, to_json
from storage.records import tables
from storage.records.accounts import accounts_of, person_id, refuse_erased_request
from storage.records.database import Database, one
from storage.records.rows import AdapterOutcome, Job, Picture, job_from_row, job_from_values

ACTIVE = (State.QUEUED, State.RUNNING)
JOBS_MOST = 100
"""Jobs of a person that one query returns, unless its caller says otherwise."""
RECENT_MOST = 20
"""How many of the latest jobs of a kind `usual_seconds` takes the median of."""
_ID_LETTERS = "23456789bcdfghjkmnpqrstvwxz"
"""Without letters and digits that are easily confused when an id is read aloud."""
_ID_LENGTH = 10


def avatars_in(payload: Payload) -> tuple[str, ...]:
    """The avatars that a job is about."""
    return payload.avatar_ids if isinstance(payload, Imagine) else (payload.avatar_id,)


async def jobs_about(connection: AsyncConnection, avatar_ids: Collection[str]) -> list[Job]:
    """Every person's jobs that are about one of these avatars."""
    table = tables.jobs
    found: dict[str, Job] = {}
    for avatar_id in avatar_ids:
        named = cast(table.c.payload, String).contains(avatar_id)  # narrows it down; the payload decides
        for row in await connection.execute(select(table).where(named)):
            job = job_from_row(row)
            if avatar_id in avatars_in(job.payload):
                found[job.id] = job
    return list(found.values())


async def cancel(connection: AsyncConnection, job: Job, now: datetime) -> None:
    """Cancel a queued job, ask a running one to stop, leave one that is over."""
    if job.over:
        return
    end = {"state": State.CANCELLED.value, "finished": now} if job.state == State.QUEUED else {}
    update = tables.jobs.update().where(tables.jobs.c.id == job.id)
    await connection.execute(update.values(cancel_requested=True, **end))


class Jobs:
    """Jobs and their pictures.

    An attempt fences out earlier ones: whatever an engine writes about a running job is one UPDATE whose WHERE clause
    names the job, its attempt and the state running.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Creating and finding

    async def create(
        self,
        kind: JobKind,
        user_id: str,
        frontend: str,
        room: str,
        payload: Payload,
        grant_scope: str | None = None,
        language: str | None = None,
        *,
        request: str | None = None,
    ) -> Job:
        """Create a queued job, once for each request of a person.

        `request` is a key of what the platform delivered, such as "telegram:<update id>". If this person made a job by
        the same request before, that job is returned in its present state and nothing is written. Keys are unique for
        each person, so that nobody receives the job of another person who sent the same key.

        Raises TypeError if the payload is another kind's, ValueError if the request made a job of another kind, and
        UserError forgotten if the person, or the person who sent this request, was erased.
        """
        if not isinstance(payload, SPECS[kind].payload):
            raise TypeError(f"{type(payload).__name__} is no payload of {kind}")
        values = {
            "id": "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH)),
            "created": self._database.now(),
            "kind": kind.value,
            "frontend": frontend,
            "room": room,
            "payload": to_json(payload),
            "state": State.QUEUED.value,
            "attempt": 0,
            "cancel_requested": False,
            "place": grant_scope,
            "language": language,
            "request": request,
        }
        table = tables.jobs
        async with self._database.write() as connection:
            owner_id = await person_id(connection, user_id)
            if request is not None:
                accounts = [(user.platform, user.platform_id) for user in await accounts_of(connection, owner_id)]
                await refuse_erased_request(connection, accounts, request, self._database.now())
            insert = table.insert().values({**values, "user_id": owner_id}).returning(table)
            try:
                # The unique index decides, not a look before it: two processes may receive a request at once.
                async with connection.begin_nested():
                    return job_from_row((await connection.execute(insert)).one())
            except IntegrityError:
                same_request = (table.c.user_id == owner_id, table.c.request == request)
                row = (await connection.execute(select(table).where(*same_request))).one_or_none()
                if row is None:
                    raise
            if row.kind != kind:
                raise ValueError(f"a request for {kind} made a job of {row.kind} before")
            return job_from_row(row)

    async def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        row = await self._database.first(select(tables.jobs).where(tables.jobs.c.id == job_id))
        return job_from_row(row) if row else None

    async def by_request(self, platform: str, platform_id: str, request: str) -> Job | None:
        """The job that this account's person made by this request, as `create` takes it, or None."""
        jobs, users = tables.jobs, tables.users
        account = (users.c.platform == platform, users.c.platform_id == platform_id)
        person = select(func.coalesce(users.c.person_id, users.c.id)).where(*account).scalar_subquery()
        row = await self._database.first(select(jobs).where(jobs.c.user_id == person, jobs.c.request == request))
        return job_from_row(row) if row else None

    async def for_user(
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
        newest = query.order_by(table.c.created.desc(), table.c.id).limit(limit)
        return [job_from_row(row) for row in await self._database.rows(newest)]

    async def language_in(self, frontend: str, room: str) -> str | None:
        """The language of the newest job of this room that has one; None if none has."""
        table = tables.jobs
        here = and_(table.c.frontend == frontend, table.c.room == room, table.c.language.is_not(None))
        query = select(table.c.language).where(here).order_by(table.c.created.desc()).limit(1)
        row = await self._database.first(query)
        return row.language if row else None

    # The queue

    async def queue_position(self, job_id: str) -> int:
        """The job's position among the queued jobs of its kind: 1 is next, 0 is not queued any more."""
        table = tables.jobs
        own = table.alias()
        earlier = or_(table.c.created < own.c.created, and_(table.c.created == own.c.created, table.c.id <= own.c.id))
        ahead = and_(table.c.kind == own.c.kind, table.c.state == State.QUEUED, earlier)
        counted = select(func.count()).select_from(own).join(table, ahead)
        return int((await self._database.rows(counted.where(own.c.id == job_id, own.c.state == State.QUEUED)))[0][0])

    async def queue_positions(self) -> dict[str, int]:
        """The position of every queued job, as `queue_position` gives it, by the job's id."""
        table = tables.jobs
        query = select(table.c.id, table.c.kind).where(table.c.state == State.QUEUED)
        queued: Counter[str] = Counter()
        positions = {}
        for row in await self._database.rows(query.order_by(table.c.created, table.c.id)):
            queued[row.kind] += 1
            positions[row.id] = queued[row.kind]
        return positions

    async def usual_seconds(self, kind: JobKind) -> float | None:
        """Median seconds of the latest RECENT_MOST jobs of this kind that succeeded; None if none did."""
        table = tables.jobs
        query = select(table.c.started, table.c.finished).where(
            table.c.kind == kind.value, table.c.state == State.SUCCEEDED, table.c.started.is_not(None)
        )
        rows = await self._database.rows(query.order_by(table.c.created.desc()).limit(RECENT_MOST))
        return median((row.finished - row.started).total_seconds() for row in rows) if rows else None

    async def active(self, excluding: Collection[str] = ()) -> list[Job]:
        """The jobs queued or running, oldest first, except those with these ids."""
        table = tables.jobs
        query = select(table).where(table.c.state.in_(ACTIVE)).order_by(table.c.created, table.c.id)
        return [job_from_row(row) for row in await self._database.rows(query) if row.id not in excluding]

    # Running

    async def claim(self, job_id: str) -> Job | None:
        """Start the job's next attempt: it is running, and every earlier attempt is fenced out.

        None if there is nothing to do: unknown, over, cancelled while its engine was dead, or claimed
        `max_attempts` times without an end, which fails it with the code crashed {attempts}.
        """
        table, now = tables.jobs, self._database.now()
        own = table.c.id == job_id
        async with self._database.write() as connection:
            row = (await connection.execute(select(table).where(own).with_for_update())).one_or_none()
            if row is None or (job := job_from_row(row)).over:
                return None
            end: dict[str, Any] | None = None
            if job.cancel_requested:
                end = {"state": State.CANCELLED.value}
            elif job.attempt >= SPECS[job.kind].max_attempts:
                end = {"state": State.FAILED.value, "error": {"code": "crashed", "facts": {"attempts": job.attempt}}}
            if end:
                await connection.execute(table.update().where(own).values(finished=now, **end))
                return None
            values = {"state": State.RUNNING.value, "attempt": job.attempt + 1, "started": job.started or now}
            update = table.update().where(own).values(values).returning(table)
            return job_from_row((await connection.execute(update)).one())

    async def renew(self, job_id: str, attempt: int) -> Literal["go", "cancel", "lost"]:
        """Whether this attempt goes on, shall end, or is no longer the job's (a newer one or an end exists)."""
        job = await self.get(job_id)
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
        running_attempt = (table.c.id == job_id, table.c.attempt == attempt, table.c.state == State.RUNNING)
        values = {"state": state.value, "finished": self._database.now(), "result": result, "error": error}
        async with self._database.write() as connection:
            update = table.update().where(*running_attempt).values(values).returning(table)
            row = (await connection.execute(update)).one_or_none()
            if row is None:
                return False
            deleted = bool(pictures) and not await _all_exist(connection, avatars_in(job_from_row(row).payload))
            if deleted or (adapter and not await _set_adapter(connection, adapter)):
                values = {"state": State.CANCELLED.value, "result": None}
                await connection.execute(table.update().where(table.c.id == job_id).values(values))
                return False
            for position, (key, seed) in enumerate(pictures):
                picture = {"job_id": job_id, "position": position, "key": key, "seed": seed}
                await connection.execute(tables.pictures.insert().values(**self._database.new_row(), **picture))
            return True

    async def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask a running one to stop, leave one that is over. Raises UserError missing_job."""
        query = select(tables.jobs).where(tables.jobs.c.id == job_id)
        async with self._database.write() as connection:
            job = job_from_row(await one(connection, query.with_for_update(), "missing_job"))
            await cancel(connection, job, self._database.now())
            return job_from_row((await connection.execute(query)).one())

    # Answering

    async def undelivered(self, frontend: str) -> list[Job]:
        """This frontend's jobs that are over and not answered, in the order they ended."""
        table = tables.jobs
        query = select(table).where(
            table.c.frontend == frontend, table.c.state.in_(TERMINAL), table.c.delivered.is_(None)
        )
        rows = await self._database.rows(query.order_by(table.c.finished, table.c.id))
        return [job_from_row(row) for row in rows]

    async def mark_delivered(self, job_id: str) -> bool:
        """Record the answer. True for the first caller only; False also while the job is not over."""
        table = tables.jobs
        unanswered = (table.c.id == job_id, table.c.state.in_(TERMINAL), table.c.delivered.is_(None))
        update = table.update().where(*unanswered).values(delivered=self._database.now())
        async with self._database.write() as connection:
            return bool((await connection.execute(update)).rowcount)

    async def set_progress_ref(self, job_id: str, ref: str | None) -> None:
        """Remember the message that shows this job's progress."""
        update = tables.jobs.update().where(tables.jobs.c.id == job_id).values(progress_ref=ref)
        async with self._database.write() as connection:
            await connection.execute(update)

    # Pictures

    async def pictures(self, job_id: str) -> list[Picture]:
        """What the job drew, in order."""
        query = select(tables.pictures).where(tables.pictures.c.job_id == job_id)
        rows = await self._database.rows(query.order_by(tables.pictures.c.position))
        return [Picture(**row._mapping) for row in rows]

    async def drawings(self, user_id: str, *, skip: int = 0, limit: int = JOBS_MOST) -> list[tuple[Job, list[Picture]]]:
        """This user's drawings that have pictures left, newest first: `limit` jobs after the first `skip`.

        The pictures of a job are in order. One query, however many jobs.
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
        for row in await self._database.rows(query.order_by(page.c.created.desc(), page.c.id, pictures.c.position)):
            values = dict(row._mapping)
            picture = Picture(**{column.name: values.pop(f"picture_{column.name}") for column in pictures.c})
            _, of_job = found.setdefault(picture.job_id, (job_from_values(values), []))
            of_job.append(picture)
        return list(found.values())

    async def delete_pictures(self, job_id: str) -> list[str]:
        """Delete the job's pictures. Returns the blobs to erase: keys, and the prefix below which engines write."""
        table = tables.pictures
        statement = delete(table).where(table.c.job_id == job_id).returning(table.c.key)
        async with self._database.write() as connection:
            return [*await connection.scalars(statement), keys.pictures(job_id)]


async def _set_adapter(connection: AsyncConnection, adapter: AdapterOutcome) -> bool:
    """False if the avatar was deleted."""
    values = {"state": "ready", "adapter_key": adapter.adapter_key, "details": adapter.details}
    update = tables.avatars.update().where(tables.avatars.c.id == adapter.avatar_id).values(values)
    return bool((await connection.execute(update)).rowcount)


async def _all_exist(connection: AsyncConnection, avatar_ids: Collection[str]) -> bool:
    table = tables.avatars
    query = select(func.count()).select_from(table).where(table.c.id.in_(avatar_ids))
    return bool(await connection.scalar(query) == len(set(avatar_ids)))
