"""Whatever engines, people and crashes do to a job in whatever order, it stays within its states, and ends once."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from storage.jobs import SPECS, TERMINAL, Imagine, JobKind, State
from storage.records import Job, Records

MAX = SPECS[JobKind.IMAGINE].max_attempts
runner: asyncio.Runner
records: Records


def setup_module() -> None:
    global runner, records
    runner = asyncio.Runner()
    records = runner.run(Records.open("sqlite+aiosqlite://"))


def teardown_module() -> None:
    runner.run(records.close())
    runner.close()


def do(call: Coroutine[Any, Any, Any]) -> Any:
    return runner.run(call)


class JobMachine(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        user = do(records.users.get_or_create("chat", "ann", "Ann"))
        self.job: Job = do(records.jobs.create(JobKind.IMAGINE, user.id, "chat", "room", Imagine("x")))
        self.state, self.attempt, self.asked, self.delivered = State.QUEUED, 0, False, 0
        self.result: dict[str, int] | None = None

    @rule(target=attempts)
    def claim(self) -> Any:
        claimed = do(records.jobs.claim(self.job.id))
        if self.state in TERMINAL:
            assert claimed is None
        elif self.asked:
            assert claimed is None
            self.state = State.CANCELLED
        elif self.attempt == MAX:
            assert claimed is None
            self.state = State.FAILED
        else:
            self.attempt += 1
            self.state = State.RUNNING
            assert claimed.attempt == self.attempt
            return self.attempt
        return multiple()

    @rule(attempt=attempts)
    def renew(self, attempt: int) -> None:
        mine = self.state is State.RUNNING and attempt == self.attempt
        assert do(records.jobs.renew(self.job.id, attempt)) == (("cancel" if self.asked else "go") if mine else "lost")

    @rule(attempt=consumes(attempts), state=st.sampled_from(sorted(TERMINAL)))
    def finish(self, attempt: int, state: State) -> None:
        mine = self.state is State.RUNNING and attempt == self.attempt
        pictures = [(f"pictures/{attempt}", attempt)]
        assert do(records.jobs.finish(self.job.id, attempt, state, {"by": attempt}, pictures=pictures)) is mine
        if mine:
            self.state, self.result = state, {"by": attempt}

    @rule()
    def cancel(self) -> None:
        do(records.jobs.request_cancel(self.job.id))
        if self.state not in TERMINAL:
            self.asked = True
            self.state = State.CANCELLED if self.state is State.QUEUED else self.state

    @rule()
    def deliver(self) -> None:
        first = do(records.jobs.mark_delivered(self.job.id))
        self.delivered += first
        assert not first or self.state in TERMINAL
        assert self.delivered == (self.state in TERMINAL)

    @invariant()
    def the_row_is_what_happened(self) -> None:
        row = do(records.jobs.get(self.job.id))
        assert (row.state, row.attempt, row.cancel_requested) == (self.state, self.attempt, self.asked)
        assert row.result == self.result
        assert (row.finished is not None) == row.over == (self.state in TERMINAL)
        assert len(do(records.jobs.pictures(self.job.id))) == (1 if self.result else 0)


JobMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestJob = JobMachine.TestCase
