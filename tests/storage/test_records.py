import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import UserError
from storage.jobs import SPECS, Imagine, Inspect, JobKind, State, Train
from storage.records import AdapterOutcome, Avatar, Job, Records, User, utc_now


class Clock:
    """The time now, and whatever a test adds to it."""

    def __init__(self) -> None:
        self.passed = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.passed

    def pass_by(self, **time: float) -> None:
        self.passed += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
async def records(request: pytest.FixtureRequest, records_url: str, clock: Clock) -> AsyncIterator[Records]:
    opened = await Records.open("sqlite+aiosqlite://" if request.param == "memory" else records_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def ann(records: Records) -> User:
    return await records.users.get_or_create("chat", "ann", "Ann")


@pytest.fixture
async def avatar(records: Records, ann: User) -> Avatar:
    return await records.avatars.create(ann.id, "cr7d", "man", ["photos/a/0", "photos/a/1"], "1")


async def imagine(records: Records, user: User, *avatar_ids: str, frontend: str = "chat") -> Job:
    payload = Imagine("cr7d man in a suit", avatar_ids)
    return await records.jobs.create(JobKind.IMAGINE, user.id, frontend, "room", payload)


# users and avatars


async def test_a_user_is_known_by_platform_and_platform_id(records: Records, ann: User) -> None:
    assert await records.users.get_or_create("chat", "ann", "Ann") == ann
    renamed = await records.users.get_or_create("chat", "ann", "Anna")
    assert (renamed.id, renamed.name) == (ann.id, "Anna")
    assert (await records.users.get_or_create("discord", "ann", "Ann")).id != ann.id
    assert ann.created.tzinfo == UTC and abs((datetime.now(UTC) - ann.created).total_seconds()) < 60


async def test_an_avatar_begins_as_a_draft_with_its_album(records: Records, ann: User, avatar: Avatar) -> None:
    assert (avatar.state, avatar.adapter_key, avatar.details) == ("draft", None, {})
    assert await records.avatars.get(avatar.id) == avatar
    assert await records.avatars.owned_by(ann.id) == [avatar]
    photos = await records.avatars.photos(avatar.id)
    assert [(p.position, p.key, p.verdict) for p in photos] == [(0, "photos/a/0", None), (1, "photos/a/1", None)]
    verdicts = [
        {"ok": True, "codes": ["soft"], "facts": {}},
        {"ok": False, "codes": ["no_face"], "facts": {"faces": 0}},
    ]
    await records.avatars.set_verdicts(avatar.id, verdicts)
    assert [photo.verdict for photo in await records.avatars.photos(avatar.id)] == verdicts
    with pytest.raises(ValueError, match="zip"):
        await records.avatars.set_verdicts(avatar.id, [{"ok": True}])
    assert [photo.verdict for photo in await records.avatars.photos(avatar.id)] == verdicts


async def test_an_owner_has_a_token_once_but_for_failures(records: Records, ann: User, avatar: Avatar) -> None:
    with pytest.raises(UserError) as refused:
        await records.avatars.create(ann.id, "cr7d", "man", ["photos/b/0"], "1")
    assert (refused.value.code, refused.value.facts) == ("token_taken", {"token": "cr7d"})
    assert await records.avatars.owned_by(ann.id) == [avatar]
    await records.avatars.update(avatar.id, state="failed")
    await records.avatars.create(ann.id, "cr7d", "man", [], "1")
    with pytest.raises(UserError, match="token_taken"):
        await records.avatars.update(avatar.id, state="training")
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    await records.avatars.create(bob.id, "cr7d", "man", [], "1")


async def test_setting_changes_only_what_is_given(records: Records, avatar: Avatar) -> None:
    await records.avatars.update(avatar.id, details={"steps": 300})
    ready = await records.avatars.update(avatar.id, state="ready", adapter_key="adapters/a/adapter.safetensors")
    assert (ready.state, ready.adapter_key, ready.details) == (
        "ready",
        "adapters/a/adapter.safetensors",
        {"steps": 300},
    )
    assert await records.avatars.update(avatar.id) == ready
    with pytest.raises(UserError, match="missing_avatar"):
        await records.avatars.update("nobody", state="ready")


async def test_grants_make_an_avatar_usable(records: Records, ann: User, avatar: Avatar) -> None:
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    assert await records.avatars.usable_by(ann.id, "room") == [avatar]
    assert await records.avatars.usable_by(bob.id, "room") == []
    grant = await records.grants.create(avatar.id, "room", "room")
    assert await records.grants.create(avatar.id, "room", "room") == grant
    await records.grants.create(avatar.id, "user", bob.id)
    assert await records.avatars.usable_by(bob.id, "room") == [avatar]
    assert await records.avatars.usable_by(bob.id, "elsewhere") == [avatar]
    assert len(await records.grants.for_avatar(avatar.id)) == 2
    assert await records.grants.revoke(avatar.id, "user", bob.id) and not await records.grants.revoke(
        avatar.id, "user", bob.id
    )
    assert await records.avatars.usable_by(bob.id, "elsewhere") == []
    with pytest.raises(UserError, match="missing_avatar"):
        await records.grants.create("nobody", "user", bob.id)


async def test_grants_end_and_begin_again(records: Records, clock: Clock, ann: User, avatar: Avatar) -> None:
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    grant = await records.grants.create(avatar.id, "user", bob.id, timedelta(minutes=1))
    assert await records.avatars.usable_by(bob.id, "room") == [avatar]
    clock.pass_by(minutes=1)
    assert await records.avatars.usable_by(bob.id, "room") == [] == await records.grants.for_avatar(avatar.id)
    assert await records.grants.get(grant.id) is None
    again = await records.grants.create(avatar.id, "user", bob.id, timedelta(hours=1))
    assert again.expires and again.expires > datetime.now(UTC) + timedelta(minutes=59)
    assert await records.avatars.usable_by(bob.id, "room") == [avatar]
    longer = await records.grants.create(avatar.id, "user", bob.id)
    assert (longer.id, longer.expires) == (again.id, None)


async def test_people_are_found_by_id_before_name(records: Records, ann: User) -> None:
    other = await records.users.get_or_create("chat", "7", "ann")
    assert await records.users.find("chat", "ann") == [ann]
    assert await records.users.find("chat", "7") == [other]
    assert {one.id for one in await records.users.find("chat", "ANN")} == {ann.id}
    assert await records.users.find("discord", "ann") == []
    third = await records.users.get_or_create("chat", "8", "Carl")
    assert await records.users.find("chat", "carl") == [third]


async def test_what_is_made_for_somebody_who_was_joined_or_forgotten_meanwhile(records: Records, ann: User) -> None:
    there = await records.users.get_or_create("discord", "1", "Ann")
    await records.users.link(there.id, await records.users.link_code(ann.id))
    late = await records.avatars.create(there.id, "ann3", "woman", [], "1")
    job = await records.jobs.create(JobKind.TRAIN, there.id, "discord", "9", Train(late.id))
    assert late.owner_id == job.user_id == ann.id
    assert (await records.users.get_or_create("discord", "1", "Ann")).id == ann.id
    gone = await records.users.forget(ann.id)
    assert [one.id for one in gone.stopped] == [job.id]
    for user_id in (ann.id, there.id):
        with pytest.raises(UserError, match="forgotten"):
            await records.avatars.create(user_id, "ann3", "woman", [], "1")
        with pytest.raises(UserError, match="forgotten"):
            await imagine(records, replace(ann, id=user_id))


async def test_a_deleted_avatar_leaves_nothing_behind(records: Records, ann: User, avatar: Avatar) -> None:
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    other = await records.avatars.create(ann.id, "ann3", "woman", [], "1")
    await records.grants.create(avatar.id, "user", bob.id)
    drawn = await imagine(records, bob, other.id, avatar.id)
    await records.jobs.claim(drawn.id)
    await records.jobs.finish(drawn.id, 1, State.SUCCEEDED, pictures=[("pictures/d/0.png", 1)])
    running = await records.jobs.create(JobKind.TRAIN, ann.id, "chat", "room", Train(avatar.id))
    await records.jobs.claim(running.id)
    queued, untouched = await imagine(records, ann, avatar.id), await imagine(records, ann, other.id)

    keys = await records.avatars.delete(avatar.id)
    assert {"photos/a/0", "photos/a/1", "pictures/d/0.png", f"adapters/{avatar.id}/"} <= set(keys)
    assert f"checkpoints/{running.id}/" in keys and not any(untouched.id in key for key in keys)
    assert await records.avatars.get(avatar.id) is None and await records.avatars.photos(avatar.id) == []
    assert await records.grants.for_avatar(avatar.id) == [] and await records.jobs.pictures(drawn.id) == []
    assert await records.jobs.renew(running.id, 1) == "cancel"
    assert [(await records.jobs.get(job.id)).state for job in (queued, untouched)] == [State.CANCELLED, State.QUEUED]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="missing_avatar"):
        await records.avatars.delete(avatar.id)


