"""What an engine gathers for a drawing before it comes to the GPU."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.work.gpu_client import Cancelled
from engine.work.handlers import ADAPTER, Tasks, read, styles
from storage.blobs import MemoryBlobs
from storage.errors import UserError
from storage.events import MemoryEvents
from storage.jobs import Imagine, JobKind
from storage.records import Job, Records


class Asked:
    """Stands where the GPU process is, and keeps what it is asked for."""

    def __init__(self) -> None:
        self.drawing: dict[str, Any] = {}
        self.original = b""

    async def run(self, task: str, *, drawing: dict[str, Any], out: str) -> None:
        self.drawing = drawing
        self.original = await read(drawing["original"])
        raise Cancelled


class Others:
    """Stands where the queue is, with another engine's style."""

    async def styles(self) -> list[str]:
        return ["chalk"]


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    records = await Records.open(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite")
    yield records
    await records.close()


async def test_a_drawing_brings_its_style_and_its_original(records: Records, tmp_path: Path) -> None:
    for name in ("inks", "oils", "No Name"):
        (tmp_path / "styles" / name).mkdir(parents=True)
        (tmp_path / "styles" / name / ADAPTER).touch()
    (tmp_path / "styles" / "unfinished").mkdir()
    (tmp_path / "work").mkdir()
    assert [*styles(tmp_path)] == ["inks", "oils"]
    blobs, asked = MemoryBlobs(), Asked()
    storage: Any = SimpleNamespace(records=records, blobs=blobs, events=MemoryEvents(), queue=Others())
    gpu: Any = asked
    tasks = Tasks(storage, gpu, tmp_path / "work")
    imagine = tasks.handlers()[JobKind.IMAGINE]
    user = await records.user("chat", "ann", "Ann")

    async def job(payload: Imagine) -> Job:
        return await records.create_job(JobKind.IMAGINE, user.id, "chat", "studio", payload)

    await blobs.put("pictures/1/0.png", b"a picture")
    await imagine(
        await job(Imagine("a man", original="pictures/1/0.png", strength=0.3, style="oils", style_weight=0.6))
    )
    assert asked.original == b"a picture"
    assert asked.drawing["strength"] == 0.3
    assert asked.drawing["avatars"] == [str(tmp_path / "styles" / "oils")]
    assert asked.drawing["weights"] == [0.6]
    with pytest.raises(UserError, match="picture_gone"):
        await imagine(await job(Imagine("a man", original="pictures/1/9.png")))
    for name in ("ink", "../styles/oils", "unfinished"):
        with pytest.raises(UserError, match="unknown_style") as refused:
            await imagine(await job(Imagine("a man", style=name)))
        assert refused.value.facts["styles"] == ["inks", "oils"]
    # A style that another engine has is left to that one; what nobody has any more is taken, to say so.
    taken = {style: await tasks.takes(await job(Imagine("a man", style=style))) for style in (None, "oils", "gone")}
    assert taken == {None: True, "oils": True, "gone": True}
    assert not await tasks.takes(await job(Imagine("a man", style="chalk")))
