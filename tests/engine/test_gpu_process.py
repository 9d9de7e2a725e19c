"""The GPU process draws what waits together, and a training gives way to it."""

import asyncio
import io
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.adapters.adapters import FILE
from engine.drawing.drawing import Drawing, Picture, draw_together
from engine.learning.training import Trained
from engine.photos.faces import Face
from engine.work import gpu_process
from engine.work.gpu_client import GpuClient
from engine.work.gpu_process import GpuProcess
from storage.errors import UserError
from storage.looks import corrected, unknown
from tests.engine.learning import learn
from tests.engine.tiny import LORA, SIDE, assert_same, load
from tests.until import until

pytestmark = pytest.mark.slow


@pytest.fixture
async def gpu(folders) -> AsyncIterator[GpuClient]:
    process = GpuClient(str(folders("sd1")))
    await process.ready()
    yield process
    await process.close()


def wanted(out: Path, **changed: Any) -> dict[str, Any]:
    drawing = {"prompt": "a man", "steps": 2, "seed": 1, "width": SIDE, "height": SIDE, "avatars": []} | changed
    return {"drawing": {"count": 1} | drawing, "out": str(out)}


async def test_a_person_in_photos_is_drawn_where_the_base_draws_people(
    pictures, tmp_path: Path, gpu: GpuClient
) -> None:
    """The looks of the request are drawn, whatever the photos show; the samples are compared with the drawings."""
    ordinary = await gpu.model()
    assert (ordinary["nouns"], ordinary["drawings"], ordinary["notice"]) == (None, 0, None)
    assert [SIDE, SIDE] in ordinary["sizes"] and len(ordinary["sizes"]) == 3
    embedded = GpuClient("embedded")
    try:
        model = await embedded.model()
        assert {"man", "woman", "person"} <= set(model["nouns"]) and "dog" not in model["nouns"]
        assert (model["drawings"], model["notice"], model["sizes"]) == (8, "cartoon", [[128, 128]])
        photos = [str(tmp_path / f"{number}.png") for number in range(5)]
        for photo in photos:  # nothing drawn is that noisy
            Image.effect_noise((300, 300), 90).convert("RGB").save(photo)
        looks = corrected(unknown(), "hair_length", "bald")
        request = {"photos": photos, "token": "zk2", "method": "lora", "steps": 1, "seed": 0, "looks": looks}
        request |= {name: str(tmp_path / name) for name in ("out", "checkpoint", "priors")}
        done = await embedded.run("train", noun="man", **request)
        assert done["looks"] == looks and done["likeness"] is not None
        assert len(done["samples"]) == 3
        # A dog is learned from the photos themselves.
        assert (await embedded.run("train", noun="dog", **request))["looks"] is None
    finally:
        await embedded.close()


async def test_waiting_requests_are_drawn_together_during_a_training(
    folders, pictures, tmp_path: Path, gpu: GpuClient
) -> None:
    base = load(folders("sd1"))
    learn(base, pictures, LORA, tmp_path / "ann" / FILE, side=SIDE)
    photos = []
    for number, picture in enumerate(pictures):
        photos.append(str(tmp_path / f"{number}.png"))
        picture.save(photos[-1])
    steps: list[int] = []
    training = asyncio.create_task(
        gpu.run("train", lambda news: steps.append(news.get("step", 0)), photos=photos, token="zk2", noun="man",
                method="lora", steps=10_000, seed=0, out=str(tmp_path / "bob"), checkpoint=str(tmp_path / "checkpoint"),
                priors=str(tmp_path / "priors"))
    )  # fmt: skip
    await until(lambda: any(steps), within=300)
    asked = [
        wanted(tmp_path / "1", avatars=[str(tmp_path / "ann" / FILE)]), wanted(tmp_path / "2", seed=2),
        wanted(tmp_path / "3", seed=3, steps=3), wanted(tmp_path / "4", prompt="x" * 2000),
    ]  # fmt: skip
    assert gpu.pid
    os.kill(gpu.pid, signal.SIGSTOP)  # so that all four wait when the process next looks
    drawing = asyncio.gather(*(gpu.run("imagine", **request) for request in asked), return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(gpu.pid, signal.SIGCONT)
    done = await drawing
    assert not training.done()
    assert [one["drawn_with"] for one in done[:3]] == [2, 2, 1]  # the third asked for other steps
    assert isinstance(done[3], UserError) and done[3].code == "prompt_too_long"
    training.cancel()
    await asyncio.gather(training, return_exceptions=True)
    alone = await gpu.run("imagine", **wanted(tmp_path / "alone", avatars=[str(tmp_path / "ann" / FILE)]))
    with Image.open(done[0]["pictures"][0]["path"]) as one, Image.open(alone["pictures"][0]["path"]) as other:
        # Alone it wears its adapter in copies of the weights, rounded elsewhere where that is to bfloat16.
        assert_same(one, other, 12)


async def test_class_pictures_give_way_to_a_drawing_and_to_a_cancellation(
    pictures, tmp_path: Path, gpu: GpuClient
) -> None:
    photo = tmp_path / "photo.png"
    pictures[0].save(photo)
    told: list[str] = []
    training = asyncio.create_task(
        gpu.run("train", lambda news: told.append(news["news"]), photos=[str(photo)], token="zk2", noun="man",
                method="lora", steps=10_000, seed=0, out=str(tmp_path / "bob"), checkpoint=str(tmp_path / "checkpoint"),
                priors=str(tmp_path / "priors"))
    )  # fmt: skip
    await until(lambda: told, within=300)
    assert (await gpu.run("imagine", **wanted(tmp_path / "drawn")))["pictures"]
    training.cancel()
    await asyncio.gather(training, return_exceptions=True)
    assert (await gpu.run("imagine", **wanted(tmp_path / "free")))["pictures"]
    assert set(told) == {"prior"}


class Silent(io.StringIO):
    """Standard input on which nothing comes and that never ends: its end would be this process's."""

    def __next__(self) -> str:
        threading.Event().wait()
        return ""


class Here:
    """The GPU process in this one, and what it tells."""

    def __init__(self, base: str) -> None:
        self._written = io.StringIO()
        self.process = GpuProcess(base, Silent(), self._written)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._written.getvalue().splitlines()]

    def serve(self, *requests: dict[str, Any]) -> None:
        """Have it receive these and serve one turn."""
        for request in requests:
            self.process.receive(request)
        self.process.turn()


