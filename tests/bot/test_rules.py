"""Whatever people share, take back, link, forget and are banned for, in whatever order: nobody without ownership or a
live grant draws, cancels, shares, exports, renames or erases somebody's avatar."""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.commands.commands import Commands
from bot.messages import Caller
from storage.blobs import MemoryBlobs
from storage.events import MemoryEvents
from storage.jobs import Imagine
from storage.records import Job, Records

pytestmark = pytest.mark.slow
runner: asyncio.Runner
records: Records
worlds = count()

ACCOUNTS = [("chat", "anna"), ("chat", "ben"), ("chat", "cleo"), ("discord", "1"), ("discord", "2"), ("telegram", "3")]
ROOMS = ["studio", "kitchen"]
accounts, rooms = st.sampled_from(ACCOUNTS), st.sampled_from(ROOMS)
spans = st.sampled_from([None, 1, 24])
"""Hours."""


@pytest.fixture(autouse=True, scope="module")
def storage() -> Iterator[None]:
    global runner, records
    runner = asyncio.Runner()
    records = runner.run(Records.open("sqlite+aiosqlite://"))
    yield
    runner.run(records.close())
    runner.close()


def do(call: Coroutine[Any, Any, Any]) -> Any:
    return runner.run(call)


class NoQueue:
    async def enqueue(self, job: Job) -> None: ...

    async def styles(self) -> list[str]:
        return []


@dataclass
class Grant:
    kind: str
    to: Any
    ends: datetime | None


@dataclass
class Model:
    """One avatar as it should be."""

    owner: int
    token: str
    grants: list[Grant] = field(default_factory=list)


