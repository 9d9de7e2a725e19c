"""The GPU process: `python -m engine.work.gpu_process` holds the resident base model and serves the supervisor.

It reads requests as JSON lines from standard input and writes messages ("news") as JSON lines to standard output:

    {"task": "load"}                     {"id": "", "news": "ready", ...}: the first line; a spare process waits for it
    {"id": "7", "task": "train", ...}    {"id": "7", "news": "step", "step": 3, ...} after a step, "prior" while class
                                         pictures are drawn before the first step, "checkpoint" after one was written,
                                         "sample" while samples are drawn after the last step, and finally "done"
    {"id": "8", "task": "imagine", ...}  "done"; drawn between two steps if a training is running
    {"id": "9", "task": "token", ...}    "done": the words that the base knows in an avatar's token, and a better one
    {"id": "7", "task": "cancel"}        {"id": "7", "news": "cancelled"}, unless the request is over

"ready" says which nouns the base can draw (null for any), how many drawings it makes of a person in photos (0 where
photos are learned as they are), and usual sizes of its pictures. A "train" has the fields photos, token, noun, method,
steps, seed, out, checkpoint, priors and looks: what the person is known to look like, or null. An "imagine" has out and
drawing: the fields of `Drawing`. A "token" has token, noun and taken, the person's other tokens. `engine.work.handlers`
sends them and reads the fields of "done". A request that cannot be done ends with "failed": the code and facts of a
UserError, or the code "internal".

It works on folders and files and has no access to jobs, queues or users. It ends when its standard input is closed, so
that it never outlives a killed supervisor.
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
from typing import Any, TextIO, TypeVar

from PIL import Image

from engine.adapters.adapters import Attached
from engine.adapters.exchange import export_all
from engine.adapters.file import FILE
from engine.bases.base import BaseModel, drawing_dtype
from engine.bases.names import known_words, propose
from engine.device.memory import OutOfMemory, within_memory
from engine.drawing.drawing import Drawing, Picture, Plan, draw, draw_together, make_plan
from engine.drawing.remarks import remarks
from engine.learning import albums, training
from engine.learning.config import TrainingConfig
from engine.learning.listener import Listener, Progress, Stopped
from engine.measuring.likeness import likeness_of
from engine.photos.crops import prepared_album
from engine.photos.inspection import learnable
from engine.photos.rules import Rules
from engine.recipe import choose
from engine.sentences import sentence, warning
from storage.errors import UserError

SAMPLES = (
    "a photo of {instance}",
    "a photo of {instance} in a suit",
    "portrait of {instance}, smiling, blue background",
)
"""The prompts of the samples that are drawn after a training."""

ROWS = 16
"""Most rows of a batch that combines several requests."""

NEWS_EVERY = 0.25
"""Least seconds between two progress messages of a training."""

OPERATORS = frozenset(("disk_full", "loss_not_finite"))
"""Codes of errors that the operators can do something about, and not the user: they are printed too."""

Request = Mapping[str, Any]
_T = TypeVar("_T")


class TrainingNews(Listener):
    """Sends the news of one training, and serves other requests between its steps.

    send: writes a message of the training. give_way: serves waiting drawings; raises Stopped if the training was
    cancelled.
    """

    def __init__(self, send: Callable[..., None], give_way: Callable[[], None]) -> None:
        self._send, self._give_way = send, give_way
        self._last_sent = 0.0
        self._short = self._anew = False

    def progress(self, news: str, last: bool = False, **facts: Any) -> None:
        """Send a progress message: the last of its kind always, others at most once in NEWS_EVERY seconds."""
        if last or time.monotonic() - self._last_sent >= NEWS_EVERY:
            self._last_sent = time.monotonic()
            self._send(news, **facts)

    def on_class_pictures(self, drawn: int, of: int) -> None:
        self.progress("prior", drawn=drawn, of=of)
        self._give_way()

    def on_step(self, progress: Progress) -> None:
        self.progress(
            "step",
            last=progress.step == progress.steps,
            step=progress.step,
            steps=progress.steps,
            seconds_left=progress.seconds_left,
            short=self._short,
            anew=self._anew,
        )
        self._give_way()

    def on_checkpoint(self, step: int) -> None:
        self._send("checkpoint", step=step)

    def on_short_memory(self, rows: int) -> None:
        self._short = True

    def on_warning(self, code: str, **facts: object) -> None:
        print(warning(code, facts), file=sys.stderr, flush=True)
        self._anew |= code in ("checkpoint_damaged", "checkpoint_of_another_run")


class GpuProcess:
    """One base model, and requests that take turns on it."""

    def __init__(self, base_source: str | None, requests: TextIO, news: TextIO) -> None:
        self._news, self._writing = news, threading.Lock()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._waiting: list[Request] = []
        self._open: set[str] = set()
        """Ids of the requests that have not ended."""
        self._cancelled: set[str] = set()
        """Ids of the requests among them that were cancelled and have to stop."""
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

    def send(self, request_id: str, news: str, **facts: Any) -> None:
        """Write a message of a request. Paths among the facts are written as text."""
        with self._writing:
            self._news.write(json.dumps({"id": request_id, "news": news} | facts, default=str) + "\n")
            self._news.flush()

    def _end(self, request_id: str, news: str, **facts: Any) -> None:
        """Write a request's last message. Later cancellations of it are ignored."""
        self._open.discard(request_id)
        self._cancelled.discard(request_id)
        self.send(request_id, news, **facts)

    def serve(self) -> None:
        """Serve one request after another, forever."""
        family = self.base.family
        self.send(
            "",
            "ready",
            base=self.base.source,
            device=str(self.base.device),
            nouns=None if family.nouns is None else sorted(family.nouns),
            drawings=family.drawings,
            notice=family.notice,
            sizes=self.base.usual_sizes,
        )
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait for a request. Then serve the waiting drawings that fit into one batch, or if there are none, one
        training."""
        if not self._waiting:
            self._accept(self._requests.get())
        self._accept_all()
        if drawings := self._take_drawings():
            self._imagine(drawings)
        elif self._waiting:
            request = self._waiting.pop(0)
            self._guarded([request["id"]], partial(self._train, request))

    def _check_token(self, request: Request) -> None:
        known = known_words(self.base, request["token"])
        proposal = propose(self.base, request["token"], request["noun"], request["taken"]) if known else None
        self._end(request["id"], "done", known=known, proposal=proposal)

    def _accept(self, request: Request) -> None:
        """Add a request to those that wait, or mark the request that it cancels. What needs no drawing is answered at
        once."""
        if request["task"] == "token":
            self._open.add(request["id"])
            self._guarded([request["id"]], partial(self._check_token, request))
        elif request["task"] != "cancel":
            self._open.add(request["id"])
            self._waiting.append(request)
        elif request["id"] in self._open:
            self._cancelled.add(request["id"])

    def _accept_all(self) -> None:
        """Accept all requests that have arrived, without waiting for more."""
        while not self._requests.empty():
            self._accept(self._requests.get())

    def _take_drawings(self) -> list[Request]:
        """Take the waiting requests for pictures that fit into one batch, oldest first."""
        taken: list[Request] = []
        rows = 0
        for request in [request for request in self._waiting if request["task"] == "imagine"]:
            rows += int(request["drawing"].get("count", 1))
            if taken and rows > ROWS:
                break
            taken.append(request)
            self._waiting.remove(request)
        return taken

    def _guarded(self, request_ids: Sequence[str], work: Callable[[], None]) -> None:
        """Do the work of these requests. An error or a cancellation ends all of them."""
        try:
            if self._cancelled.issuperset(request_ids):
                raise Stopped
            within_memory(work)
            return
        except Stopped:
            news: tuple[str, dict[str, Any]] = ("cancelled", {})
        except UserError as error:
            if error.code in OPERATORS:
                print(f"request {request_ids[0]} failed: {sentence(error)}", file=sys.stderr, flush=True)
            news = ("failed", {"code": error.code, "facts": error.facts})
        except Exception as error:
            # Only the type and the line: the message could hold a prompt or a path.
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            line = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
            print(f"request {request_ids[0]} failed: {type(error).__name__} at {line}", file=sys.stderr, flush=True)
            news = ("failed", {"code": "internal", "facts": {}})
        for request_id in request_ids:
            if request_id in self._open:  # some requests of a batch may have ended already
                self._end(request_id, news[0], **news[1])

    def _give_way(self, training_id: str) -> None:
        """Between two steps of a training, of its class pictures or of its samples: serve the waiting drawings, and
        raise Stopped if the training was cancelled."""
        self._accept_all()
        while drawings := self._take_drawings():
            self._imagine(drawings)
            self._accept_all()
        if training_id in self._cancelled:
            raise Stopped

    def _giving_way(self, training_id: str, pictures: Iterable[_T]) -> Iterator[_T]:
        """The pictures, or their paths, one by one, with other requests served before each: for work that takes long
        for each."""
        for picture in pictures:
            self._give_way(training_id)
            yield picture

    def _train(self, request: Request) -> None:
        # 1. The album and its recipe.
        request_id, out, family = request["id"], Path(request["out"]), self.base.family
        token, noun, seed = request["token"], request["noun"], request["seed"]
        rules = Rules.for_noun(noun)
        paths: Sequence[str] = request["photos"]
        photos = [learnable(Path(path).read_bytes(), rules) for path in self._giving_way(request_id, paths)]
        known = request.get("looks")
        read = (lambda photos: known) if known else albums.read_looks
        learned = albums.open_album(photos, family, token, noun, read=read, seed=seed)
        recipe = choose(len(learned.pictures), request["method"], family, steps=request.get("steps"))
        side = recipe.side or self.base.side
        album = prepared_album(learned.pictures, family.album_crop, recipe.crop, side, learned.drawn)

        # 2. The training.
        config = TrainingConfig(
            token,
            noun,
            recipe,
            seed=seed,
            known_captions=learned.captions,
            checkpoint=Path(request["checkpoint"]),
            prior_folder=Path(request["priors"]),
        )
        news = TrainingNews(partial(self.send, request_id), partial(self._give_way, request_id))
        trained = training.train(self.base, album, config, out / FILE, listener=news)

        # 3. The samples. Messages during a drawing only show that it goes on; other requests wait until it ends.
        person = f"{token} {noun}"
        samples, images = list[Path](), list[Image.Image]()
        for number, prompt in enumerate(SAMPLES):
            drawing = Drawing(prompt.format(instance=person), seed=number, avatars=(out / FILE,))
            drawn = draw(self.base, self.attached, drawing, lambda step, of: news.progress("sample"))
            samples += self._save(drawn, drawing, out, f"sample-{number}")
            images += [picture.image for picture in drawn]
            self._give_way(request_id)

        # 4. The files for other programs.
        exports = export_all(self.base, out / FILE, out, images[0] if images else None)
        self._give_way(request_id)

        # 5. The samples' likeness to the album.
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
            exports=exports,
            notice=family.notice,
            likeness=score,
            looks=learned.looks,
        )

    def _imagine(self, requests: Sequence[Request]) -> None:
        """Draw the pictures of these requests in as few batches as possible. If one fails, the others go on."""
        batches: dict[object, list[tuple[Request, Plan]]] = {}
        for request in requests:
            asked = request["drawing"]
            original, weights = asked.get("original"), asked.get("weights")
            typed = {
                "avatars": tuple(map(Path, asked["avatars"])),
                "weights": tuple(weights) if weights else None,
                "original": Path(original) if original else None,
            }
            drawing = Drawing(**{**asked, **typed})

            def add_to_batch(request: Request = request, drawing: Drawing = drawing) -> None:
                plan = make_plan(drawing, self.base, self.attached)
                batches.setdefault(plan.batch_key, []).append((request, plan))

            self._guarded([request["id"]], add_to_batch)
        for batch in batches.values():
            self._draw_batch(batch)

    def _draw_batch(self, batch: Sequence[tuple[Request, Plan]]) -> None:
        batch = [(request, plan) for request, plan in batch if not self._end_if_cancelled(request["id"])]
        if not batch:
            return
        began, request_ids = time.monotonic(), [request["id"] for request, _ in batch]

        def cancelled(step: int, of: int) -> None:
            self._accept_all()
            # A cancelled request does not stop the others of its batch.
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
                if self._end_if_cancelled(request["id"]):
                    continue
                paths = self._save(pictures, plan.drawing, Path(request["out"]), "picture")
                self._end(
                    request["id"],
                    "done",
                    seconds=round(time.monotonic() - began, 2),
                    drawn_with=len(batch),
                    pictures=[{"path": str(path), "seed": one.seed} for path, one in zip(paths, pictures, strict=True)],
                    notice=self.base.family.notice,
                    unread=plan.unread(self.base),
                    weights_ignored=self.base.weights_ignored(plan.prompt),
                    remarks=remarks(plan, self.base).as_json(),
                )

        self._guarded(request_ids, work)

    def _end_if_cancelled(self, request_id: str) -> bool:
        """Whether the request was cancelled. If so, it ends now."""
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
    """Serve the supervisor that started this process. Standard output is for messages alone, so prints go elsewhere."""
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