# jobs


async def test_a_job_from_queue_to_answer(records: Records, ann: User) -> None:
    job = await imagine(records, ann)
    assert (job.state, job.attempt, job.payload) == (State.QUEUED, 0, Imagine("cr7d man in a suit"))
    assert await records.jobs.get(job.id) == job
    await records.jobs.set_progress_ref(job.id, "message 7")
    claimed = await records.jobs.claim(job.id)
    assert claimed and (claimed.state, claimed.attempt, claimed.progress_ref) == (State.RUNNING, 1, "message 7")
    assert await records.jobs.renew(job.id, 1) == "go"
    assert await records.jobs.undelivered("chat") == [] and not await records.jobs.mark_delivered(job.id)
    pictures = [("pictures/j/0.png", 2**62), ("pictures/j/1.png", 5)]
    assert await records.jobs.finish(job.id, 1, State.SUCCEEDED, {"seconds": 1.5}, pictures=pictures)
    assert [(p.key, p.seed) for p in await records.jobs.pictures(job.id)] == pictures
    (done,) = await records.jobs.undelivered("chat")
    assert done.over and done.result == {"seconds": 1.5} and done.error is None
    assert done.started and done.finished and done.created <= done.started <= done.finished
    assert await records.jobs.undelivered("discord") == []
    assert await records.jobs.mark_delivered(job.id) and not await records.jobs.mark_delivered(job.id)
    assert await records.jobs.undelivered("chat") == []


