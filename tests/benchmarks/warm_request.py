"""Time one warm request in the source tree that Python finds first: `python -P warm_request.py BASE ADAPTER`.

A program of its own, so that `tests.benchmarks.overhead` can start it on the trees of two commits. It prints one line
of JSON: `seconds` of the drawing thread's CPU time that each request took outside the models' forward passes, `all`
seconds that it took, forward passes included, and `calls`, the Python and C functions that cProfile counts outside.
Every request has a prompt of its own.
"""

import argparse
import cProfile
import json
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from pstats import Stats
from typing import Any

import torch

STEPS = 4
WARM_UP = 5
PROMPT = "a photo of zk1 man, number {}"

Draw = Callable[[], object]


class Outside:
    """Measures what runs outside the forward passes of a base's models.

    Packing a linear layer's weight for oneDNN counts as part of the forward pass, as packing a convolution's is.
    """

    def __init__(self, base: Any) -> None:
        self._inside = 0.0
        self._entered: list[float] = []
        self._profile: cProfile.Profile | None = None
        for module in (base.unet, *base.text_encoders.values()):
            module.register_forward_pre_hook(lambda *given: self._enter())
            module.register_forward_hook(lambda *given: self._leave())
        base.vae.decode = self._left_out(base.vae.decode)
        mkldnn: Any = torch.ops.mkldnn
        mkldnn._reorder_linear_weight = self._left_out(mkldnn._reorder_linear_weight)

    def _left_out(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            self._enter()
            answer = work(*given, **named)
            self._leave()
            return answer

        return measured

    def _enter(self) -> None:
        if self._profile:
            self._profile.disable()
        self._entered.append(time.thread_time())

    def _leave(self) -> None:
        self._inside += time.thread_time() - self._entered.pop()
        if self._profile:
            self._profile.enable()

    def seconds(self, work: Draw) -> tuple[float, float]:
        """CPU time of this thread for `work`: less that of the forward passes, and all of it."""
        self._inside = 0.0
        began = time.thread_time()
        work()
        took = time.thread_time() - began
        return took - self._inside, took

    def calls(self, work: Draw) -> int:
        """Function calls of `work` but for those of the forward passes."""
        self._profile = cProfile.Profile()
        self._profile.enable()
        work()
        self._profile.disable()
        found: Any = Stats(self._profile)
        self._profile = None
        return int(found.total_calls)


def request(base: Any, adapter: Path) -> Draw:
    """One picture with one avatar, as the GPU process draws it."""
    try:
        from engine.adapters.adapters import Attached
        from engine.drawing.drawing import Drawing, draw_together, make_plan
    except ImportError:  # the tree of a commit before there were folders and plans
        return _request_before_plans(base, adapter)
    attached, numbers = Attached(base), count()

    def draw() -> None:
        asked = Drawing(PROMPT.format(next(numbers)), seed=1, steps=STEPS, avatars=(adapter,))
        draw_together(base, attached, [make_plan(asked, base, attached)])

    return draw


def _request_before_plans(base: Any, adapter: Path) -> Draw:
    from engine.generation import Drawing, check, company, draw_together  # type: ignore[import-not-found]

    from engine.adapters import Attached  # type: ignore[attr-defined]

    attached, numbers = Attached(base), count()

    def draw() -> None:
        asked = Drawing(PROMPT.format(next(numbers)), seed=1, steps=STEPS, avatars=(adapter,))
        check(asked, base, attached)
        company(asked, base, attached)
        draw_together(base, attached, [asked])

    return draw


def opened(folder: str) -> Any:
    """The base in `folder`, resting as the GPU process has it."""
    try:
        from engine.bases.base import BaseModel, drawing_dtype
    except ImportError:  # as above
        from engine.base import BaseModel, as_drawn  # type: ignore[import-not-found]

        return BaseModel.load(folder, torch.device("cpu"), rests=as_drawn)
    return BaseModel.load(folder, torch.device("cpu"), denoiser_dtype=drawing_dtype)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--times", type=int, default=60)
    asked = parser.parse_args(arguments)
    base = opened(asked.base)
    draw, outside = request(base, asked.adapter), Outside(base)
    for _ in range(WARM_UP):
        draw()
    seconds, whole = zip(*(outside.seconds(draw) for _ in range(asked.times)), strict=True)
    print(json.dumps({"seconds": seconds, "all": whole, "calls": outside.calls(draw)}))


if __name__ == "__main__":
    main()
