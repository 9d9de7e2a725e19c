"""`python -m engine ...`: the engine from the command line, as worker and as a tool for one machine."""

import argparse
import asyncio
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine import experiments
from engine.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Learn a person from photos and draw them.")
    commands = parser.add_subparsers(dest="command", required=True)

    commands.add_parser("work", help="take jobs from the queues until stopped")

    base = commands.add_parser("base", help="the base model in use")
    base.add_argument("--path", action="store_true", help="print its folder")

    inspect = commands.add_parser("inspect", help="a verdict for each photo")
    inspect.add_argument("photos", nargs="+", type=Path)
    inspect.add_argument("--class", dest="noun", default="person", help="class noun; things need no face")

    learning = experiments.add_commands(commands)

    imagine = commands.add_parser("imagine", help="draw pictures")
    imagine.add_argument("--avatar", type=Path, action="append", default=[], help="folder written by train")
    imagine.add_argument("--prompt", required=True)
    imagine.add_argument("--out", type=Path, required=True)
    imagine.add_argument("--count", type=int, default=1)
    imagine.add_argument("--steps", type=int)
    imagine.add_argument("--guidance", type=float)
    imagine.add_argument("--negative", default="")
    imagine.add_argument("--width", type=int)
    imagine.add_argument("--height", type=int)

    evaluate = commands.add_parser("evaluate", help="measure what the embedded base learns of people it never saw")
    evaluate.add_argument("--world", action="store_true", required=True)
    evaluate.add_argument("--people", type=int, default=4)
    evaluate.add_argument("--method", choices=("lora", "dreambooth"), default="lora")
    for name, kind in (("steps", int), ("learning-rate", float), ("rank", int), ("prior-weight", float)):
        evaluate.add_argument(f"--{name}", type=kind, help="instead of the recipe's")

    for command in (*learning, imagine):
        command.add_argument("--base", help="diffusers folder or hub id; the embedded base by default")
        command.add_argument("--seed", type=int, default=0)
    for command in (inspect, *learning, imagine, evaluate):
        command.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def _work(asked: argparse.Namespace) -> dict[str, Any]:
    from pydantic import ValidationError

    from engine.settings import EngineSettings
    from engine.supervision import BaseUnusable
    from engine.worker import run

    try:
        asyncio.run(run(EngineSettings()))
    except BaseUnusable:
        sys.exit(2)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"AVATAR_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}", file=sys.stderr)
        sys.exit(2)
    return {}


def _base(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.settings import EngineSettings
    from engine.toon import WEIGHTS

    print(EngineSettings().base_model or WEIGHTS)
    return {}


def _inspect(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.inspection import Rules, inspect_album, sentence

    for path in asked.photos:
        if not path.is_file():
            raise InputError("no_file", file=path)
    verdicts = inspect_album([path.read_bytes() for path in asked.photos], Rules.for_noun(asked.noun))
    for path, verdict in zip(asked.photos, verdicts, strict=True):
        print(f"{path.name}: {sentence(verdict)}")
    rows = zip(asked.photos, verdicts, strict=True)
    return {"verdicts": [{"file": str(path)} | verdict.to_json() for path, verdict in rows]}


def _imagine(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters import Attached, facts_of
    from engine.base import BaseModel
    from engine.generation import Drawing, check, draw

    for avatar in asked.avatar:
        facts_of(avatar)
    base = BaseModel.load(asked.base)
    drawing = Drawing(
        asked.prompt, asked.count, asked.seed, asked.steps, asked.guidance, asked.negative,
        asked.width, asked.height, tuple(asked.avatar),
    )  # fmt: skip
    check(drawing, base)
    began = time.monotonic()
    pictures = draw(base, Attached(base), drawing)
    seconds = round(time.monotonic() - began, 2)
    paths = [asked.out / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, drawing, base.source)
        print(f"{path} (seed {picture.seed})")
    if base.family.cartoon:
        print("The embedded base model draws cartoons.")
    if not base.fits(asked.prompt):
        print("The prompt is longer than this base model reads; its end was left out.")
    return {
        "prompt": asked.prompt, "seconds": seconds, "base": base.source, "cartoon": base.family.cartoon,
        "whole_prompt_read": base.fits(asked.prompt),
        "pictures": [{"path": str(path), "seed": p.seed} for path, p in zip(paths, pictures, strict=True)],
    }  # fmt: skip


def _evaluate(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.toon.evaluation import evaluate, table

    overrides = {name: getattr(asked, name) for name in ("steps", "rank", "learning_rate", "prior_weight")}
    figures = evaluate(asked.people, asked.method, on_person=lambda line: print(line, flush=True), **overrides)
    print(table(figures))
    return figures


COMMANDS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "work": _work, "base": _base, "inspect": _inspect, "imagine": _imagine, "evaluate": _evaluate,
    **experiments.COMMANDS,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 for success and 2 for a usage or input error, with one line on it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("arq", "httpx", "alembic", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # transformers would tell at every start that torchvision is not there, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    asked = _parser().parse_args(arguments)
    try:
        figures = COMMANDS[asked.command](asked)
    except InputError as error:
        print(f"python -m engine {asked.command}: {error.sentence}", file=sys.stderr)
        return 2
    if getattr(asked, "json", False):
        # Linux counts kibibytes, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"command": asked.command, **figures, "peak_memory_mb": round(peak / 2**20)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