async def test_an_older_attempt_can_write_nothing(records: Records, ann: User) -> None:
    job = await imagine(records, ann)
    first, second = await records.jobs.claim(job.id), await records.jobs.claim(job.id)
    assert first and second and (first.attempt, second.attempt) == (1, 2)
    assert await records.jobs.renew(job.id, 1) == "lost"
    assert not await records.jobs.finish(job.id, 1, State.SUCCEEDED, {"by": 1}, pictures=[("pictures/j/0.png", 1)])
    assert await records.jobs.pictures(job.id) == []
    assert await records.jobs.finish(job.id, 2, State.SUCCEEDED, {"by": 2}, pictures=[("pictures/j/0.png", 2)])
    assert not await records.jobs.finish(job.id, 2, State.FAILED, error={"code": "internal", "facts": {}})
    assert await records.jobs.claim(job.id) is None and await records.jobs.renew(job.id, 2) == "lost"
    row = await records.jobs.get(job.id)
    assert row and (row.state, row.result) == (State.SUCCEEDED, {"by": 2})


async def test_only_one_of_many_finishes_wins(records: Records, ann: User) -> None:
    job = await imagine(records, ann)
    await records.jobs.claim(job.id)
    wins = await asyncio.gather(*(records.jobs.finish(job.id, 1, State.SUCCEEDED, {"by": n}) for n in range(8)))
    assert sorted(wins) == [False] * 7 + [True]


