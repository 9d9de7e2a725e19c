"""The GPU process: `python -m engine.gpu` holds the one resident base model and does what its supervisor asks.

Requests come as JSON lines on standard input and news goes out as JSON lines on standard output:

    {"task": "load"}                     {"id": "", "news": "ready", ...}: the first line; a spare process awaits it
    {"id": "7", "task": "train", ...}    {"id": "7", "news": "step", "step": 3, ...} and at last "news": "done"
    {"id": "8", "task": "imagine", ...}  the same; drawn between two steps of a training that is under way
    {"id": "7", "task": "cancel"}        {"id": "7", "news": "cancelled"}

It knows folders and files, nothing of jobs, queues or people. It ends when its standard input does, so that it never
outlives a killed supervisor.
"""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from engine import training
from engine.adapters import FILE, Attached
from engine.base import BaseModel
from engine.errors import InputError
from engine.generation import Drawing, Picture, draw
from engine.inspection import face_crop, load_photo
from engine.recipe import choose
from engine.training import Progress, Stopped

SAMPLES = (
    "a photo of {instance}",
    "a photo of {instance} in a suit",
    "portrait of {instance}, smiling, blue background",
)
"""What is drawn of a person who has just been learned."""

NEWS_EVERY = 0.25
"""Seconds between two pieces of news of one training's steps."""

Request = Mapping[str, Any]


class GpuProcess:
    """One base model, and requests that take turns on it."""

    def __init__(self, base_source: str | None, requests: TextIO, news: TextIO) -> None:
        self._news, self._writing = news, threading.Lock()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._later: list[Request] = []
        self._cancelled: set[str] = set()
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        self.base = BaseModel.load(base_source)
        self.attached = Attached(self.base)

    def _read(self, requests: TextIO) -> None:
        for line in requests:
            self._requests.put(json.loads(line))
        os._exit(0)

    def tell(self, id: str, news: str, **facts: Any) -> None:
        with self._writing:
            self._news.write(json.dumps({"id": id, "news": news} | facts) + "\n")
            self._news.flush()

    def serve(self) -> None:
        """Take one request after another, for ever."""
        self.tell("", "ready", base=self.base.source, device=str(self.base.device))
        while True:
            self._do(self._later.pop(0) if self._later else self._requests.get())

    def _do(self, request: Request) -> None:
        tasks: Mapping[str, Callable[[Request], None]] = {"train": self._train, "imagine": self._imagine}
        id = request["id"]
        if request["task"] == "cancel":
            self._cancelled.add(id)
            return
        try:
            if id in self._cancelled:
                raise Stopped
            tasks[request["task"]](request)
        except Stopped:
            self.tell(id, "cancelled")
        except InputError as error:
            facts = {
                name: value if isinstance(value, int | float) else str(value) for name, value in error.facts.items()
            }
            self.tell(id, "failed", code=error.code, facts=facts)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self.tell(id, "failed", code="out_of_memory", facts={})
        except Exception as error:
            # The type and place say what is wrong; the message could hold a prompt or a path.
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
            print(f"request {id} failed: {type(error).__name__} at {place}", file=sys.stderr, flush=True)
            self.tell(id, "failed", code="internal", facts={})
        finally:
            self._cancelled.discard(id)

    def _give_way(self, training_id: str) -> None:
        """Between two training steps: draw what is asked for, notice a cancellation."""
        while not self._requests.empty():
            request = self._requests.get()
            if request["task"] == "train":
                self._later.append(request)
            else:
                self._do(request)
        if training_id in self._cancelled:
            raise Stopped

    def _train(self, request: Request) -> None:
        id, out = request["id"], Path(request["out"])
        side = self.base.side
        photos = [load_photo(Path(path).read_bytes()) for path in request["photos"]]
        # A small base sees nothing of a face that is small in its photo.
        album = [face_crop(photo, side) if self.base.family.cartoon else photo for photo in photos]
        recipe = choose(len(album), request["method"], self.base.family, steps=request.get("steps"))
        told, short = 0.0, False

        def on_memory(rows: int) -> None:
            nonlocal short
            short = True

        def on_step(progress: Progress) -> None:
            nonlocal told
            if time.monotonic() - told >= NEWS_EVERY or progress.step == progress.steps:
                told = time.monotonic()
                self.tell(id, "step", step=progress.step, steps=progress.steps, seconds_left=progress.seconds_left,
                          short=short)  # fmt: skip
            self._give_way(id)

        trained = training.train(
            self.base, album, request["token"], request["noun"], recipe, out / FILE,
            seed=request["seed"], checkpoint=Path(request["checkpoint"]), prior_folder=Path(request["priors"]),
            on_step=on_step, on_checkpoint=lambda step: self.tell(id, "checkpoint", step=step), on_memory=on_memory,
        )  # fmt: skip
        instance = f"{request['token']} {request['noun']}"
        samples = []
        for number, prompt in enumerate(SAMPLES):
            drawing = Drawing(prompt.format(instance=instance), seed=number, avatars=(out / FILE,))
            samples += [str(path) for path, _ in self._drawn(drawing, out, f"sample-{number}", lambda: None)]
            self._give_way(id)
        self.tell(
            id, "done", steps=trained.steps, seconds=round(trained.seconds, 2), resumed_at=trained.resumed_at,
            recipe=recipe.as_json(), samples=samples, adapter=str(out / FILE), cartoon=self.base.family.cartoon,
        )  # fmt: skip

    def _imagine(self, request: Request) -> None:
        id, out, began = request["id"], Path(request["out"]), time.monotonic()
        asked = request["drawing"]
        drawing = Drawing(**{**asked, "avatars": tuple(Path(path) for path in asked["avatars"])})

        def cancelled() -> None:
            if id in self._cancelled:
                raise Stopped

        pictures = [
            {"path": str(path), "seed": picture.seed}
            for path, picture in self._drawn(drawing, out, "picture", cancelled)
        ]
        self.tell(id, "done", seconds=round(time.monotonic() - began, 2), pictures=pictures,
                  cartoon=self.base.family.cartoon)  # fmt: skip

    def _drawn(self, drawing: Drawing, out: Path, name: str, between: Callable[[], None]) -> list[tuple[Path, Picture]]:
        drawn = []
        for number, picture in enumerate(draw(self.base, self.attached, drawing, lambda step, of: between())):
            path = out / f"{name}-{number}.png"
            picture.save(path, drawing, self.base.source)
            drawn.append((path, picture))
        return drawn


def main() -> None:
    """Serve the supervisor that started this process. Only news may go to standard output."""
    news = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if not sys.stdin.readline():
        return
    try:
        gpu = GpuProcess(os.environ.get("AVATAR_BASE_MODEL") or None, sys.stdin, news)
    except InputError as error:
        sys.exit(refuse(error))
    gpu.serve()


def refuse(error: InputError) -> int:
    """Say in one line what is wrong and what to do; the exit status for it is 2."""
    print(error.sentence, file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    main()
