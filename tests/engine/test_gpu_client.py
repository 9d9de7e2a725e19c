"""The GPU process, for real: asked, cancelled, killed, and never outliving its supervisor."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from engine.work.gpu_client import BaseUnusable, GpuClient, GpuDied, RequestFailed
from storage.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
async def gpu(tiny_folder: Path) -> AsyncIterator[GpuClient]:
    gpu = GpuClient(str(tiny_folder))
    yield gpu
    await gpu.close()


@pytest.fixture
def photos(pictures: list[Image.Image], tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.resize((512, 512)).save(path)
    return [str(path) for path in paths]


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def drawing(prompt: str = "a man", **more: object) -> dict[str, object]:
    return {"prompt": prompt, "steps": 2, "seed": 4, "avatars": [], "width": 64, "height": 64} | more


def lesson(photos: list[str], tmp_path: Path, steps: int) -> dict[str, object]:
    return {
        "photos": photos, "token": "zk1", "noun": "man", "method": "lora", "steps": steps, "seed": 0,
        "out": str(tmp_path / "out"), "checkpoint": str(tmp_path / "checkpoint"), "priors": str(tmp_path / "priors"),
    }  # fmt: skip


async def test_a_picture_is_drawn_while_a_training_runs_and_the_training_can_be_cancelled(
    gpu, photos, tmp_path
) -> None:
    steps = asyncio.Queue()
    training = asyncio.create_task(gpu.run("train", steps.put_nowait, **lesson(photos, tmp_path, 20_000)))
    # A checkpoint may come before the first step is told.
    while (await asyncio.wait_for(steps.get(), 120))["news"] != "step":
        pass
    done = await asyncio.wait_for(gpu.run("imagine", drawing=drawing(count=2), out=str(tmp_path / "drawn")), 60)
    assert not training.done()
    assert [picture["seed"] for picture in done["pictures"]] == [4, 5]
    assert [size_of(picture["path"]) for picture in done["pictures"]] == [(64, 64)] * 2
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    # It has stopped by then, and writes no more into folders that are about to be removed: not while the process, which
    # is free at once, serves a second training to its end.
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "checkpoint").unlink(missing_ok=True)
    second = tmp_path / "second"
    await asyncio.wait_for(gpu.run("train", **lesson(photos, second, 2)), 120)
    assert (second / "out").exists()
    assert not (tmp_path / "out").exists() and not (tmp_path / "checkpoint").exists()


async def test_a_killed_process_raises_gpu_died_and_the_next_request_starts_another(gpu, photos, tmp_path) -> None:
    steps = asyncio.Queue()
    training = asyncio.create_task(gpu.run("train", steps.put_nowait, **lesson(photos, tmp_path, 20_000)))
    await asyncio.wait_for(steps.get(), 120)
    killed = gpu.pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(GpuDied):
        await asyncio.wait_for(training, 10)
    await asyncio.wait_for(gpu.run("imagine", drawing=drawing(), out=str(tmp_path / "drawn")), 60)
    assert gpu.pid != killed


SLOW_TO_STOP = """
import json, sys
from pathlib import Path

def tell(**news):
    print(json.dumps(news), flush=True)

for line in sys.stdin:
    request = json.loads(line)
    match request["task"]:
        case "load":
            tell(id="", news="ready")
        case "train":
            training = request
            tell(id=request["id"], news="step")
        case "cancel":
            tell(id=request["id"], news="step")  # the one that it was at
            Path(training["out"]).write_text("the last that the training writes")
            tell(id=request["id"], news="cancelled")
        case "fail":
            tell(id=request["id"], news="failed", code="internal", facts={})
"""
"""Speaks as the GPU process does, with a training that still writes a file after it has been cancelled."""


async def test_a_cancelled_request_waits_until_the_process_confirms_it(tmp_path: Path) -> None:
    gpu = GpuClient(process=[sys.executable, "-c", SLOW_TO_STOP])
    steps: asyncio.Queue[object] = asyncio.Queue()
    out = tmp_path / "out"
    training = asyncio.create_task(gpu.run("train", steps.put_nowait, out=str(out)))
    await asyncio.wait_for(steps.get(), 60)
    assert not out.exists()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(training, 60)
    assert out.exists() and steps.empty()
    with pytest.raises(RequestFailed):
        await gpu.run("fail")
    await gpu.close()


async def test_a_process_that_hangs_is_killed(tiny_folder, tmp_path) -> None:
    gpu = GpuClient(str(tiny_folder), stall=1.0)
    await gpu.ready()
    os.kill(gpu.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GpuDied):
            await asyncio.wait_for(gpu.run("imagine", drawing=drawing(), out=str(tmp_path)), 30)
    finally:
        await gpu.close()


async def test_what_cannot_be_done_is_refused_with_a_code(gpu, tmp_path) -> None:
    with pytest.raises(UserError) as refused:
        await gpu.run("imagine", drawing=drawing("x" * 10_000), out=str(tmp_path / "drawn"))
    assert refused.value.code == "prompt_too_long"
    assert refused.value.facts == {"length": 10_000, "limit": 1000}
    with pytest.raises(UserError) as refused:
        await gpu.run("imagine", drawing=drawing(avatars=[str(tmp_path)]), out=str(tmp_path / "drawn"))
    assert refused.value.code == "missing_avatar"
    assert not (tmp_path / "drawn").exists()


async def test_an_unusable_base_model_raises_at_the_start(tmp_path: Path) -> None:
    gpu = GpuClient(str(tmp_path / "nothing"))
    with pytest.raises(BaseUnusable):
        await asyncio.wait_for(gpu.ready(), 60)
    await gpu.close()


@pytest.mark.parametrize("loaded", [True, False])
def test_the_process_ends_with_its_supervisor(tiny_folder: Path, loaded: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.work.gpu_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"AVATAR_BASE_MODEL": str(tiny_folder)},
    )  # fmt: skip
    with process:
        if loaded:
            process.stdin.write(b'{"task": "load"}\n')
            process.stdin.flush()
            assert b"ready" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the OpenMP of torch's builds for Linux tells what it was told")
@pytest.mark.parametrize("asked", [None, "active"])
def test_threads_that_wait_do_not_spin_unless_the_operator_wants_it(asked: str | None) -> None:
    """OpenMP reads this once, when torch is loaded; OMP_DISPLAY_ENV makes it say what it read."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", "from engine.__main__ import main; main(['base', '--path']); import torch"],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": asked} if asked else {}),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (spins,) = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr)
    assert (int(spins) == 0) == (asked is None)


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells another process's environment")
async def test_the_gpu_process_gets_the_wait_policy_of_threads(gpu: GpuClient) -> None:
    await gpu.ready()
    told = await asyncio.to_thread(Path(f"/proc/{gpu.pid}/environ").read_bytes)
    assert b"OMP_WAIT_POLICY=passive" in told.split(b"\0")