async def test_a_training_hands_its_adapter_over_as_it_ends(records: Records, ann: User, avatar: Avatar) -> None:
    job = await records.jobs.create(JobKind.TRAIN, ann.id, "chat", "room", Train(avatar.id))
    for _ in range(2):
        await records.jobs.claim(job.id)
    old, new = (AdapterOutcome(avatar.id, f"adapters/{n}", {"by": n}) for n in (1, 2))
    assert not await records.jobs.finish(job.id, 1, State.SUCCEEDED, {}, adapter=old)
    assert await records.avatars.get(avatar.id) == avatar
    assert await records.jobs.finish(job.id, 2, State.SUCCEEDED, {}, adapter=new)
    ready = await records.avatars.get(avatar.id)
    assert ready and (ready.state, ready.adapter_key, ready.details) == ("ready", "adapters/2", {"by": 2})


async def test_a_training_whose_avatar_is_deleted_ends_cancelled(records: Records, ann: User, avatar: Avatar) -> None:
    job = await records.jobs.create(JobKind.TRAIN, ann.id, "chat", "room", Train(avatar.id))
    await records.jobs.claim(job.id)
    await records.avatars.delete(avatar.id)
    adapter = AdapterOutcome(avatar.id, "adapters/1", {})
    assert not await records.jobs.finish(job.id, 1, State.SUCCEEDED, {"seconds": 1}, adapter=adapter)
    row = await records.jobs.get(job.id)
    assert row and (row.state, row.result) == (State.CANCELLED, None) and row.finished


async def test_a_job_that_kills_its_engines_fails(records: Records, ann: User) -> None:
    job = await imagine(records, ann)
    limit = SPECS[JobKind.IMAGINE].max_attempts
    assert [bool(await records.jobs.claim(job.id)) for _ in range(limit + 2)] == [True] * limit + [False] * 2
    row = await records.jobs.get(job.id)
    assert row and (row.state, row.error) == (State.FAILED, {"code": "crashed", "facts": {"attempts": limit}})


async def test_cancelling(records: Records, ann: User) -> None:
    queued, running, dead, over = [await imagine(records, ann) for _ in range(4)]
    for job in (running, dead, over):
        await records.jobs.claim(job.id)
    await records.jobs.finish(over.id, 1, State.SUCCEEDED)
    assert (await records.jobs.request_cancel(queued.id)).state is State.CANCELLED
    asked = await records.jobs.request_cancel(running.id)
    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert await records.jobs.renew(running.id, 1) == "cancel"
    assert await records.jobs.finish(running.id, 1, State.CANCELLED)
    await records.jobs.request_cancel(dead.id)
    assert await records.jobs.claim(dead.id) is None, "its engine died before it could stop"
    assert (await records.jobs.request_cancel(over.id)).state is State.SUCCEEDED
    states = [job.state for job in await records.jobs.undelivered("chat") if job.id != over.id]
    assert states == [State.CANCELLED] * 3
    with pytest.raises(UserError, match="missing_job"):
        await records.jobs.request_cancel("nothing")


async def test_queue_positions(records: Records, ann: User) -> None:
    jobs = [await imagine(records, ann) for _ in range(4)]
    await records.jobs.create(JobKind.INSPECT, ann.id, "chat", "room", Inspect("a"))
    await records.jobs.claim(jobs[0].id)
    await records.jobs.request_cancel(jobs[2].id)
    assert [await records.jobs.queue_position(job.id) for job in jobs] == [0, 1, 0, 2]
    assert await records.jobs.queue_position("nothing") == 0
    places = await records.jobs.queue_positions()
    assert [places.get(job.id, 0) for job in jobs] == [0, 1, 0, 2]
    assert sorted(places.values()) == [1, 1, 2]


async def test_how_long_a_job_of_a_kind_takes(records: Records, clock: Clock, ann: User) -> None:
    assert await records.jobs.usual_seconds(JobKind.IMAGINE) is None
    for state in (State.SUCCEEDED, State.SUCCEEDED, State.FAILED):
        job = await imagine(records, ann)
        await records.jobs.claim(job.id)
        clock.pass_by(seconds=7)
        await records.jobs.finish(job.id, 1, state)
    usual = await records.jobs.usual_seconds(JobKind.IMAGINE)
    assert usual is not None and 7 <= usual < 9
    assert await records.jobs.usual_seconds(JobKind.TRAIN) is None