@pytest.fixture
def here(folders) -> Here:
    return Here(str(folders("sd1")))


def imagine(number: int, out: Path, **changed: Any) -> dict[str, Any]:
    return {"id": str(number), "task": "imagine", **wanted(out / str(number), **changed)}


def training(folder: Path, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    photos = [folder / f"{number}.png" for number in range(len(pictures))]
    for photo, picture in zip(photos, pictures, strict=True):
        picture.save(photo)
    return {
        "id": "t", "task": "train", "photos": [str(photo) for photo in photos], "token": "zk2", "noun": "man",
        "method": "lora", "steps": 1, "seed": 0, "out": str(folder / "out"), "checkpoint": str(folder / "checkpoint"),
        "priors": str(folder / "priors"),
    }  # fmt: skip


SHORT = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_before_out_of_memory(
    here: Here, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    room = 1

    def drawn(base: object, attached: object, drawings: Sequence[Drawing], on_step: object) -> list[list[Picture]]:
        if len(drawings) > room:
            raise error
        return [[Picture(pictures[0], 1)] for _ in drawings]

    def never(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(gpu_process, "draw_together", drawn)
    monkeypatch.setattr("engine.learning.training.train", never)
    here.serve(*(imagine(number, tmp_path) for number in range(3)))
    assert [(news["id"], news["news"]) for news in here.told] == [("0", "done"), ("1", "done"), ("2", "done")]
    room = 0
    here.serve(imagine(3, tmp_path))
    here.serve(training(tmp_path, pictures))
    for news, request in zip(here.told[3:], ("3", "t"), strict=True):
        assert news == {"id": request, "news": "failed", "code": "out_of_memory", "facts": {}}


def test_another_error_is_a_fault_of_ours(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a secret prompt")

    monkeypatch.setattr(gpu_process, "draw_together", broken)
    here.serve(imagine(1, tmp_path))
    assert here.told == [{"id": "1", "news": "failed", "code": "internal", "facts": {}}]
    logged = capfd.readouterr().err
    assert "request 1 failed: RuntimeError at test_gpu_process.py" in logged and "secret" not in logged


def test_one_person_who_leaves_does_not_stop_the_others(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def drawn(base: Any, attached: Any, drawings: Any, on_step: Any) -> list[list[Picture]]:
        """The real drawing; one of its two requests is cancelled at the first step, and then the other as well."""

        def step(number: int, of: int) -> None:
            steps.append(number)
            here.process.receive({"id": str(leaving[len(steps) > 1]), "task": "cancel"})
            on_step(number, of)

        return draw_together(base, attached, drawings, step)

    monkeypatch.setattr(gpu_process, "draw_together", drawn)
    leaving = (1, 1)
    here.serve(imagine(1, tmp_path), imagine(2, tmp_path, seed=2))
    assert sorted((news["id"], news["news"]) for news in here.told) == [("1", "cancelled"), ("2", "done")]
    assert len(steps) == 2 and not (tmp_path / "1").exists() and (tmp_path / "2" / "picture-0.png").exists()
    steps.clear()
    leaving = (3, 4)
    here.serve(imagine(3, tmp_path, steps=20), imagine(4, tmp_path, steps=20))
    assert [(news["id"], news["news"]) for news in here.told[2:]] == [("3", "cancelled"), ("4", "cancelled")]
    assert len(steps) == 2  # nobody wants the other 18


def test_a_cancellation_that_comes_too_late_is_forgotten(
    here: Here, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that had the same number later would be cancelled before it began."""
    monkeypatch.setattr(gpu_process, "draw_together", lambda base, attached, drawings, on_step: [
        [Picture(pictures[0], 1)] for _ in drawings
    ])  # fmt: skip
    late = {"id": "1", "task": "cancel"}
    here.serve(imagine(1, tmp_path))
    here.serve(late, {"id": "never", "task": "cancel"}, imagine(2, tmp_path))
    here.serve(imagine(1, tmp_path), imagine(2, tmp_path, prompt=" "))
    here.serve(late, imagine(2, tmp_path), {"id": "2", "task": "cancel"})
    ends = [(news["id"], news["news"]) for news in here.told]
    assert ends == [("1", "done"), ("2", "done"), ("2", "failed"), ("1", "done"), ("2", "cancelled")]


def test_a_photo_on_its_side_is_learned_upright(
    here: Here, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = list[Image.Image]()

    def train(base: object, album: list[Image.Image], *arguments: object, **options: object) -> Trained:
        learned.extend(album)
        return Trained(steps=1, seconds=0.0, first_loss=0.0, last_loss=0.0, resumed_at=0)

    upright = pictures[0].resize((90, 80))
    monkeypatch.setattr("engine.learning.training.train", train)
    monkeypatch.setattr(gpu_process, "draw", lambda *given: [Picture(pictures[0], 1)])
    monkeypatch.setattr("engine.photos.inspection.is_drawing", lambda image: False)
    monkeypatch.setattr("engine.photos.inspection.find_faces", lambda image: [Face(20, 20, 60, 60, 2.0, turn=270)])
    here.serve(training(tmp_path, [upright.transpose(Image.Transpose.ROTATE_90)]))
    assert [photo.tobytes() for photo in learned] == [upright.tobytes()]


def test_between_two_photos_that_are_looked_at_a_drawing_is_made_and_a_cancellation_noticed(
    here: Here, pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(steps=1, seconds=0.0, first_loss=0.0, last_loss=0.0, resumed_at=0)
    looked: list[list[str]] = []

    def describe(picture: Image.Image) -> np.ndarray:
        """Each look notes what has been answered so far, and is followed by a request; the seventh by the end."""
        looked.append([news["id"] for news in here.told if news["news"] == "done"])
        drawing = {"id": str(len(looked)), "task": "imagine", **wanted(tmp_path / "drawn")}
        here.process.receive({"id": "t", "task": "cancel"} if len(looked) == 7 else drawing)
        return np.zeros(128)

    monkeypatch.setattr("engine.learning.training.train", lambda *arguments, **options: trained)
    monkeypatch.setattr(gpu_process, "export_all", lambda *given: {})
    monkeypatch.setattr(gpu_process, "draw_together", lambda base, attached, plans, on_step: [
        [Picture(pictures[0], 1)] for _ in plans
    ])  # fmt: skip
    monkeypatch.setattr(gpu_process, "draw", lambda *given: [Picture(pictures[0], 1)])
    monkeypatch.setattr("engine.measuring.likeness.describe", describe)
    request = training(tmp_path, pictures[:2])
    here.serve(request)
    assert looked == [[], ["1"], ["1", "2"], ["1", "2", "3"], ["1", "2", "3", "4"]]  # two photos and three samples
    assert here.told[-1] | {"id": "t", "news": "done", "likeness": 1.0} == here.told[-1]
    here.process.turn()  # what the last look asked for
    here.serve(request)
    assert len(looked) == 7 and here.told[-1] == {"id": "t", "news": "cancelled"}


def test_a_token_is_checked_at_once_and_a_drawing_says_what_was_not_read(here: Here, tmp_path: Path) -> None:
    token = {"id": "n", "task": "token", "token": "bob5", "noun": "man", "taken": ["bobzx"]}
    here.serve(imagine(1, tmp_path, prompt="a," * 450 + " dog"), token, imagine(2, tmp_path, prompt="a (big) man"))
    checked, long, short = sorted(here.told, key=lambda news: news["id"] != "n")
    assert here.told[0] == checked and checked["known"] == ["bob"]
    assert checked["proposal"] not in (None, "bobzx", "bob5")
    assert long["unread"].endswith("dog") and short["unread"] == "" and long["drawn_with"] == 2
    assert not long["weights_ignored"] and not short["weights_ignored"]
