"""The wording: every code has its own, and nothing in it is longer than the platforms carry."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot import replies
from engine.inspection import SENTENCES
from storage.errors import UserError
from storage.jobs import Kind, State, Train
from storage.records import Job

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("bot", "storage") for path in (ROOT / folder).rglob("*.py")]


def test_every_code_that_is_raised_has_its_wording() -> None:
    raised = {code for path in SOURCES for code in re.findall(r'UserError\(\s*"(\w+)"', path.read_text("utf-8"))}
    assert {"link_code", "operators_only", "photos_few", "share_gone"} <= raised
    assert raised - replies.REFUSALS.keys() == set()


def test_an_unknown_code_is_answered_too() -> None:
    assert "/help" in replies.refusal(UserError("something_new")).text


@pytest.mark.parametrize("code", sorted(SENTENCES))
@pytest.mark.parametrize("ok", [True, False])
def test_every_verdict_is_said_in_words(code: str, ok: bool) -> None:
    verdict = replies.verdict(3, {"ok": ok, "codes": [code], "facts": {}})
    assert verdict.tone == ("warning" if ok else "trouble")
    assert "_" not in verdict.text
    assert len(verdict.text.split()) >= 2


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.2, "59 s"), (61, "1 min"), (3600, "1 h"), (4800, "1 h 20 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert replies.duration(seconds) == said


def test_a_training_that_goes_on_with_less_memory_says_so() -> None:
    now = datetime.now(UTC)
    job = Job("1", Kind.TRAIN, "person", "chat", "room", Train("avatar"), State.RUNNING, 1, now, now, None, None, None,
              False, None, None)  # fmt: skip
    facts = {"step": 3, "steps": 10, "seconds_left": 5.0}
    plain, short = (replies.under_way(job, "cr7d", "step", facts | more) for more in ({}, {"short": True}))
    assert "Memory is short" in short.text and short.text.startswith(plain.text)