async def test_the_newest_jobs_of_a_user(records: Records, ann: User) -> None:
    jobs = [await imagine(records, ann) for _ in range(4)]
    newest = [job.id for job in reversed(jobs)]
    assert [job.id for job in await records.jobs.for_user(ann.id, limit=2)] == newest[:2]
    assert [job.id for job in await records.jobs.for_user(ann.id, since=jobs[1].created)] == newest[:3]
    assert await records.jobs.for_user(ann.id, since=jobs[3].created + timedelta(seconds=1)) == []
    await records.jobs.request_cancel(jobs[3].id)
    assert [job.id for job in await records.jobs.for_user(ann.id, active_only=True, limit=1)] == [newest[1]]


async def test_drawings_come_with_their_pictures(records: Records, ann: User) -> None:
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    jobs = [await imagine(records, person) for person in (ann, ann, ann, bob, ann, ann)]
    for number, job in enumerate(jobs[:-1]):
        await records.jobs.claim(job.id)
        drawn = [(f"pictures/{number}/{position}.png", position) for position in range(2)]
        await records.jobs.finish(job.id, 1, State.SUCCEEDED if number != 4 else State.FAILED, {}, pictures=drawn)
    await records.jobs.delete_pictures(jobs[1].id)
    drawings = await records.jobs.drawings(ann.id)
    assert [job.id for job, _ in drawings] == [jobs[2].id, jobs[0].id]
    for job, pictures in drawings:
        assert (
            job == await records.jobs.get(job.id)
            and pictures == await records.jobs.pictures(job.id)
            and len(pictures) == 2
        )
    assert await records.jobs.drawings(ann.id, limit=1) == drawings[:1]
    assert await records.jobs.drawings(ann.id, skip=1) == drawings[1:]


async def test_jobs_of_a_user_and_jobs_nobody_holds(records: Records, ann: User) -> None:
    bob = await records.users.get_or_create("chat", "bob", "Bob")
    first, second, third = await imagine(records, ann), await imagine(records, ann), await imagine(records, bob)
    await records.jobs.claim(second.id)
    await records.jobs.request_cancel(first.id)
    assert [job.id for job in await records.jobs.for_user(ann.id)] == [second.id, first.id]
    assert [job.id for job in await records.jobs.for_user(ann.id, active_only=True)] == [second.id]
    assert [job.id for job in await records.jobs.active()] == [second.id, third.id]
    assert [job.id for job in await records.jobs.active({second.id})] == [third.id]


async def test_what_is_wrong_is_refused(records: Records, ann: User) -> None:
    with pytest.raises(TypeError):
        await records.jobs.create(JobKind.TRAIN, ann.id, "chat", "room", Imagine("x"))
    with pytest.raises(ValueError, match="no end"):
        await records.jobs.finish("any", 1, State.RUNNING)
    assert await records.jobs.claim("nothing") is None and await records.jobs.renew("nothing", 1) == "lost"


# the local web chat


async def test_the_chat_history(records: Records) -> None:
    lines = [await records.chat.append("room", "ann", {"text": str(n)}) for n in range(5)]
    await records.chat.append("elsewhere", "bob", {"text": "other"})
    assert await records.chat.history("room") == lines
    assert await records.chat.history("room", after=lines[2].id) == lines[3:]
    assert await records.chat.history("room", limit=2) == lines[3:]
    edited = await records.chat.edit(lines[0].id, {"text": "better"})
    assert (await records.chat.history("room"))[0] == edited and edited.body == {"text": "better"}
    once = await records.chat.append("room", "bot", {"text": "answer"}, dedupe="job 1")
    assert await records.chat.append("room", "bot", {"text": "again"}, dedupe="job 1") == once
    assert (await records.chat.append("elsewhere", "bot", {"text": "answer"}, dedupe="job 1")).id != once.id
    with pytest.raises(UserError, match="missing_message"):
        await records.chat.edit(10**6, {})
    assert await records.chat.line("room", lines[3].id) == lines[3]
    assert await records.chat.line("elsewhere", lines[3].id) is None, "it is a line of another room"


