"""Every error code has a sentence, and no text is longer than the platforms allow."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.replies import checks, jobs, phrases, refusals
from engine import sentences
from engine.photos.inspection import SENTENCES
from storage.errors import UserError
from storage.jobs import Imagine, JobKind, State, Train
from storage.records import Avatar, Job

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("bot", "storage") for path in (ROOT / folder).rglob("*.py")]


def test_every_raised_code_has_a_sentence() -> None:
    raised = {code for path in SOURCES for code in re.findall(r'UserError\(\s*"(\w+)"', path.read_text("utf-8"))}
    assert {"link_code", "operators_only", "photos_few", "share_gone"} <= raised
    assert raised - refusals.REFUSALS.keys() == set()


COMMAND_LINE = {
    "base_unusable", "no_photos", "no_judge", "token_and_noun", "no_file", "no_captions", "bad_captions",
    "optimiser_unusable", "tracker_missing", "seed_is_dreambooth", "lora_only", "prior_album_at_noise", "no_min_snr",
    "text_is_fixed",
    "word_stays", "not_a_lora", "token_word", "token_shape", "noun_shape", "minor", "bad_setting",
    "no_rank", "no_master", "no_team", "alone", "looks_unused", "captions_unused", "no_good_pictures", "uncaptioned",
    "would_overwrite", "file_exists", "token_noun", "magnitudes_stay", "rank_too_large", "not_for_lokr",
    "factor_is_lokr",
}  # fmt: skip
"""Codes that no job raises: its recipe is the automatic one, its token, noun and photos were checked before, and the
engine does not start without a usable base model."""


def raised_by_jobs() -> dict[str, set[str]]:
    """The names of the facts, by code, wherever the engine or the queue ends a job."""
    raised: dict[str, set[str]] = {}
    for path in [*(ROOT / "engine").rglob("*.py"), ROOT / "storage" / "queue.py"]:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            # Subclasses of UserError with one code pass it to `super().__init__`.
            position = {"UserError": 0, "__init__": 0, "_fail": 2}.get(name)
            code = call.args[position] if position is not None and len(call.args) > position else None
            if isinstance(code, ast.Constant):
                raised.setdefault(code.value, set()).update(word.arg for word in call.keywords if word.arg)
    return raised


def test_every_error_code_of_the_engine_has_a_sentence() -> None:
    raised = raised_by_jobs()
    assert {"out_of_memory", "wrong_base", "no_good_photos", "unknown_style", "internal", "timeout"} <= raised.keys()
    known = raised.keys() | sentences.SENTENCES.keys()
    # An internal error is answered with the job's number only.
    assert known - COMMAND_LINE - {"internal"} - jobs.FAILURES.keys() == set()
    # `crashed` comes from the records, after the last attempt; every other code with a sentence is raised somewhere.
    assert jobs.FAILURES.keys() - known == {"crashed"}
    assert known >= COMMAND_LINE and not COMMAND_LINE & jobs.FAILURES.keys()
    for code, wording in jobs.FAILURES.items():
        # The sentence needs no other facts than those that are raised with the code.
        facts = {name: ["inks"] if name == "styles" else 5 for name in raised.get(code, ())}
        assert len(wording(facts).split()) > 3 and "{" not in wording(facts)


def test_an_unknown_code_is_answered_too() -> None:
    assert "/help" in refusals.refusal(UserError("something_new")).text


@pytest.mark.parametrize("code", sorted(SENTENCES))
@pytest.mark.parametrize("ok", [True, False])
def test_every_verdict_has_a_sentence(code: str, ok: bool) -> None:
    verdict = checks.verdict(3, {"ok": ok, "codes": [code], "facts": {}})
    assert verdict.tone == ("warning" if ok else "trouble")
    assert "_" not in verdict.text
    assert len(verdict.text.split()) >= 2


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.2, "59 s"), (61, "1 min"), (3600, "1 h"), (4800, "1 h 20 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert phrases.duration(seconds) == said


def test_a_training_says_when_it_continues_with_less_memory() -> None:
    now = datetime.now(UTC)
    job = Job("1", JobKind.TRAIN, "person", "chat", "room", Train("avatar"), State.RUNNING, 1, now, now, None, None,
              None, False, None, None)  # fmt: skip
    facts = {"step": 3, "steps": 10, "seconds_left": 5.0}
    more: tuple[dict[str, bool], ...] = ({}, {"short": True}, {"anew": True})
    plain, short, anew = (jobs.under_way(job, "cr7d", "step", facts | one) for one in more)
    assert "Memory is tight" in short.text and short.text.startswith(plain.text)
    assert "begin it anew" in anew.text and anew.text.startswith(plain.text)


def test_a_full_disk_is_the_operators_matter() -> None:
    error = UserError("disk_full", folder="/data/blobs")
    now = datetime.now(UTC)
    failed = Job("1", JobKind.TRAIN, "person", "chat", "room", Train("avatar"), State.FAILED, 1, now, now, now, None,
                 {"code": error.code, "facts": error.facts}, False, None, None)  # fmt: skip
    for text in (refusals.refusal(error).text, jobs.failed(failed).text):
        assert "no space left" in text and "operators" in text and "/data" not in text


@pytest.mark.parametrize(
    ("result", "notice"),
    [
        ({"notice": "cartoon"}, "cartoon"),
        ({"notice": None}, None),
        ({"cartoon": True}, "cartoon"),  # from before the engine gave codes
        ({"cartoon": False}, None),
        ({"notice": "of a newer engine"}, None),
        ({}, None),
    ],
)
def test_a_result_of_any_engine_says_whether_pictures_are_drawn(result: dict[str, object], notice: str | None) -> None:
    assert jobs.notice_of(result) == notice


def drawing(result: dict[str, object]) -> str:
    now = datetime.now(UTC)
    job = Job("1", JobKind.IMAGINE, "person", "chat", "room", Imagine("mia7"), State.SUCCEEDED, 1, now, now, now,
              result, None, False, None, None)  # fmt: skip
    answer = jobs.drawn(job, [("pictures/1/1-0.png", 7)])
    assert answer.text == "Here you are (seed 7)."  # others may read it, and it quotes no prompt
    return answer.remark or ""


def test_a_drawing_says_what_of_its_prompt_was_not_read() -> None:
    assert drawing({}) == ""
    said = "The prompt is too long for me. I did not read its end: “and a dog”"
    assert drawing({"unread": "and a dog"}) == said
    assert len(drawing({"unread": "word " * 500})) < 250
    assert "no weights" in drawing({"weights_ignored": True})
    unknown = {"unknown": [{"phrase": "flag", "similar": []}], "known": {}}
    assert drawing({"unread": "and a dog", **unknown}) == f"{said} I can't draw “flag” yet; I drew the rest."


def test_a_photo_check_proposes_a_better_name() -> None:
    avatar = Avatar("a", "owner", "cr7d", "man", "draft", None, {}, datetime.now(UTC), None)
    good = {"verdicts": [{"ok": True, "codes": [], "facts": {}}] * 5}
    plain = checks.checked(avatar, "a", good, "1").text
    told = checks.checked(avatar, "a", good | {"token": {"known": ["cr"], "proposal": "crzx"}}, "1").text
    assert plain in told and "(cr)" in told and "/train crzx man" in told
    assert "/train" not in checks.checked(avatar, "a", good | {"token": {"known": ["cr"], "proposal": None}}, "1").text