class Rights(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = next(worlds)
        self.clock = timedelta()
        records.database.clock = lambda: datetime.now(UTC) + self.clock
        self.commands = Commands(records, MemoryBlobs(), NoQueue(), MemoryEvents(), ["chat:olga"])
        self.persons = count()
        self.person = {account: next(self.persons) for account in ACCOUNTS}
        self.banned: set[int] = set()
        self.avatars: dict[str, Model] = {}
        self.tokens = count(1)
        self.jobs: dict[str, tuple[int, str]] = {}

    # How the machine acts

    def caller(self, account: tuple[str, str], room: str) -> Caller:
        platform, name = account
        return Caller(platform, f"{name}-{self.world}", f"{name}-{self.world}", f"{room}-{self.world}")

    def say(self, account: tuple[str, str], room: str, text: str) -> Any:
        return do(self.commands.line(self.caller(account, room), text))

    def press(self, account: tuple[str, str], room: str, action: str) -> Any:
        return do(self.commands.press(self.caller(account, room), action))

    def user(self, account: tuple[str, str]) -> Any:
        caller = self.caller(account, "studio")
        return do(records.users.get_or_create(caller.platform, caller.platform_id, caller.name))

    # What should be

    def now(self) -> datetime:
        return records.database.now()

    def live(self, grant: Grant) -> bool:
        return grant.ends is None or grant.ends > self.now()

    def owns(self, account: tuple[str, str], avatar: str) -> bool:
        return avatar in self.avatars and self.avatars[avatar].owner == self.person[account]

    def may_draw(self, person: int, scope: str, avatar: str) -> bool:
        if avatar not in self.avatars or {person, self.avatars[avatar].owner} & self.banned:
            return False
        granted = any(
            self.live(grant) and (grant.kind, grant.to) in (("room", scope), ("user", person))
            for grant in self.avatars[avatar].grants
        )
        return granted or self.avatars[avatar].owner == person

    def pick(self, number: int) -> str:
        # By age: identifiers are random, and a sequence of rules that is repeated must choose the same avatar.
        return list(self.avatars)[number % len(self.avatars)]

    def give(self, avatar: str, kind: str, to: Any, hours: int | None) -> None:
        model = self.avatars[avatar]
        model.grants = [grant for grant in model.grants if (grant.kind, grant.to) != (kind, to)]
        model.grants.append(Grant(kind, to, self.now() + timedelta(hours=hours) if hours else None))

    # What people do

    @rule(account=accounts)
    @precondition(lambda self: len(self.avatars) < 5)
    def train(self, account: tuple[str, str]) -> None:
        token = f"av{next(self.tokens)}x{self.world}"[:16]
        owner = self.user(account)
        avatar = do(records.avatars.create(owner.id, token, "woman", [], "1"))
        do(records.avatars.update(avatar.id, state="ready", adapter_key=f"adapters/{avatar.id}/a"))
        self.avatars[avatar.id] = Model(self.person[account], token)

    @rule(account=accounts, room=rooms, number=st.integers(0, 9))
    @precondition(lambda self: self.avatars)
    def imagine(self, account: tuple[str, str], room: str, number: int) -> None:
        avatar = self.pick(number)
        caller = self.caller(account, room)
        reply = self.say(account, room, f"/imagine {self.avatars[avatar].token} at the sea --count 1")
        assert (reply.job_id is not None) == self.may_draw(self.person[account], caller.grant_scope, avatar)
        if reply.job_id:
            job = do(records.jobs.get(reply.job_id))
            assert job.payload.avatar_ids == (avatar,)
            self.jobs[job.id] = (self.person[account], avatar)

    @rule(account=accounts, room=rooms, number=st.integers(0, 9))
    @precondition(lambda self: self.jobs)
    def again(self, account: tuple[str, str], room: str, number: int) -> None:
        job_id = list(self.jobs)[number % len(self.jobs)]
        person, avatar = self.jobs[job_id]
        job, caller = do(records.jobs.get(job_id)), self.caller(account, room)
        seen = job is not None and (
            person == self.person[account] or (job.frontend, job.room) == (caller.platform, caller.room)
        )
        reply = self.press(account, room, f"again:{job_id}")
        allowed = seen and self.may_draw(self.person[account], caller.grant_scope, avatar)
        assert (reply.job_id is not None) == allowed
        if reply.job_id:
            self.jobs[reply.job_id] = (self.person[account], avatar)

    @rule(account=accounts, room=rooms, number=st.integers(0, 9))
    @precondition(lambda self: self.jobs)
    def cancel(self, account: tuple[str, str], room: str, number: int) -> None:
        job_id = list(self.jobs)[number % len(self.jobs)]
        before = do(records.jobs.get(job_id))
        self.press(account, room, f"cancel:{job_id}")
        after = do(records.jobs.get(job_id))
        if before is not None and not before.over:
            assert after.over == (self.jobs[job_id][0] == self.person[account])

    @rule(account=accounts, room=rooms, number=st.integers(0, 9), hours=spans, button=st.booleans())
    @precondition(lambda self: self.avatars)
    def share_here(self, account: tuple[str, str], room: str, number: int, hours: int | None, button: bool) -> None:
        avatar = self.pick(number)
        hours = None if button else hours
        expires = f" --expires {hours}h" if hours else ""
        if button:
            reply = self.press(account, room, f"share:{avatar}")
        else:
            reply = self.say(account, room, f"/share {self.avatars[avatar].token}{expires}")
        allowed = self.owns(account, avatar) and self.person[account] not in self.banned
        assert (not reply.private) == allowed
        if allowed:
            self.give(avatar, "room", self.caller(account, room).grant_scope, hours)

    @rule(account=accounts, whom=accounts, number=st.integers(0, 9), hours=spans)
    @precondition(lambda self: self.avatars)
    def share_with(self, account: tuple[str, str], whom: tuple[str, str], number: int, hours: int | None) -> None:
        avatar = self.pick(number)
        self.user(whom)
        name = self.caller(whom, "studio").platform_id
        expires = f" --expires {hours}h" if hours else ""
        self.say(account, "studio", f"/share {self.avatars[avatar].token} {name}{expires}")
        same = account[0] == whom[0] and self.person[account] != self.person[whom]
        if same and self.owns(account, avatar) and self.person[account] not in self.banned:
            self.give(avatar, "user", self.person[whom], hours)

    @rule(account=accounts, room=rooms, number=st.integers(0, 9))
    @precondition(lambda self: self.avatars)
    def unshare(self, account: tuple[str, str], room: str, number: int) -> None:
        avatar = self.pick(number)
        model, scope = self.avatars[avatar], self.caller(account, room).grant_scope
        self.say(account, room, f"/unshare {model.token}")
        if self.owns(account, avatar):
            # One that has ended already is not there to be taken back.
            model.grants = [
                grant for grant in model.grants if (grant.kind, grant.to) != ("room", scope) or not self.live(grant)
            ]

    @rule(account=accounts, number=st.integers(0, 9), which=st.integers(0, 9))
    @precondition(lambda self: any(model.grants for model in self.avatars.values()))
    def take_back(self, account: tuple[str, str], number: int, which: int) -> None:
        avatar = self.pick(number)
        rows = do(records.grants.for_avatar(avatar))
        if not rows:
            return
        row = rows[which % len(rows)]
        self.press(account, "studio", f"revoke:{row.id}")
        left = do(records.grants.for_avatar(avatar))
        if not self.owns(account, avatar):
            assert left == rows
            return
        assert row not in left
        whom = {self.user(one).id: self.person[one] for one in ACCOUNTS}
        to = row.grantee_id if row.grantee_kind == "room" else whom[row.grantee_id]
        model = self.avatars[avatar]
        model.grants = [grant for grant in model.grants if (grant.kind, grant.to) != (row.grantee_kind, to)]

    @rule(account=accounts, number=st.integers(0, 9), verb=st.sampled_from(["export", "default", "avatar", "rename"]))
    @precondition(lambda self: self.avatars)
    def touch(self, account: tuple[str, str], number: int, verb: str) -> None:
        avatar = self.pick(number)
        before = do(records.avatars.get(avatar))
        reply = self.press(account, "studio", f"{verb}:{avatar}")
        allowed = self.owns(account, avatar) and (verb == "export" or self.person[account] not in self.banned)
        assert (reply.message.tone != "warning") == allowed
        assert bool(reply.message.files) == (allowed and verb == "export")
        if not allowed:
            assert do(records.avatars.get(avatar)) == before
        saves = do(self.commands.may_save(self.caller(account, "studio"), before.adapter_key))
        assert saves == self.owns(account, avatar)

    @rule(account=accounts, number=st.integers(0, 9), token=st.booleans())
    @precondition(lambda self: self.avatars)
    def erase(self, account: tuple[str, str], number: int, token: bool) -> None:
        avatar = self.pick(number)
        if token:
            asked = self.say(account, "studio", f"/delete {self.avatars[avatar].token}")
            assert bool(asked.message.buttons) == self.owns(account, avatar)
            return
        self.press(account, "studio", f"erase:{avatar}")
        assert (do(records.avatars.get(avatar)) is None) == self.owns(account, avatar)
        if self.owns(account, avatar):
            del self.avatars[avatar]

    @rule(account=accounts, other=accounts)
    def link(self, account: tuple[str, str], other: tuple[str, str]) -> None:
        main, joined = self.person[account], self.person[other]
        code = do(records.users.link_code(self.user(account).id))
        reply = self.say(other, "studio", f"/link {code}")
        platforms = [{one[0] for one in ACCOUNTS if self.person[one] == person} for person in (main, joined)]
        allowed = main != joined and not platforms[0] & platforms[1] and not {main, joined} & self.banned
        assert (reply.message.tone == "good") == allowed
        if not allowed:
            return
        self.person = {one: main if person == joined else person for one, person in self.person.items()}
        self.jobs = {job: (main if person == joined else person, avatar) for job, (person, avatar) in self.jobs.items()}
        for model in self.avatars.values():
            model.owner = main if model.owner == joined else model.owner
            theirs = [grant for grant in model.grants if grant.kind == "user" and grant.to in (main, joined)]
            model.grants = [grant for grant in model.grants if grant not in theirs]
            if model.owner != main:
                model.grants += [Grant("user", main, grant.ends) for grant in theirs]

    @rule(account=accounts, by=accounts)
    def forget(self, account: tuple[str, str], by: tuple[str, str]) -> None:
        person, user_id = self.person[account], self.user(account).id
        self.press(by, "studio", f"forget-all:{user_id}")
        if self.person[by] != person:
            assert self.user(account).id == user_id
            return
        assert do(records.users.accounts(user_id)) == []
        self.avatars = {avatar: model for avatar, model in self.avatars.items() if model.owner != person}
        for model in self.avatars.values():
            model.grants = [grant for grant in model.grants if (grant.kind, grant.to) != ("user", person)]
        self.jobs = {job: (who, avatar) for job, (who, avatar) in self.jobs.items() if who != person}
        for one in [one for one in ACCOUNTS if self.person[one] == person]:
            self.person[one] = next(self.persons)
            if person in self.banned:
                self.banned.add(self.person[one])

    @rule(account=accounts, lifted=st.booleans())
    def ban(self, account: tuple[str, str], lifted: bool) -> None:
        caller = self.caller(account, "studio")
        duty = "unban" if lifted else "ban"
        olga = Caller("chat", "olga", "Olga", "studio")
        text = f"/operator {duty} {caller.account}"
        self.say(account, "studio", text)  # by somebody who is no operator: nothing happens
        do(self.commands.line(olga, text))
        (self.banned.discard if lifted else self.banned.add)(self.person[account])

    @rule(hours=st.sampled_from([2, 30]))
    def wait(self, hours: int) -> None:
        self.clock += timedelta(hours=hours)

    # What always holds

    @invariant()
    def nothing_is_under_way_without_a_right(self) -> None:
        """What was asked for under a grant that has ended since may be drawn to its end; all else is stopped."""
        for job_id, (person, avatar) in self.jobs.items():
            job = do(records.jobs.get(job_id))
            if job is None or job.over:
                continue
            assert isinstance(job.payload, Imagine) and job.payload.avatar_ids == (avatar,)
            model = self.avatars[avatar]
            granted = {(grant.kind, grant.to) for grant in model.grants}
            assert model.owner == person or granted & {("user", person), ("room", job.grant_scope)}
            assert not {person, model.owner} & self.banned

    @invariant()
    def the_owners_are_the_owners(self) -> None:
        ids = {(self.person[one], self.user(one).id) for one in ACCOUNTS}
        assert len(ids) == len(set(self.person.values()))
        for avatar, model in self.avatars.items():
            assert (model.owner, do(records.avatars.get(avatar)).owner_id) in ids


Rights.TestCase.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRights = Rights.TestCase
