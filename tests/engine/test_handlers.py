"""What an engine does around a request to the GPU process: it gathers files, stores results and records the end."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.adapters.file import FILE
from engine.learning.checkpoints import save_checkpoint
from engine.work.attempt import NotWanted
from engine.work.gpu_client import GpuDied, RequestFailed
from engine.work.handlers import CHECKPOINT, LEFT_BEHIND, Handlers, styles, sweep
from storage.atomic import atomic_write
from storage.blobs import CHUNK, Blobs, FolderBlobs, MemoryBlobs
from storage.errors import UserError
from storage.events import Event, MemoryEvents
from storage.jobs import Imagine, Inspect, JobKind, Payload, State, Train
from storage.looks import corrected, unknown
from storage.records import Job, Records

RENEW = 0.01
LARGE = bytes(range(256)) * 4096 * 3  # several chunks
REMARKS = {
    "size": {"asked": [512, 768], "drawn": [128, 128]}, "unknown": [{"phrase": "submarine", "similar": []}],
    "known": {"places": ["on the moon"]},
}  # fmt: skip


def read(path: str | Path) -> bytes:
    return Path(path).read_bytes()


def write(path: str | Path, content: bytes) -> None:
    Path(path).write_bytes(content)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Gpu:
    """Stands where the GPU process is."""

    def __init__(self, *turns: Callable[..., Any]) -> None:
        self.turns = list(turns)
        self.base: dict[str, Any] = {"nouns": None, "drawings": 0}
        self.known: list[str] = []

    async def model(self) -> Any:
        return self.base

    async def run(self, task: str, on_news: Any = None, **request: Any) -> Any:
        if task == "token":
            return {"known": self.known, "proposal": "zkqv" if self.known else None}
        return await self.turns.pop(0)(request, on_news)


class Others:
    """Stands where the queue is, with another engine's style."""

    async def styles(self) -> list[str]:
        return ["chalk"]


