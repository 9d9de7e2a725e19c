"""The GPU process: `python -m engine.work.gpu_process` holds the one resident base model and obeys its supervisor.

Requests come as JSON lines on standard input and news goes out as JSON lines on standard output:

    {"task": "load"}                     {"id": "", "news": "ready", ...}: the first line; a spare process awaits it
    {"id": "7", "task": "train", ...}    {"id": "7", "news": "step", "step": 3, ...} and at last "news": "done"
                                         "prior" before, while class pictures are drawn, "checkpoint" between two
                                         steps once one is written, "sample" after
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from PIL import Image

from engine.adapters.adapters import FILE, Attached
from engine.bases.base import BaseModel, as_drawn
from engine.device import memory
from engine.drawing.drawing import Drawing, Picture, check, company, draw_together
from engine.learning import training
from engine.learning.training import Progress, Stopped
from engine.measuring.likeness import likeness_of
from engine.photos.decoding import load_photo
from engine.photos.faces import face_crop
from engine.recipe import choose
from engine.sentences import sentence
from storage.errors import UserError

SAMPLES = (
    "a photo of {instance}",
    "a photo of {instance} in a suit",
    "portrait of {instance}, smiling, blue background",
)
"""What is drawn of a person who has just been learned."""

ROWS = 16
"""Most pictures that requests of several people are drawn with as one batch."""

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
        self.base = BaseModel.load(base_source, rests=as_drawn)
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
        """Take one request after another, for ever; drawings go first, as many together as fit."""
        self.tell("", "ready", base=self.base.source, device=str(self.base.device))
        while True:
            if not self._later:
                self._sort_in(self._requests.get())
            self._look()
            if drawings := self._waiting_drawings():
                self._imagine(drawings)
            elif self._later:
                request = self._later.pop(0)
                self._guarded([request["id"]], partial(self._train, request))

    def _sort_in(self, request: Request) -> None:
        if request["task"] == "cancel":
            self._cancelled.add(request["id"])
        else:
            self._later.append(request)

    def _look(self) -> None:
        """Notice what has come, without waiting."""
        while not self._requests.empty():
            self._sort_in(self._requests.get())

    def _waiting_drawings(self) -> list[Request]:
        """Take the requests for pictures that wait, the oldest first, as many as go into one batch."""
        taken: list[Request] = []
        rows = 0
        for request in [request for request in self._later if request["task"] == "imagine"]:
            rows += int(request["drawing"].get("count", 1))
            if taken and rows > ROWS:
                break
            taken.append(request)
            self._later.remove(request)
        return taken

    def _guarded(self, ids: Sequence[str], work: Callable[[], None]) -> None:
        """Do the work of these requests; whatever stops it is told to all of them."""
        try:
            if self._cancelled.issuperset(ids):
                raise Stopped
            with memory.attempt():
                work()
                return
            torch.cuda.empty_cache()
            raise UserError("out_of_memory")
        except Stopped:
            news: tuple[str, dict[str, Any]] = ("cancelled", {})
        except UserError as error:
            facts = {
                name: value if isinstance(value, int | float) else str(value) for name, value in error.facts.items()
            }
            news = ("failed", {"code": error.code, "facts": facts})
        except Exception as error:
            # The type and place say what is wrong; the message could hold a prompt or a path.
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
            print(f"request {ids[0]} failed: {type(error).__name__} at {place}", file=sys.stderr, flush=True)
            news = ("failed", {"code": "internal", "facts": {}})
        finally:
            self._cancelled.difference_update(ids)
        for id in ids:
            self.tell(id, news[0], **news[1])

    def _give_way(self, training_id: str) -> None:
        """Between two steps of a training, of its class pictures or of its judgement: draw what is asked for, notice a
        cancellation."""
        self._look()
        while drawings := self._waiting_drawings():
            self._imagine(drawings)
            self._look()
        if training_id in self._cancelled:
            raise Stopped

    def _giving_way(self, training_id: str, pictures: Iterable[Image.Image]) -> Iterator[Image.Image]:
        """The pictures, one after another, for somebody who takes long over each."""
        for picture in pictures:
            self._give_way(training_id)
            yield picture

    def _train(self, request: Request) -> None:
        id, out = request["id"], Path(request["out"])
        side = self.base.side
        photos = [load_photo(Path(path).read_bytes()) for path in request["photos"]]
        album = [face_crop(photo, side) if self.base.family.album_crop == "face" else photo for photo in photos]
        recipe = choose(len(album), request["method"], self.base.family, steps=request.get("steps"))
        told, short = 0.0, False

        def on_memory(rows: int) -> None:
            nonlocal short
            short = True

        def told_of(news: str, last: bool = False, **facts: Any) -> None:
            nonlocal told
            if last or time.monotonic() - told >= NEWS_EVERY:
                told = time.monotonic()
                self.tell(id, news, **facts)

        def on_prior(drawn: int, of: int) -> None:
            told_of("prior", drawn=drawn, of=of)
            self._give_way(id)

        def on_step(progress: Progress) -> None:
            told_of("step", progress.step == progress.steps, step=progress.step, steps=progress.steps,
                    seconds_left=progress.seconds_left, short=short)  # fmt: skip
            self._give_way(id)

        trained = training.train(
            self.base, album, request["token"], request["noun"], recipe, out / FILE,
            seed=request["seed"], checkpoint=Path(request["checkpoint"]), prior_folder=Path(request["priors"]),
            on_prior=on_prior, on_step=on_step, on_memory=on_memory,
            on_checkpoint=lambda step: self.tell(id, "checkpoint", step=step),
        )  # fmt: skip
        instance = f"{request['token']} {request['noun']}"
        samples, images = [], []
        for number, prompt in enumerate(SAMPLES):
            drawing = Drawing(prompt.format(instance=instance), seed=number, avatars=(out / FILE,))
            # Signs of life alone: within a drawing there is no way to give.
            drawn = draw_together(self.base, self.attached, [drawing], lambda step, of: told_of("sample"))[0]
            samples += [str(path) for path in self._kept(drawn, drawing, out, f"sample-{number}")]
            images += [picture.image for picture in drawn]
            self._give_way(id)
        likeness = likeness_of(self.base, self._giving_way(id, album))
        alike = round(likeness(self._giving_way(id, images)), 2) if likeness.known else None
        self.tell(
            id, "done", steps=trained.steps, seconds=round(trained.seconds, 2), resumed_at=trained.resumed_at,
            recipe=recipe.as_json(), samples=samples, adapter=str(out / FILE), notice=self.base.family.notice,
            likeness=alike,
        )  # fmt: skip

    def _imagine(self, requests: Sequence[Request]) -> None:
        """Draw these, as few batches as they allow; each is answered, whatever becomes of the others."""
        batches: dict[object, list[tuple[Request, Drawing]]] = {}
        for request in requests:
            asked = request["drawing"]
            original, weights = asked.get("original"), asked.get("weights")
            read = {
                "avatars": tuple(map(Path, asked["avatars"])), "weights": tuple(weights) if weights else None,
                "original": Path(original) if original else None,
            }  # fmt: skip
            drawing = Drawing(**{**asked, **read})

            def sort_in(request: Request = request, drawing: Drawing = drawing) -> None:
                check(drawing, self.base, self.attached)
                batches.setdefault(company(drawing, self.base, self.attached), []).append((request, drawing))

            self._guarded([request["id"]], sort_in)
        for batch in batches.values():
            self._draw_batch(batch)

    def _draw_batch(self, batch: Sequence[tuple[Request, Drawing]]) -> None:
        batch = [(request, drawing) for request, drawing in batch if not self._gone(request["id"])]
        if not batch:
            return
        began, ids = time.monotonic(), [request["id"] for request, _ in batch]

        def cancelled(step: int, of: int) -> None:
            self._look()
            # One who goes does not stop the others.
            if all(id in self._cancelled for id in ids):
                raise Stopped

        def work() -> None:
            drawn = None
            with memory.attempt():
                drawn = draw_together(self.base, self.attached, [drawing for _, drawing in batch], cancelled)
            if drawn is None:
                torch.cuda.empty_cache()
                if len(batch) == 1:
                    raise UserError("out_of_memory")
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._draw_batch(half)
                return
            for (request, drawing), pictures in zip(batch, drawn, strict=True):
                if self._gone(request["id"]):
                    continue
                paths = self._kept(pictures, drawing, Path(request["out"]), "picture")
                self.tell(
                    request["id"], "done", seconds=round(time.monotonic() - began, 2), drawn_with=len(batch),
                    pictures=[{"path": str(path), "seed": one.seed} for path, one in zip(paths, pictures, strict=True)],
                    notice=self.base.family.notice,
                )  # fmt: skip

        self._guarded(ids, work)

    def _gone(self, id: str) -> bool:
        """Whether the request was cancelled; it is then answered and done with."""
        if id not in self._cancelled:
            return False
        self._cancelled.discard(id)
        self.tell(id, "cancelled")
        return True

    def _kept(self, pictures: Sequence[Picture], drawing: Drawing, out: Path, name: str) -> list[Path]:
        paths = [out / f"{name}-{number}.png" for number in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path, drawing, self.base.source)
        return paths


def main() -> None:
    """Serve the supervisor that started this process. Only news may go to standard output."""
    news = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if not sys.stdin.readline():
        return
    try:
        gpu = GpuProcess(os.environ.get("AVATAR_BASE_MODEL") or None, sys.stdin, news)
    except UserError as error:
        print(sentence(error), file=sys.stderr, flush=True)
        sys.exit(2)
    gpu.serve()


if __name__ == "__main__":
    main()
