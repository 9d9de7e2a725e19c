"""The GPU process: `python -m engine.work.gpu_process` holds the resident base model and serves the supervisor.

Requests come as JSON lines on standard input and news goes out as JSON lines on standard output:

    {"task": "load"}                     {"id": "", "news": "ready", ...}: the first line; a spare process waits for it
    {"id": "7", "task": "train", ...}    {"id": "7", "news": "step", "step": 3, ...} and at last "news": "done".
                                         "prior" while class pictures are drawn before, "checkpoint" when one has been
                                         written between two steps, "sample" while samples are drawn after
    {"id": "8", "task": "imagine", ...}  the same; drawn between two steps of a training that is under way
    {"id": "7", "task": "cancel"}        {"id": "7", "news": "cancelled"}, unless the request is over

It knows folders and files, and nothing of jobs, queues or people. It ends when its standard input does, so that it
never outlives a killed supervisor.
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

from PIL import Image

from engine.adapters.adapters import Attached
from engine.adapters.file import FILE
from engine.bases.base import BaseModel, drawing_dtype
from engine.device.memory import OutOfMemory, within_memory
from engine.drawing.drawing import Drawing, Picture, Plan, draw, draw_together, make_plan
from engine.learning import training
from engine.learning.config import TrainingConfig
from engine.learning.listener import Listener, Progress, Stopped
from engine.measuring.likeness import likeness_of
from engine.photos.crops import prepared_album
from engine.photos.decoding import load_photo
from engine.recipe import choose
from engine.sentences import sentence
from storage.errors import UserError

SAMPLES = (
    "a photo of {instance}",
    "a photo of {instance} in a suit",
    "portrait of {instance}, smiling, blue background",
)
"""The prompts of the samples that are drawn when a person has been learned."""

ROWS = 16
"""The most pictures in a batch of several people's requests."""

NEWS_EVERY = 0.25
"""Least seconds between two news of a training's steps."""

Request = Mapping[str, Any]


class TrainingNews(Listener):
    """Tells the news of one training, and gives way to other requests between its steps.

    tell: writes news of the training. give_way: serves what waits, and raises Stopped if the training was cancelled.
    """

    def __init__(self, tell: Callable[..., None], give_way: Callable[[], None]) -> None:
        self._tell, self._give_way = tell, give_way
        self._told = 0.0
        self._short = False

    def tell(self, news: str, last: bool = False, **facts: Any) -> None:
        """Tell news, unless it is not the last of its kind and earlier news is younger than NEWS_EVERY."""
        if last or time.monotonic() - self._told >= NEWS_EVERY:
            self._told = time.monotonic()
            self._tell(news, **facts)

    def on_class_pictures(self, drawn: int, of: int) -> None:
        self.tell("prior", drawn=drawn, of=of)
        self._give_way()

    def on_step(self, progress: Progress) -> None:
        self.tell(
            "step",
            last=progress.step == progress.steps,
            step=progress.step,
            steps=progress.steps,
            seconds_left=progress.seconds_left,
            short=self._short,
        )
        self._give_way()

    def on_checkpoint(self, step: int) -> None:
        self._tell("checkpoint", step=step)

    def on_short_memory(self, rows: int) -> None:
        self._short = True