class Heard(MemoryEvents):
    """Events, and what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Event] = []

    async def publish(self, event: Event) -> None:
        self.published.append(event)
        await super().publish(event)


class ByPath(FolderBlobs):
    """Blobs too large for memory."""

    async def get(self, key: str) -> bytes:
        raise AssertionError(f"{key} was read whole")

    async def put(self, key: str, data: object) -> None:
        raise AssertionError(f"{key} was written from memory")


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    records = await Records.open(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite")
    yield records
    await records.close()


class Engine:
    """The handlers over these records and blobs, a user and an avatar with five photos."""

    def __init__(self, records: Records, blobs: Blobs, home: Path, *turns: Callable[..., Any]) -> None:
        self.records, self.blobs, self.home = records, blobs, home
        self.events, self.gpu = Heard(), Gpu(*turns)
        (home / "work").mkdir(exist_ok=True)
        storage: Any = SimpleNamespace(records=records, blobs=blobs, events=self.events, queue=Others())
        gpu: Any = self.gpu
        self.handlers = Handlers(storage, gpu, home / "work", renew=RENEW)

    async def job(self, payload: Payload) -> Job:
        user = await self.records.users.get_or_create("chat", "ann", "Ann")
        kind = {Inspect: JobKind.INSPECT, Train: JobKind.TRAIN, Imagine: JobKind.IMAGINE}[type(payload)]
        return await self.records.jobs.create(kind, user.id, "chat", "studio", payload)

    async def done(self, payload: Payload) -> Job:
        """The job after its handler."""
        job = await self.job(payload)
        await self.handlers.by_kind()[job.kind](job)
        ended = await self.records.jobs.get(job.id)
        assert ended is not None and not list((self.home / "work").iterdir())
        return ended

    async def avatar(self) -> str:
        user = await self.records.users.get_or_create("chat", "ann", "Ann")
        keys = [f"photos/a/{number}" for number in range(5)]
        for key in keys:
            (self.home / "photo").write_bytes(key.encode())
            await self.blobs.store(key, self.home / "photo")
            (self.home / "photo").unlink()
        return (await self.records.avatars.create(user.id, "zk7", "man", keys, "1")).id


async def test_a_drawing_brings_its_style_and_its_original(records: Records, tmp_path: Path) -> None:
    for name in ("inks", "oils", "No Name"):
        (tmp_path / "styles" / name).mkdir(parents=True)
        (tmp_path / "styles" / name / FILE).touch()
    (tmp_path / "styles" / "unfinished").mkdir()
    assert [*styles(tmp_path)] == ["inks", "oils"]
    drawn: dict[str, Any] = {}

    async def draw(request: dict[str, Any], on_news: object) -> None:
        drawn.update(request["drawing"], content=read(request["drawing"]["original"]))
        raise NotWanted

    engine = Engine(records, MemoryBlobs(), tmp_path, draw)
    await engine.blobs.put("pictures/1/0.png", b"a picture")
    asked = Imagine("a man", original="pictures/1/0.png", strength=0.3, style="oils", style_weight=0.6)
    assert (await engine.done(asked)).state == State.CANCELLED
    assert drawn["content"] == b"a picture"
    assert drawn["strength"] == 0.3
    assert drawn["avatars"] == [str(tmp_path / "styles" / "oils")]
    assert drawn["weights"] == [0.6]
    gone = await engine.done(Imagine("a man", original="pictures/1/9.png"))
    assert (gone.state, gone.error) == (State.FAILED, {"code": "picture_gone", "facts": {}})
    for name in ("ink", "../styles/oils", "unfinished"):
        refused = await engine.done(Imagine("a man", style=name))
        assert refused.error == {"code": "unknown_style", "facts": {"style": name, "styles": ["inks", "oils"]}}
    # A style that another engine has is left to that one; one that no engine has is taken, to say so.
    accepts = engine.handlers.accepts
    taken = {style: await accepts(await engine.job(Imagine("a man", style=style))) for style in (None, "oils", "gone")}
    assert taken == {None: True, "oils": True, "gone": True}
    assert not await accepts(await engine.job(Imagine("a man", style="chalk")))


@pytest.mark.parametrize("linked", [True, False], ids=["hard links", "copies"])
async def test_a_training_s_files_go_by_path_and_renewal_goes_on_meanwhile(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """Two attempts. In the first the disk is slow with a checkpoint, until the attempt has been renewed three times."""
    if not linked:
        monkeypatch.setattr(Path, "hardlink_to", lambda path, target: (_ for _ in ()).throw(OSError("no links here")))
    loop, gate, fsync, renew = asyncio.get_running_loop(), threading.Event(), os.fsync, records.jobs.renew
    slow, kept, renewed = asyncio.Event(), asyncio.Event(), 0

    def slow_fsync(descriptor: int) -> None:
        loop.call_soon_threadsafe(slow.set)
        assert gate.wait(30), "the event loop stood still while a file was stored"
        fsync(descriptor)

    async def counted(job_id: str, attempt: int) -> Any:
        nonlocal renewed
        renewed += slow.is_set()
        if renewed == 3:
            gate.set()
            kept.set()
        return await renew(job_id, attempt)

    def write(path: Path, content: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as draft:
            draft.write_bytes(content)

    async def dies(request: dict[str, Any], on_news: Any) -> None:
        assert [read(photo) for photo in request["photos"]] == [b"photos/a/%d" % number for number in range(5)]
        assert CHECKPOINT not in names(Path(request["checkpoint"]).parent)
        write(Path(request["checkpoint"]), b"1" + LARGE)
        monkeypatch.setattr(os, "fsync", slow_fsync)
        monkeypatch.setattr(records.jobs, "renew", counted)
        on_news({"news": "checkpoint", "step": 1})
        await asyncio.wait_for(kept.wait(), 40)
        raise GpuDied

    async def learns(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        checkpoint = Path(request["checkpoint"])
        assert read(checkpoint) == b"1" + LARGE
        [key] = await engine.blobs.list("checkpoints/")
        # The GPU process writes the next one: what is stored stays whole until that is stored.
        write(checkpoint, b"2" + LARGE)
        assert (tmp_path / "blobs" / key).read_bytes() == b"1" + LARGE
        on_news({"news": "checkpoint", "step": 2})
        on_news({"news": "step", "step": 2, "steps": 9, "seconds_left": 1.234, "short": True})
        async with asyncio.timeout(30):
            while (tmp_path / "blobs" / key).read_bytes() == b"1" + LARGE:
                await asyncio.sleep(0)
        assert (tmp_path / "blobs" / key).read_bytes() == b"2" + LARGE
        out = Path(request["out"])
        for name in (FILE, "0.png"):
            write(out / name, name.encode() + LARGE)
        return {
            "adapter": str(out / FILE), "samples": [str(out / "0.png")], "steps": 9, "seconds": 1.0, "resumed_at": 1,
            "recipe": {}, "notice": None, "likeness": None, "looks": None,
        }  # fmt: skip

    engine = Engine(records, ByPath(tmp_path / "blobs"), tmp_path, dies, learns)
    avatar = await engine.avatar()
    ended = await engine.done(Train(avatar))
    assert gate.is_set() and len(LARGE) > 2 * CHUNK
    assert (ended.state, ended.attempt, ended.result["resumed_at"]) == (State.SUCCEEDED, 2, 1)
    stored = {key: (tmp_path / "blobs" / key).read_bytes() for key in await engine.blobs.list()}
    folder = f"{avatar}/{ended.id}-2"
    assert stored.pop(f"adapters/{folder}/{FILE}") == FILE.encode() + LARGE
    assert stored.pop(f"samples/{folder}/0.png") == b"0.png" + LARGE
    assert [*stored] == [f"photos/a/{number}" for number in range(5)]  # and no checkpoint
    told = [(event.attempt, event.code, event.facts) for event in engine.events.published]
    step = {"step": 2, "steps": 9, "seconds_left": 1.2, "short": True}
    assert told == [(1, "started", {}), (2, "retaken", {"attempt": 2}), (2, "step", step), (2, "done", {})]


PEOPLE = {"nouns": ["man", "woman"], "drawings": 8}
"""A base that draws people, as the GPU process tells it."""
GOOD, DRAWN, BAD = ({"ok": ok, "codes": codes, "facts": {}} for ok, codes in (
    (True, []), (True, ["drawn"]), (False, ["blurred"])))  # fmt: skip
SEEN = unknown() | {"hair_colour": "red", "photos": 5}


@pytest.mark.parametrize(
    ("base", "verdicts", "seen", "told"),
    [
        (PEOPLE, [GOOD] * 5, SEEN, {"looks": SEEN}),
        (PEOPLE, [GOOD] * 4 + [BAD], SEEN, {"looks": SEEN}),
        # Nobody was seen: everything is asked.
        (PEOPLE, [GOOD] * 5, None, {"looks": unknown()}),
        # Drawings are learned as they are, and in a mixed album the majority decides.
        (PEOPLE, [DRAWN] * 5, None, {}),
        (PEOPLE, [GOOD, GOOD, GOOD, DRAWN, DRAWN], SEEN, {"looks": SEEN, "left_out": {"drawings": 2}}),
        (PEOPLE, [GOOD, GOOD, DRAWN, DRAWN, BAD], SEEN, {"looks": SEEN, "left_out": {"drawings": 2}}),
        (PEOPLE, [GOOD, DRAWN, DRAWN, DRAWN, DRAWN], SEEN, {"left_out": {"photos": 1}}),
        (PEOPLE | {"nouns": ["woman"]}, [GOOD] * 5, None, {"unknown_noun": True}),
        (PEOPLE | {"nouns": ["woman"]}, [GOOD, GOOD, GOOD, DRAWN, DRAWN], None, {"unknown_noun": True}),
        # Another base learns photos as they are.
        ({"nouns": None, "drawings": 0}, [GOOD, GOOD, GOOD, DRAWN, DRAWN], SEEN, {}),
    ],
)
async def test_a_photo_check_tells_what_the_base_makes_of_the_album(
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    base: dict[str, Any],
    verdicts: list[dict[str, Any]],
    seen: dict[str, Any] | None,
    told: dict[str, Any],
) -> None:
    async def inspected(paths: list[Path], noun: str) -> Any:
        assert len(paths) == 5 and noun == "man"
        return verdicts, seen

    monkeypatch.setattr("engine.work.handlers.inspected", inspected)
    engine = Engine(records, MemoryBlobs(), tmp_path)
    engine.gpu.base = base
    ended = await engine.done(Inspect(await engine.avatar()))
    assert ended.result == {"verdicts": verdicts} | told
    [avatar] = await records.avatars.owned_by(ended.user_id)
    assert avatar.details == ({"looks": told["looks"]} if "looks" in told else {})


async def test_every_attempt_at_a_training_draws_the_corrected_looks(records: Records, tmp_path: Path) -> None:
    drawn_from = []

    async def dies(request: dict[str, Any], on_news: Any) -> None:
        drawn_from.append(request["looks"])
        raise GpuDied

    async def learns(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        drawn_from.append(request["looks"])
        (out := Path(request["out"])).mkdir()
        (out / FILE).write_bytes(b"adapter")
        return {"adapter": str(out / FILE), "samples": [], "steps": 1, "seconds": 1.0, "resumed_at": 0, "recipe": {},
                "notice": "cartoon", "likeness": 0.9, "looks": request["looks"]}  # fmt: skip

    engine = Engine(records, MemoryBlobs(), tmp_path, dies, learns, learns)
    plain, own = await engine.avatar(), corrected(SEEN, "glasses", "yes")
    await records.avatars.update(plain, details={"looks": own})
    assert (await engine.done(Train(plain))).state == State.SUCCEEDED
    assert drawn_from == [own, own]
    ready = await records.avatars.get(plain)
    assert ready is not None and ready.details["looks"] == own and ready.details["likeness"] == 0.9


async def test_a_stored_checkpoint_stays_complete_while_the_next_is_written(tmp_path: Path) -> None:
    """It is a hard link to the file that a training replaces with its next checkpoint."""
    parameters = [torch.nn.Parameter(torch.ones(3))]
    optimiser = torch.optim.SGD(parameters)
    checkpoint, blobs = tmp_path / CHECKPOINT, FolderBlobs(tmp_path / "blobs")

    def save(step: int) -> bytes:
        save_checkpoint(checkpoint, "run", step, parameters, optimiser, None, {})
        return checkpoint.read_bytes()

    first = save(1)
    await blobs.store("checkpoints/j/x", checkpoint)
    assert checkpoint.samefile(tmp_path / "blobs" / "checkpoints" / "j" / "x")
    second = save(2)
    assert second != first == await blobs.get("checkpoints/j/x")
    await blobs.store("checkpoints/j/x", checkpoint)
    assert await blobs.get("checkpoints/j/x") == second


async def test_a_drawing_s_files_go_by_path(records: Records, tmp_path: Path) -> None:
    async def learns(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        (out := Path(request["out"])).mkdir()
        (out / FILE).write_bytes(LARGE)
        return {"adapter": str(out / FILE), "samples": [], "steps": 1, "seconds": 1.0, "resumed_at": 0, "recipe": {},
                "notice": None, "likeness": None, "looks": None}  # fmt: skip

    async def draws(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        [adapter] = request["drawing"]["avatars"]
        assert (Path(adapter) / FILE).read_bytes() == LARGE
        (out := Path(request["out"])).mkdir()
        (out / "0.png").write_bytes(b"drawn")
        return {"seconds": 1.0, "notice": None, "remarks": REMARKS,
                "pictures": [{"path": str(out / "0.png"), "seed": 5}]}  # fmt: skip

    engine = Engine(records, ByPath(tmp_path / "blobs"), tmp_path, learns, draws)
    avatar = await engine.avatar()
    assert (await engine.done(Train(avatar))).state == State.SUCCEEDED
    drawn = await engine.done(Imagine("zk7 man", (avatar,)))
    [picture] = drawn.result["pictures"]
    assert {name: drawn.result[name] for name in REMARKS} == REMARKS
    assert (tmp_path / "blobs" / picture["key"]).read_bytes() == b"drawn" and picture["seed"] == 5


@pytest.mark.parametrize("kind", [Train, Imagine])
async def test_what_a_cancelled_attempt_stored_is_deleted(records: Records, tmp_path: Path, kind: type) -> None:
    class CancelledAfterStoring(FolderBlobs):
        async def store(self, key: str, path: Path) -> None:
            await super().store(key, path)
            if not key.startswith("photos/"):
                [job] = await records.jobs.active()
                await records.jobs.request_cancel(job.id)
                await asyncio.wait_for(asyncio.Event().wait(), 30)  # until the attempt notices

    async def makes(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        (out := Path(request["out"])).mkdir()
        (out / FILE).write_bytes(b"a face")
        return {"adapter": str(out / FILE), "samples": [], "steps": 1, "seconds": 1.0, "resumed_at": 0, "recipe": {},
                "notice": None, "likeness": None, "looks": None, "remarks": REMARKS,
                "pictures": [{"path": str(out / FILE), "seed": 5}]}  # fmt: skip

    engine = Engine(records, CancelledAfterStoring(tmp_path / "blobs"), tmp_path, makes)
    ended = await engine.done(Train(await engine.avatar()) if kind is Train else Imagine("a man"))
    assert ended.state == State.CANCELLED
    assert [key for key in await engine.blobs.list() if not key.startswith("photos/")] == []


async def test_a_fault_of_ours_and_a_refusal_end_the_job_in_any_attempt(records: Records, tmp_path: Path) -> None:
    async def dies(*arguments: Any) -> None:
        raise GpuDied

    async def fails(*arguments: Any) -> None:
        raise RequestFailed

    engine = Engine(records, MemoryBlobs(), tmp_path, dies, fails)
    failed = await engine.done(Imagine("a man"))
    assert (failed.state, failed.attempt, failed.error) == (State.FAILED, 2, {"code": "internal", "facts": {}})
    assert [(event.code, event.facts) for event in engine.events.published][-1] == ("failed", {"code": "internal"})


def test_only_what_killed_supervisors_left_is_swept(tmp_path: Path) -> None:
    for name in ("old", "young"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / CHECKPOINT).touch()
    old = (tmp_path / "old").stat().st_mtime - LEFT_BEHIND - 1
    os.utime(tmp_path / "old", (old, old))
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]


@pytest.mark.parametrize(("kept", "told", "anew"), [(True, {}, False), (False, {}, True), (True, {"anew": True}, True)])
async def test_a_training_that_begins_anew_says_so(records: Records, tmp_path: Path, kept, told, anew) -> None:
    """After an attempt without a checkpoint, or where the GPU process cannot use it."""

    async def dies(request: dict[str, Any], on_news: Any) -> None:
        if kept:
            write(request["checkpoint"], b"kept")
            on_news({"news": "checkpoint", "step": 1})
            async with asyncio.timeout(30):
                while not await engine.blobs.list("checkpoints/"):
                    await asyncio.sleep(0)
        raise GpuDied

    async def stops(request: dict[str, Any], on_news: Any) -> None:
        on_news({"news": "step", "step": 1, "steps": 9, "seconds_left": 1.0} | told)
        raise NotWanted

    engine = Engine(records, MemoryBlobs(), tmp_path, dies, stops)
    await engine.done(Train(await engine.avatar()))
    (facts,) = [event.facts for event in engine.events.published if event.code == "step"]
    assert facts.get("anew", False) is anew


class FullBlobs(MemoryBlobs):
    """Blobs on a disk that has no space from some moment on."""

    full = False

    async def store(self, key: str, path: Path) -> None:
        if self.full:
            raise UserError("disk_full", folder="the blobs")
        await super().store(key, path)


async def test_a_full_disk_costs_a_checkpoint_and_no_training(records: Records, tmp_path: Path, caplog) -> None:
    async def learns(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        write(request["checkpoint"], b"kept")
        blobs.full = True
        on_news({"news": "checkpoint", "step": 1})
        async with asyncio.timeout(30):
            while "goes on without its checkpoint" not in caplog.text:
                await asyncio.sleep(0)
        blobs.full = fails
        (out := Path(request["out"])).mkdir()
        (out / FILE).write_bytes(b"adapter")
        return {"adapter": str(out / FILE), "samples": [], "steps": 1, "seconds": 1.0, "resumed_at": 0, "recipe": {},
                "notice": None, "likeness": None, "looks": None}  # fmt: skip

    blobs = FullBlobs()
    engine = Engine(records, blobs, tmp_path, learns, learns)
    fails = False
    avatar = await engine.avatar()
    assert (await engine.done(Train(avatar))).state == State.SUCCEEDED
    caplog.clear()
    fails, blobs.full = True, False
    ended = await engine.done(Train(avatar))
    assert ended.state == State.FAILED and ended.error is not None and ended.error["code"] == "disk_full"
    assert "The disk is full: the blobs" in caplog.text and "Free some space" in caplog.text


async def test_a_photo_check_proposes_another_token_where_the_base_knows_words_in_it(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inspected(paths: list[Path], noun: str) -> Any:
        return [GOOD] * 5, None

    monkeypatch.setattr("engine.work.handlers.inspected", inspected)
    engine = Engine(records, MemoryBlobs(), tmp_path)
    engine.gpu.known = ["zk"]
    ended = await engine.done(Inspect(await engine.avatar()))
    assert ended.result is not None and ended.result["token"] == {"known": ["zk"], "proposal": "zkqv"}


async def test_what_a_base_did_not_hear_is_in_the_result(records: Records, tmp_path: Path) -> None:
    async def draws(request: dict[str, Any], on_news: Any) -> dict[str, Any]:
        (out := Path(request["out"])).mkdir()
        (out / "0.png").write_bytes(b"drawn")
        picture = {"path": str(out / "0.png"), "seed": 5}
        return {"seconds": 1.0, "notice": None, "pictures": [picture], "unread": "the end", "weights_ignored": False,
                "remarks": REMARKS}  # fmt: skip

    ended = await Engine(records, MemoryBlobs(), tmp_path, draws).done(Imagine("a man"))
    assert ended.result is not None and ended.result["unread"] == "the end"
    assert "weights_ignored" not in ended.result
