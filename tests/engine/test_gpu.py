"""The GPU process draws what waits together, and a training gives way to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.adapters import FILE
from engine.supervision import Cancelled, Gpu, Refused
from engine.training import train
from tests.engine.tiny import LORA, SIDE, assert_same, load

pytestmark = pytest.mark.slow


@pytest.fixture
async def gpu(folders) -> AsyncIterator[Gpu]:
    process = Gpu(str(folders("sd1")))
    await process.ready()
    yield process
    await process.close()


def wanted(out: Path, **changed: Any) -> dict[str, Any]:
    drawing = {"prompt": "a man", "steps": 2, "seed": 1, "width": SIDE, "height": SIDE, "avatars": []} | changed
    return {"drawing": {"count": 1} | drawing, "out": str(out)}


async def test_waiting_requests_are_drawn_together_during_a_training(
    folders, pictures, tmp_path: Path, gpu: Gpu
) -> None:
    base = load(folders("sd1"))
    train(base, pictures, "zk1", "man", LORA, tmp_path / "ann" / FILE, side=SIDE)
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
    while not any(steps):
        await asyncio.sleep(0.05)
    asked = [
        wanted(tmp_path / "1", avatars=[str(tmp_path / "ann" / FILE)]), wanted(tmp_path / "2", seed=2),
        wanted(tmp_path / "3", seed=3, steps=3), wanted(tmp_path / "4", prompt="x" * 2000),
    ]  # fmt: skip
    done = await asyncio.gather(*(gpu.run("imagine", **request) for request in asked), return_exceptions=True)
    assert not training.done()
    assert [one["drawn_with"] for one in done[:3]] == [2, 2, 1]  # the third asked for other steps
    assert isinstance(done[3], Refused) and done[3].code == "prompt_too_long"
    training.cancel()
    await asyncio.gather(training, return_exceptions=True)
    alone = await gpu.run("imagine", **wanted(tmp_path / "alone", avatars=[str(tmp_path / "ann" / FILE)]))
    with Image.open(done[0]["pictures"][0]["path"]) as one, Image.open(alone["pictures"][0]["path"]) as other:
        assert_same(one, other, 4)


async def test_class_pictures_give_way_to_a_drawing_and_to_a_cancellation(pictures, tmp_path: Path, gpu: Gpu) -> None:
    photo = tmp_path / "photo.png"
    pictures[0].save(photo)
    told: list[str] = []
    training = asyncio.create_task(
        gpu.run("train", lambda news: told.append(news["news"]), photos=[str(photo)], token="zk2", noun="man",
                method="lora", steps=10_000, seed=0, out=str(tmp_path / "bob"), checkpoint=str(tmp_path / "checkpoint"),
                priors=str(tmp_path / "priors"))
    )  # fmt: skip
    while not told:
        await asyncio.sleep(0.01)
    assert (await gpu.run("imagine", **wanted(tmp_path / "drawn")))["pictures"]
    training.cancel()
    await asyncio.gather(training, return_exceptions=True)
    assert (await gpu.run("imagine", **wanted(tmp_path / "free")))["pictures"]
    assert set(told) == {"prior"}


async def test_one_who_goes_does_not_stop_the_others(tmp_path: Path, gpu: Gpu) -> None:
    leaving = asyncio.create_task(gpu.run("imagine", **wanted(tmp_path / "1", steps=20)))
    staying = asyncio.create_task(gpu.run("imagine", **wanted(tmp_path / "2", steps=20, seed=2)))
    await asyncio.sleep(0.3)
    leaving.cancel()
    assert (await staying)["pictures"]
    with pytest.raises((asyncio.CancelledError, Cancelled)):
        await leaving