class GpuProcess:
    """One base model, and requests that take turns on it."""

    def __init__(self, base_source: str | None, requests: TextIO, news: TextIO) -> None:
        self._news, self._writing = news, threading.Lock()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._later: list[Request] = []
        self._open: set[str] = set()
        """Requests that have come and have not been answered for good."""
        self._cancelled: set[str] = set()
        """Those of them that are to stop."""
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        self.base = BaseModel.load(base_source, denoiser_dtype=drawing_dtype)
        self.attached = Attached(self.base)

    def _read(self, requests: TextIO) -> None:
        for line in requests:
            self.receive(json.loads(line))
        os._exit(0)

    def receive(self, request: Request) -> None:
        """Put a request into the queue. Any thread may call this."""
        self._requests.put(request)

    def tell(self, request_id: str, news: str, **facts: Any) -> None:
        """Write news of a request. Paths among the facts are written as text."""
        with self._writing:
            self._news.write(json.dumps({"id": request_id, "news": news} | facts, default=str) + "\n")
            self._news.flush()

    def _end(self, request_id: str, news: str, **facts: Any) -> None:
        """Write a request's last news. A cancellation that comes later finds it over."""
        self._open.discard(request_id)
        self._cancelled.discard(request_id)
        self.tell(request_id, news, **facts)

    def serve(self) -> None:
        """Serve one request after another, forever."""
        self.tell("", "ready", base=self.base.source, device=str(self.base.device))
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for requests and serve the waiting drawings, as many together as fit, or else one training."""
        if not self._later:
            self._sort_in(self._requests.get())
        self._look()
        if drawings := self._waiting_drawings():
            self._imagine(drawings)
        elif self._later:
            request = self._later.pop(0)
            self._guarded([request["id"]], partial(self._train, request))

    def _sort_in(self, request: Request) -> None:
        if request["task"] != "cancel":
            self._open.add(request["id"])
            self._later.append(request)
        elif request["id"] in self._open:
            self._cancelled.add(request["id"])

    def _look(self) -> None:
        """Take what has come, without waiting."""
        while not self._requests.empty():
            self._sort_in(self._requests.get())

    def _waiting_drawings(self) -> list[Request]:
        """Take the waiting requests for pictures, the oldest first, as many as fit into one batch."""
        taken: list[Request] = []
        rows = 0
        for request in [request for request in self._later if request["task"] == "imagine"]:
            rows += int(request["drawing"].get("count", 1))
            if taken and rows > ROWS:
                break
            taken.append(request)
            self._later.remove(request)
        return taken

    def _guarded(self, request_ids: Sequence[str], work: Callable[[], None]) -> None:
        """Do the work of these requests. What stops it ends all of them."""
        try:
            if self._cancelled.issuperset(request_ids):
                raise Stopped
            within_memory(work)
            return
        except Stopped:
            news: tuple[str, dict[str, Any]] = ("cancelled", {})
        except UserError as error:
            news = ("failed", {"code": error.code, "facts": error.facts})
        except Exception as error:
            # The type and place say what is wrong; the message could hold a prompt or a path.
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
            print(f"request {request_ids[0]} failed: {type(error).__name__} at {place}", file=sys.stderr, flush=True)
            news = ("failed", {"code": "internal", "facts": {}})
        for request_id in request_ids:
            if request_id in self._open:  # one of a batch may have its pictures already
                self._end(request_id, news[0], **news[1])

    def _give_way(self, training_id: str) -> None:
        """Between two steps of a training, of its class pictures or of its samples: serve the waiting drawings, and
        raise Stopped if the training was cancelled."""
        self._look()
        while drawings := self._waiting_drawings():
            self._imagine(drawings)
            self._look()
        if training_id in self._cancelled:
            raise Stopped

    def _giving_way(self, training_id: str, pictures: Iterable[Image.Image]) -> Iterator[Image.Image]:
        """The pictures, giving way before each, for work that takes long over one."""
        for picture in pictures:
            self._give_way(training_id)
            yield picture

    def _train(self, request: Request) -> None:
        # 1. The album and its recipe.
        request_id, out = request["id"], Path(request["out"])
        photos = [load_photo(Path(path).read_bytes()) for path in request["photos"]]
        recipe = choose(len(photos), request["method"], self.base.family, steps=request.get("steps"))
        side = recipe.side or self.base.side
        album = prepared_album(photos, self.base.family.album_crop, recipe.crop, side)

        # 2. The training.
        config = TrainingConfig(
            request["token"],
            request["noun"],
            recipe,
            seed=request["seed"],
            checkpoint=Path(request["checkpoint"]),
            prior_folder=Path(request["priors"]),
        )
        news = TrainingNews(partial(self.tell, request_id), partial(self._give_way, request_id))
        trained = training.train(self.base, album, config, out / FILE, listener=news)

        # 3. The samples. News during a drawing only shows that it goes on: other requests wait until it is done.
        person = f"{request['token']} {request['noun']}"
        samples, images = list[Path](), list[Image.Image]()
        for number, prompt in enumerate(SAMPLES):
            drawing = Drawing(prompt.format(instance=person), seed=number, avatars=(out / FILE,))
            drawn = draw(self.base, self.attached, drawing, lambda step, of: news.tell("sample"))
            samples += self._save(drawn, drawing, out, f"sample-{number}")
            images += [picture.image for picture in drawn]
            self._give_way(request_id)

        # 4. How much they look like the album.
        likeness = likeness_of(self.base, self._giving_way(request_id, album))
        score = round(likeness(self._giving_way(request_id, images)), 2) if likeness.known else None
        self._end(
            request_id,
            "done",
            steps=trained.steps,
            seconds=round(trained.seconds, 2),
            resumed_at=trained.resumed_at,
            recipe=recipe.as_json(),
            samples=samples,
            adapter=out / FILE,
            notice=self.base.family.notice,
            likeness=score,
        )

    def _imagine(self, requests: Sequence[Request]) -> None:
        """Draw the pictures of these requests in as few batches as possible. One that fails stops no other."""
        batches: dict[object, list[tuple[Request, Plan]]] = {}
        for request in requests:
            asked = request["drawing"]
            original, weights = asked.get("original"), asked.get("weights")
            read = {
                "avatars": tuple(map(Path, asked["avatars"])), "weights": tuple(weights) if weights else None,
                "original": Path(original) if original else None,
            }  # fmt: skip
            drawing = Drawing(**{**asked, **read})

            def sort_in(request: Request = request, drawing: Drawing = drawing) -> None:
                plan = make_plan(drawing, self.base, self.attached)
                batches.setdefault(plan.batch_key, []).append((request, plan))

            self._guarded([request["id"]], sort_in)
        for batch in batches.values():
            self._draw_batch(batch)

    def _draw_batch(self, batch: Sequence[tuple[Request, Plan]]) -> None:
        batch = [(request, plan) for request, plan in batch if not self._gone(request["id"])]
        if not batch:
            return
        began, request_ids = time.monotonic(), [request["id"] for request, _ in batch]

        def cancelled(step: int, of: int) -> None:
            self._look()
            # One person who leaves does not stop the others.
            if self._cancelled.issuperset(request_ids):
                raise Stopped

        def work() -> None:
            plans = [plan for _, plan in batch]
            try:
                drawn = within_memory(lambda: draw_together(self.base, self.attached, plans, cancelled))
            except OutOfMemory:
                if len(batch) == 1:
                    raise
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._draw_batch(half)
                return
            for (request, plan), pictures in zip(batch, drawn, strict=True):
                if self._gone(request["id"]):
                    continue
                paths = self._save(pictures, plan.drawing, Path(request["out"]), "picture")
                self._end(
                    request["id"], "done", seconds=round(time.monotonic() - began, 2), drawn_with=len(batch),
                    pictures=[{"path": str(path), "seed": one.seed} for path, one in zip(paths, pictures, strict=True)],
                    notice=self.base.family.notice,
                )  # fmt: skip

        self._guarded(request_ids, work)

    def _gone(self, request_id: str) -> bool:
        """Whether the request was cancelled; it is over then."""
        if request_id not in self._cancelled:
            return False
        self._end(request_id, "cancelled")
        return True

    def _save(self, pictures: Sequence[Picture], drawing: Drawing, out: Path, name: str) -> list[Path]:
        """Write the pictures into the folder `out`; returns their paths."""
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