# processes

WRITER = """
import asyncio, sys
from storage.jobs import Imagine, JobKind, State
from storage.records import Records

async def main(url, name):
    records = await Records.open(url)
    user = await records.users.get_or_create("chat", name, name)
    await records.users.get_or_create("chat", "everybody", name)
    for n in range(15):
        job = await records.jobs.create(JobKind.IMAGINE, user.id, "chat", "room", Imagine("x"))
        attempt = (await records.jobs.claim(job.id)).attempt
        assert await records.jobs.finish(job.id, attempt, State.SUCCEEDED, pictures=[("pictures/p", n)])
    shared = await records.users.get_or_create("chat", "everybody", "all")
    won = [await records.jobs.mark_delivered(job.id) for job in await records.jobs.undelivered("chat")]
    print(sum(won))
    await records.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_several_processes_write_at_once(records_url: str) -> None:
    """From an empty folder: each migrates, writes and delivers; nothing is locked out, doubled or lost."""
    command = [sys.executable, "-c", WRITER, records_url]
    children = [
        await asyncio.create_subprocess_exec(*command, f"user{n}", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(3)
    ]
    outputs = await asyncio.gather(*(child.communicate() for child in children))
    assert [child.returncode for child in children] == [0, 0, 0], outputs
    records = await Records.open(records_url)
    left = len(await records.jobs.undelivered("chat"))
    await records.close()
    assert sum(int(out) for out, _ in outputs) + left == 45
    with sqlite3.connect(records_url.removeprefix("sqlite+aiosqlite:///")) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
        assert database.execute("select count(*) from users").fetchone() == (4,)
    database.close()


async def test_notes_are_unique_in_their_space(records: Records) -> None:
    assert await records.notes.add("sent", "a_b/1", {"n": 1})
    assert not await records.notes.add("sent", "a_b/1", {"n": 2})
    assert await records.notes.add("seen", "a_b/1", {"n": 3})
    await records.notes.put("sent", "axb/1", {"n": 4})
    assert [note.body for note in await records.notes.find("sent")] == [{"n": 1}, {"n": 4}]
    assert [note.body for note in await records.notes.find("sent", "a_b/")] == [{"n": 1}]
    before = await records.notes.get("sent", "a_b/1")
    await records.notes.put("sent", "a_b/1", {"n": 5})
    after = await records.notes.get("sent", "a_b/1")
    assert before and after and after.body == {"n": 5} and after.created == before.created
    assert await records.notes.delete("sent", "a_b/1")
    assert not await records.notes.delete("sent", "a_b/1")
    assert await records.notes.get("sent", "a_b/1") is None
    assert await records.notes.prune("sent", before.created) == 0
    assert await records.notes.prune("sent", datetime.now(UTC)) == 1
    assert [note.space for note in await records.notes.find("seen")] == ["seen"]


async def test_one_holder_at_a_time_and_none_forever(records: Records, clock: Clock) -> None:
    assert await records.leases.acquire("answer", "one", 60)
    assert await records.leases.acquire("another", "two", 1)
    await records.leases.renew("two", 60)
    await records.leases.renew("one", 3)
    assert not await records.leases.acquire("answer", "two", 60)
    await records.leases.release("answer", "two")
    assert not await records.leases.acquire("answer", "two", 60), "only its holder lets it go"
    clock.pass_by(seconds=3)
    assert await records.leases.acquire("answer", "two", 60)
    assert not await records.leases.acquire("another", "one", 60)
    await records.leases.release("answer", "two")
    assert await records.leases.acquire("answer", "one", 60)


async def test_many_notes_at_once(records: Records) -> None:
    await records.notes.add("inbox", "2", {"n": 2})
    assert await records.notes.add_many("inbox", {"1": ({"n": 1}, "x:1"), "2": ({"n": 9}, None)}) == {"1"}
    assert await records.notes.add_many("inbox", {}) == set()
    assert {note.key: (note.body, note.owner) for note in await records.notes.find("inbox")} == {
        "1": ({"n": 1}, "x:1"),
        "2": ({"n": 2}, None),
    }
