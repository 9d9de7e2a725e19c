"""A request makes one job, however often and to however many processes a platform delivers it."""

import asyncio
import re
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from storage.errors import UserError
from storage.jobs import Imagine, Inspect, JobKind, State
from storage.records import Job, Records, User

REQUEST = "telegram:4711"


async def draw(records: Records, user_id: str, request: str | None = REQUEST) -> Job:
    return await records.jobs.create(JobKind.IMAGINE, user_id, "telegram", "1", Imagine("x"), request=request)


@pytest.fixture
async def ann(records: Records) -> User:
    return await records.users.get_or_create("telegram", "11", "Ann")


async def test_a_request_makes_one_job(records: Records, ann: User) -> None:
    job = await draw(records, ann.id)
    assert job.request == REQUEST
    await records.jobs.claim(job.id)
    again = await draw(records, ann.id)
    assert (again.id, again.state) == (job.id, State.RUNNING), "as it is now"
    other, *unnamed = [await draw(records, ann.id, "telegram:4712"), *[await draw(records, ann.id, None) for _ in "ab"]]
    assert len({job.id, other.id, *(one.id for one in unnamed)}) == 4
    assert len(await records.jobs.for_user(ann.id)) == 4
    with pytest.raises(ValueError, match="imagine before"):
        await records.jobs.create(JobKind.INSPECT, ann.id, "telegram", "1", Inspect("a"), request=REQUEST)


async def test_nobody_receives_another_persons_job(records: Records, ann: User) -> None:
    bob = await records.users.get_or_create("telegram", "22", "Bob")
    job, other = await draw(records, ann.id), await draw(records, bob.id)
    assert job.id != other.id and (job.user_id, other.user_id) == (ann.id, bob.id)
    await records.users.forget(ann.id)
    assert (await draw(records, bob.id)).id == other.id, "an erasure concerns nobody else's requests"


async def test_two_processes_that_receive_a_request_make_one_job(records: Records, ann: User, records_url: str) -> None:
    other = await Records.open(records_url)
    jobs = await asyncio.gather(*(draw(side, ann.id) for _ in range(8) for side in (records, other)))
    await other.close()
    assert len({job.id for job in jobs}) == 1
    assert len(await records.jobs.for_user(ann.id)) == 1


async def test_the_database_itself_refuses_a_second_job(records: Records, ann: User, records_url: str) -> None:
    job = await draw(records, ann.id)
    await draw(records, ann.id, None)
    with sqlite3.connect(records_url.removeprefix("sqlite+aiosqlite:///")) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(jobs)")]
        copied = ", ".join("'copy'" if name == "id" else name for name in columns)
        with pytest.raises(sqlite3.IntegrityError, match=r"jobs\.user_id, jobs\.request"):
            database.execute(f"INSERT INTO jobs SELECT {copied} FROM jobs WHERE id = ?", (job.id,))
    database.close()


async def test_an_error_that_is_no_doubled_request_is_raised(
    records: Records, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.choice", lambda letters: letters[0])  # every job gets the same id
    job = await draw(records, ann.id)
    assert (await draw(records, ann.id)).id == job.id
    with pytest.raises(IntegrityError):
        await draw(records, ann.id, "telegram:4712")


async def test_a_request_is_known_after_its_account_was_joined(records: Records, ann: User) -> None:
    there = await records.users.get_or_create("discord", "1", "Ann")
    job, clashing = await draw(records, there.id), await draw(records, ann.id)
    kept = await draw(records, there.id, "discord:9")
    await records.users.link(there.id, await records.users.link_code(ann.id))
    assert (await draw(records, there.id, "discord:9")).id == kept.id
    assert (await draw(records, ann.id)).id == (await draw(records, there.id)).id == clashing.id
    joined = await records.jobs.get(job.id)
    assert joined and (joined.user_id, joined.request) == (ann.id, None)


async def test_a_request_that_arrives_again_after_an_erasure_does_nothing(records: Records, ann: User) -> None:
    await draw(records, ann.id)
    assert (await records.users.get_or_create("telegram", "11", "Ann", request=REQUEST)).id == ann.id
    await records.users.forget(ann.id)
    with pytest.raises(UserError, match="forgotten"):
        await draw(records, ann.id)
    with pytest.raises(UserError, match="forgotten"):
        await records.users.get_or_create("telegram", "11", "Ann", request=REQUEST)
    assert not await records.users.exists("telegram", "11"), "nobody was written down"
    # They come back by another request; the old one still makes nothing, the new one does.
    back = await records.users.get_or_create("telegram", "11", "Ann", request="telegram:4800")
    with pytest.raises(UserError, match="forgotten"):
        await draw(records, back.id)
    assert await records.jobs.for_user(back.id) == []
    assert (await draw(records, back.id, "telegram:4800")).user_id == back.id


async def test_a_request_is_erased_with_its_person(records: Records, ann: User, records_url: str) -> None:
    job = await draw(records, ann.id)
    assert [row["request"] for row in (await records.users.export(ann.id))["jobs"]] == [REQUEST], "it is exported too"
    await records.users.forget(ann.id)
    with sqlite3.connect(records_url.removeprefix("sqlite+aiosqlite:///")) as database:
        dump = "\n".join(database.iterdump())
    database.close()
    assert not re.search(f"{job.id}|{REQUEST}|4711", dump)


async def test_the_mark_of_an_erased_request_ends(records: Records, ann: User) -> None:
    await draw(records, ann.id)
    await records.users.forget(ann.id)
    later = datetime.now(UTC) + timedelta(days=1, seconds=1)
    records.database.clock = lambda: later
    back = await records.users.get_or_create("telegram", "11", "Ann", request=REQUEST)
    assert (await draw(records, back.id)).request == REQUEST


async def test_the_job_of_a_request_is_found_through_its_persons_accounts_alone(records: Records, ann: User) -> None:
    job, _ = await draw(records, ann.id), await records.users.get_or_create("telegram", "22", "Bob")
    anna = await records.users.get_or_create("discord", "33", "Anna")

    async def found(platform: str, platform_id: str, request: str = REQUEST) -> str | None:
        requested = await records.jobs.by_request(platform, platform_id, request)
        return requested.id if requested else None

    assert await found("telegram", "11") == job.id
    assert await found("telegram", "11", "telegram:4712") is None
    assert await found("telegram", "22") is await found("telegram", "nobody") is await found("discord", "33") is None
    await records.users.link(anna.id, await records.users.link_code(ann.id))
    assert await found("discord", "33") == job.id, "the accounts are one person's now"
