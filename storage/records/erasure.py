"""Persons and their accounts: who somebody is, joining two accounts, and erasing a person. All on one transaction.

An account is somebody on one platform, a row of `users`. The person is the account that owns what they have; accounts
that were joined to it name it in `person_id`.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, String, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import naming
from storage.errors import UserError
from storage.jobs import TERMINAL, Imagine, JobKind, Payload, State, from_json, to_json
from storage.records import tables
from storage.records.rows import Forgotten, Job, Linked, User

CODE_LETTERS = "bcdfghjkmnpqrstvwxz"
CODE_LENGTH = 8
CODE_LIFE = timedelta(minutes=10)
DAY = timedelta(days=1)
REDEEMED = "link/redeemed"
"""`<digest of a code>`: {"person", "platforms", "renamed"}: whom it joined; redeeming it again changes nothing."""

_LEARNED = ("training", "ready")


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def job_of(row: Row[Any]) -> Job:
    """A row of `jobs` with its typed payload."""
    return job_from(dict(row._mapping))


def job_from(values: Mapping[str, Any]) -> Job:
    """The values of a row of `jobs` with their typed payload."""
    kind = JobKind(values["kind"])
    return Job(
        **{**values, "kind": kind, "state": State(values["state"]), "payload": from_json(kind, values["payload"])}
    )


def avatars_in(payload: Payload) -> tuple[str, ...]:
    """The avatars that a job is about."""
    return payload.avatar_ids if isinstance(payload, Imagine) else (payload.avatar_id,)


async def jobs_about(connection: AsyncConnection, avatar_ids: Collection[str]) -> list[Job]:
    """Every job that is about one of these avatars, whoever asked for it."""
    table = tables.jobs
    found: dict[str, Job] = {}
    for avatar_id in avatar_ids:
        named = cast(table.c.payload, String).contains(avatar_id)  # narrows it down; the payload decides
        for row in await connection.execute(select(table).where(named)):
            job = job_of(row)
            if avatar_id in avatars_in(job.payload):
                found[job.id] = job
    return list(found.values())


# Who somebody is


def known(*where: ColumnElement[bool]) -> Select[Any]:
    """The accounts for which this holds, each under the id and the bans of its person."""
    own, person = tables.users, tables.users.alias("person")
    of = person.c.id == func.coalesce(own.c.person_id, own.c.id)
    columns = (person.c.id, own.c.platform, own.c.platform_id, own.c.name, own.c.created, person.c.banned)
    return select(*columns, person.c.quota).join_from(own, person, of).where(*where).order_by(own.c.created)


def of_person(user_id: str) -> ColumnElement[bool]:
    """The accounts of this person."""
    return or_(tables.users.c.id == user_id, tables.users.c.person_id == user_id)


async def person_id(connection: AsyncConnection, user_id: str) -> str:
    """The person's id now: an account may have been joined to another one since somebody read it.

    Raises UserError forgotten if it was erased since.
    """
    query = select(tables.users.c.person_id).where(tables.users.c.id == user_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise UserError("forgotten")
    return str(row.person_id or user_id)


async def fingerprint(connection: AsyncConnection, platform: str, platform_id: str) -> str:
    """What tells an account from others and tells nobody who it is without this server's key."""
    return await _keyed_hash(connection, f"{platform}:{platform_id}")


async def _request_fingerprint(connection: AsyncConnection, platform: str, platform_id: str, request: str) -> str:
    return await _keyed_hash(connection, f"{platform}:{platform_id} {request}")


async def _keyed_hash(connection: AsyncConnection, text: str) -> str:
    table = tables.server
    key = await connection.scalar(select(table.c.value).where(table.c.name == "key"))
    if key is None:
        key = secrets.token_hex(32)
        await connection.execute(table.insert().values(name="key", value=key))
    return hmac.new(str(key).encode(), text.encode(), hashlib.sha256).hexdigest()


async def first_seen(connection: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Write a new account down. A ban outlives an erasure."""
    marks = tables.forgotten
    mark = await fingerprint(connection, values["platform"], values["platform_id"])
    banned = await connection.scalar(select(marks.c.banned).where(marks.c.fingerprint == mark))
    await connection.execute(tables.users.insert().values(**values, banned=banned))
    await connection.execute(marks.update().where(marks.c.fingerprint == mark).values(banned=None))
    await connection.execute(marks.delete().where(marks.c.banned.is_(None), marks.c.until < now()))


async def refuse_erased_request(
    connection: AsyncConnection, accounts: Iterable[tuple[str, str]], request: str | None
) -> None:
    """Raise UserError forgotten if one of these accounts (platform, id there) was erased after it sent this request."""
    if request is None:
        return
    table = tables.forgotten
    for platform, platform_id in accounts:
        mark = await _request_fingerprint(connection, platform, platform_id, request)
        query = select(table.c.fingerprint).where(table.c.fingerprint == mark, table.c.until > now())
        if (await connection.execute(query)).one_or_none():
            raise UserError("forgotten")


async def accounts_of(connection: AsyncConnection, user_id: str) -> list[tuple[str, str]]:
    """The person's accounts: platform, and id there."""
    return [(row.platform, row.platform_id) for row in await connection.execute(known(of_person(user_id)))]


# Joining two accounts


async def link_code(connection: AsyncConnection, user_id: str) -> str:
    """A code that joins another account to this person, once and within CODE_LIFE. It replaces earlier ones."""
    table = tables.link_codes
    owner = await person_id(connection, user_id)
    await connection.execute(table.delete().where(or_(table.c.user_id == owner, table.c.expires <= now())))
    notes = tables.notes
    await connection.execute(notes.delete().where(notes.c.space == REDEEMED, notes.c.created < now() - DAY))
    code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
    await connection.execute(table.insert().values(digest=_digest(code), user_id=owner, expires=now() + CODE_LIFE))
    return code


def _digest(code: str) -> str:
    return hashlib.sha256(code.strip().lower().encode()).hexdigest()


async def link(connection: AsyncConnection, user_id: str, code: str) -> Linked:
    """Join this account, and what it has, to the person who made the code.

    Whoever was joined by this code already is told the same again.

    Raises UserError link_code (unknown, used or too old), link_self, link_same_platform or banned.
    """
    if joined := await _redeemed(connection, user_id, code):
        return joined
    table, users = tables.link_codes, tables.users
    spent = table.delete().where(table.c.digest == _digest(code), table.c.expires > now()).returning(table.c.user_id)
    main = await connection.scalar(spent)
    if main is None:
        raise UserError("link_code")
    other = await person_id(connection, user_id)
    if other == main:
        raise UserError("link_self")
    mains = [User(**row._mapping) for row in await connection.execute(known(of_person(main)))]
    others = [User(**row._mapping) for row in await connection.execute(known(of_person(other)))]
    if {one.platform for one in mains} & {one.platform for one in others}:
        # Nobody needs it, and it is what somebody would be talked into.
        raise UserError("link_same_platform", platform=others[0].platform)
    if mains[0].banned or others[0].banned:
        raise UserError("banned")
    renamed = await _bring_avatars(connection, main, other)
    await _bring_grants(connection, main, other)
    await _bring_jobs(connection, main, other)
    await connection.execute(tables.consents.update().where(tables.consents.c.user_id == other).values(user_id=main))
    await connection.execute(table.delete().where(table.c.user_id.in_((main, other))))
    if mains[0].quota is None and others[0].quota is not None:
        await connection.execute(users.update().where(users.c.id == main).values(quota=others[0].quota))
    await connection.execute(users.update().where(of_person(other)).values(person_id=main))
    body = {"person": main, "platforms": [one.platform for one in others], "renamed": renamed}
    owner = f"{mains[0].platform}:{mains[0].platform_id}"
    note = {"space": REDEEMED, "key": _digest(code), "body": body, "owner": owner, "created": now()}
    await connection.execute(tables.notes.insert().values(note))
    return Linked(mains[0], tuple(others), tuple(renamed))


async def _redeemed(connection: AsyncConnection, user_id: str, code: str) -> Linked | None:
    """What this code did, if it joined this person."""
    table = tables.notes
    query = select(table.c.body).where(table.c.space == REDEEMED, table.c.key == _digest(code))
    body = await connection.scalar(query)
    if body is None or await person_id(connection, body["person"]) != await person_id(connection, user_id):
        return None
    accounts = [User(**row._mapping) for row in await connection.execute(known(of_person(body["person"])))]
    joined = tuple(one for one in accounts if one.platform in body["platforms"])
    main = next(one for one in accounts if one not in joined)
    return Linked(main, joined, tuple((old, new) for old, new in body["renamed"]))


async def _bring_avatars(connection: AsyncConnection, main: str, other: str) -> list[tuple[str, str]]:
    table = tables.avatars
    taken = set(await connection.scalars(select(table.c.token).where(table.c.owner_id.in_((main, other)))))
    mine = select(table.c.token).where(table.c.owner_id == main, table.c.state != "failed")
    live = set(await connection.scalars(mine))
    renamed = []
    rows = (await connection.execute(select(table).where(table.c.owner_id == other).order_by(table.c.created))).all()
    for row in rows:
        values: dict[str, Any] = {"owner_id": main}
        if row.token in live and row.state != "failed":
            token = naming.suggest_token(row.token, taken)
            taken.add(token)
            renamed.append((row.token, token))
            values |= renaming(row, token)
        await connection.execute(table.update().where(table.c.id == row.id).values(values))
    return renamed


def renaming(avatar: Row[Any], token: str) -> dict[str, Any]:
    """The values that give an avatar another name. What was learned answers to the word it was learned as."""
    return {"token": token, "word": (avatar.word or avatar.token) if avatar.state in _LEARNED else None}


async def _bring_jobs(connection: AsyncConnection, main: str, other: str) -> None:
    table = tables.jobs
    # Request keys name their platform, so that two accounts share none. Should they, one of the jobs keeps it.
    used = select(table.c.request).where(table.c.user_id == main, table.c.request.is_not(None))
    clashing = table.update().where(table.c.user_id == other, table.c.request.in_(used))
    await connection.execute(clashing.values(request=None))
    await connection.execute(table.update().where(table.c.user_id == other).values(user_id=main))


async def _bring_grants(connection: AsyncConnection, main: str, other: str) -> None:
    table = tables.grants
    to_user = table.c.grantee_kind == "user"
    rows = (await connection.execute(select(table).where(to_user, table.c.grantee_id.in_((main, other))))).all()
    owned = select(tables.avatars.c.id).where(tables.avatars.c.owner_id == main)
    own = set(await connection.scalars(owned))
    kept: dict[str, Row[Any]] = {}
    for row in rows:
        best = kept.get(row.avatar_id)
        if row.avatar_id not in own and (best is None or _later(row.expires, best.expires)):
            kept[row.avatar_id] = row
    gone = [row.id for row in rows if kept.get(row.avatar_id) is not row]
    await connection.execute(table.delete().where(table.c.id.in_(gone)))
    mine = table.update().where(table.c.id.in_([row.id for row in kept.values()]))
    await connection.execute(mine.values(grantee_id=main))


def _later(one: datetime | None, other: datetime | None) -> bool:
    return other is not None and (one is None or one > other)


# What is known of a person


async def everything(connection: AsyncConnection, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """All rows that are about this person, by table."""
    avatars, photos, grants, jobs, pictures = (
        tables.avatars, tables.photos, tables.grants, tables.jobs, tables.pictures
    )  # fmt: skip
    owned = select(avatars.c.id).where(avatars.c.owner_id == user_id)
    asked = select(jobs.c.id).where(jobs.c.user_id == user_id)
    received = and_(grants.c.grantee_kind == "user", grants.c.grantee_id == user_id)
    queries = {
        "accounts": select(tables.users).where(of_person(user_id)),
        "avatars": select(avatars).where(avatars.c.owner_id == user_id),
        "photos": select(photos).where(photos.c.avatar_id.in_(owned)),
        "consents": select(tables.consents).where(tables.consents.c.user_id == user_id),
        "grants_given": select(grants).where(grants.c.avatar_id.in_(owned)),
        "grants_received": select(grants).where(received),
        "jobs": select(jobs).where(jobs.c.user_id == user_id),
        "pictures": select(pictures).where(pictures.c.job_id.in_(asked)),
    }
    found = {name: [dict(row._mapping) for row in await connection.execute(query)] for name, query in queries.items()}
    owned_notes = select(tables.notes).where(tables.notes.c.owner.in_(await _names_of(connection, user_id)))
    found["notes"] = [dict(row._mapping) for row in await connection.execute(owned_notes)]
    found["chat_lines"] = [dict(row._mapping) for row in await _own_lines(connection, user_id)]
    return found


async def _names_of(connection: AsyncConnection, user_id: str) -> list[str]:
    """The person's accounts as platform:id."""
    return [f"{platform}:{platform_id}" for platform, platform_id in await accounts_of(connection, user_id)]


async def _own_lines(connection: AsyncConnection, user_id: str) -> Sequence[Row[Any]]:
    table = tables.messages
    accounts = [User(**row._mapping) for row in await connection.execute(known(of_person(user_id)))]
    names = {one.platform_id for one in accounts if one.platform == "chat"}
    if not names:
        return []
    # Not in SQL: SQLite lowers ASCII only.
    rows = (await connection.execute(select(table).where(table.c.author != "").order_by(table.c.id))).all()
    return [row for row in rows if row.author.lower() in names]


# Erasing a person


async def belongings(connection: AsyncConnection, user_id: str) -> list[str]:
    """The blobs of a person: keys, and prefixes that end in a slash."""
    photos, avatars = tables.photos, tables.avatars
    owned = list(await connection.scalars(select(avatars.c.id).where(avatars.c.owner_id == user_id)))
    keys = [*await connection.scalars(select(photos.c.key).where(photos.c.avatar_id.in_(owned)))]
    keys += [prefix for avatar_id in owned for prefix in (f"adapters/{avatar_id}/", f"samples/{avatar_id}/")]
    asked = await connection.scalars(select(tables.jobs.c.id).where(tables.jobs.c.user_id == user_id))
    jobs = {*asked, *(job.id for job in await jobs_about(connection, owned))}
    pictures = tables.pictures
    for row in await connection.execute(known(of_person(user_id))):
        # Where frontends keep photos that are not in an avatar yet.
        if re.fullmatch(r"[a-z0-9_-]+", row.platform_id):
            keys.append(f"incoming/{row.platform}/{row.platform_id}/")
    keys += [*await connection.scalars(select(pictures.c.key).where(pictures.c.job_id.in_(jobs)))]
    return keys + [prefix for job_id in sorted(jobs) for prefix in (f"pictures/{job_id}/", f"checkpoints/{job_id}/")]


async def forget(connection: AsyncConnection, user_id: str, lines: bool) -> Forgotten:
    """Erase a person: accounts, avatars, photos, jobs, pictures, grants, frontends' notes, and with `lines` their chat.

    Other people's jobs that drew one of the person's avatars are emptied, and stopped if they are under way. What
    stays is a fingerprint of each account, for a day or for as long as a ban lasts, and one of each request of the
    last day, so that a platform that delivers it again brings nothing back.
    """
    users, avatars, jobs, pictures, grants = (
        tables.users, tables.avatars, tables.jobs, tables.pictures, tables.grants
    )  # fmt: skip
    keys = await belongings(connection, user_id)
    owned = list(await connection.scalars(select(avatars.c.id).where(avatars.c.owner_id == user_id)))
    about = await jobs_about(connection, owned)
    mine = [job_of(row) for row in await connection.execute(select(jobs).where(jobs.c.user_id == user_id))]
    of_others = [job for job in about if job.user_id != user_id and isinstance(job.payload, Imagine)]
    drawn = pictures.c.job_id.in_([job.id for job in (*mine, *of_others)])
    received = and_(grants.c.grantee_kind == "user", grants.c.grantee_id == user_id)
    counts = {
        "avatars": len(owned),
        "photos": await _count(connection, tables.photos, tables.photos.c.avatar_id.in_(owned)),
        "pictures": await _count(connection, pictures, drawn),
        "jobs": len(mine),
        "grants": await _count(connection, grants, or_(received, grants.c.avatar_id.in_(owned))),
    }
    if lines:
        counts["lines"] = await _forget_lines(connection, user_id, {job.id for job in (*mine, *of_others)}, owned)
    await _leave_marks(connection, user_id)
    await _mark_requests(connection, await accounts_of(connection, user_id), mine)
    notes = tables.notes
    await connection.execute(notes.delete().where(notes.c.owner.in_(await _names_of(connection, user_id))))
    await connection.execute(pictures.delete().where(drawn))
    for job in of_others:
        await connection.execute(jobs.update().where(jobs.c.id == job.id).values(_emptied(job)))
    await connection.execute(grants.delete().where(received))
    await connection.execute(jobs.delete().where(jobs.c.user_id == user_id))
    await connection.execute(avatars.delete().where(avatars.c.owner_id == user_id))
    await connection.execute(users.delete().where(users.c.person_id == user_id))
    await connection.execute(users.delete().where(users.c.id == user_id))
    return Forgotten(keys, counts, [job for job in (*mine, *of_others) if not job.over])


async def _count(connection: AsyncConnection, table: Any, where: ColumnElement[bool]) -> int:
    return int(await connection.scalar(select(func.count()).select_from(table).where(where)) or 0)


def _emptied(job: Job) -> dict[str, Any]:
    """The values of somebody's job without the avatar it drew. An attempt more keeps its engine from writing."""
    count = job.payload.count if isinstance(job.payload, Imagine) else 1
    values: dict[str, Any] = {"payload": to_json(Imagine("", (), count)), "result": None, "error": None}
    if not job.over:
        attempt = job.attempt + 1 if job.state == State.RUNNING else job.attempt
        values |= {"state": State.CANCELLED.value, "finished": now(), "attempt": attempt}
    return values


async def _forget_lines(
    connection: AsyncConnection, user_id: str, job_ids: Collection[str], avatar_ids: Collection[str]
) -> int:
    """The person's own lines in the chat, and the bot's about their jobs and avatars; how many went."""
    table = tables.messages
    own = [row.id for row in await _own_lines(connection, user_id)]
    said = (await connection.execute(select(table.c.id, table.c.body).where(table.c.author == ""))).all()
    about = [row.id for row in said if row.body.get("job") in job_ids or (row.body.get("avatar") or "") in avatar_ids]
    await connection.execute(table.delete().where(table.c.id.in_([*own, *about])))
    return len(own) + len(about)


async def _leave_marks(connection: AsyncConnection, user_id: str) -> None:
    """Keep a ban, and what was drawn and trained today, or an erasure would be the way around both."""
    table = tables.forgotten
    accounts = [User(**row._mapping) for row in await connection.execute(known(of_person(user_id)))]
    used = await spent(connection, user_id)
    values = {
        "banned": accounts[0].banned,
        "spent": {what: sum(amount for _, amount in uses) for what, uses in used.items()},
        "until": now() + DAY,
    }
    if not values["banned"] and not any(used.values()):
        return
    for account in accounts:
        mark = await fingerprint(connection, account.platform, account.platform_id)
        await connection.execute(table.delete().where(table.c.fingerprint == mark))
        await connection.execute(table.insert().values(fingerprint=mark, **values))


async def _mark_requests(connection: AsyncConnection, accounts: Iterable[tuple[str, str]], jobs: Iterable[Job]) -> None:
    """Keep a fingerprint of the requests of the last day, which is as long as platforms deliver one again."""
    table, since = tables.forgotten, now() - DAY
    requests = {job.request for job in jobs if job.request is not None and job.created > since}
    for (platform, platform_id), request in product(accounts, requests):
        mark = await _request_fingerprint(connection, platform, platform_id, request)
        await connection.execute(table.delete().where(table.c.fingerprint == mark))
        await connection.execute(table.insert().values(fingerprint=mark, spent={}, until=now() + DAY))


# What a person used up


async def spent(connection: AsyncConnection, user_id: str) -> dict[str, list[tuple[datetime, int]]]:
    """The trainings and pictures of the last 24 hours: when each counts no longer, and how many, soonest first.

    What failed is given back, and what was cancelled before an engine took it.
    """
    table, marks = tables.jobs, tables.forgotten
    used: dict[str, list[tuple[datetime, int]]] = {"trainings": [], "pictures": []}
    recent = and_(table.c.user_id == user_id, table.c.created > now() - DAY)
    kinds = table.c.kind.in_((JobKind.TRAIN, JobKind.IMAGINE))
    for row in await connection.execute(select(table).where(recent, kinds).order_by(table.c.created)):
        job = job_of(row)
        if job.state == State.FAILED or (job.state == State.CANCELLED and not job.attempt):
            continue
        if isinstance(job.payload, Imagine):
            used["pictures"].append((job.created + DAY, job.payload.count))
        else:
            used["trainings"].append((job.created + DAY, 1))
    accounts = [User(**row._mapping) for row in await connection.execute(known(of_person(user_id)))]
    prints = [await fingerprint(connection, one.platform, one.platform_id) for one in accounts]
    # Accounts that were forgotten together hold the same sum.
    for what, uses in used.items():
        before = (marks.c.fingerprint.in_(prints), marks.c.until > now())
        rows = (await connection.execute(select(marks.c.until, marks.c.spent).where(*before))).all()
        if rows:
            until, amount = max((row.until, int(row.spent.get(what, 0))) for row in rows)
            uses += [(until, amount)] if amount else []
        uses.sort()
    return used


async def without_right(connection: AsyncConnection, avatar_id: str) -> list[Job]:
    """The jobs under way that draw this avatar for somebody who owns it not and has no grant for it any more."""
    users = tables.users
    query = select(users.c.id, users.c.banned).join(tables.avatars, tables.avatars.c.owner_id == users.c.id)
    row = (await connection.execute(query.where(tables.avatars.c.id == avatar_id))).one_or_none()
    owner = row.id if row else None
    live: set[tuple[str, str]] = set()
    if row is not None and not row.banned:
        grants = await connection.execute(select(tables.grants).where(live_grant(avatar_id)))
        live = {(grant.grantee_kind, grant.grantee_id) for grant in grants}
    return [
        job
        for job in await jobs_about(connection, [avatar_id])
        if job.state not in TERMINAL
        and job.user_id != owner
        and not live & {("user", job.user_id), ("room", job.place or f"{job.frontend}:{job.room}")}
    ]


def live_grant(*avatar_ids: str) -> ColumnElement[bool]:
    """The grants, of these avatars if any are named, that have not ended."""
    table = tables.grants
    lives = or_(table.c.expires.is_(None), table.c.expires > now())
    return and_(lives, table.c.avatar_id.in_(avatar_ids)) if avatar_ids else lives


async def ban(connection: AsyncConnection, platform: str, platform_id: str, since: datetime | None) -> User | None:
    """Ban an account's person, or with None lift the ban. None back if the account is unknown: it is banned unseen."""
    users, marks = tables.users, tables.forgotten
    row = (
        await connection.execute(known(users.c.platform == platform, users.c.platform_id == platform_id))
    ).one_or_none()
    if row is not None:
        await connection.execute(users.update().where(users.c.id == row.id).values(banned=since))
        return User(**{**row._mapping, "banned": since})
    mark = await fingerprint(connection, platform, platform_id)
    held = (await connection.execute(marks.update().where(marks.c.fingerprint == mark).values(banned=since))).rowcount
    if not held and since is not None:
        values = {"fingerprint": mark, "banned": since, "spent": {}, "until": since}
        await connection.execute(marks.insert().values(values))
    return None
