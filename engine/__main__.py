"""`python -m engine ...`: the engine from the command line, as worker and as a tool for one machine."""

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from engine.commands import learn
from engine.learning import launched
from engine.recipe import Distillate, Method
from engine.sentences import NOTICES, sentence
from engine.work.gpu_client import ENVIRONMENT
from storage.errors import UserError

EVALUATED: Mapping[str, Callable[[str], float]] = {
    "steps": int,
    "learning-rate": float,
    "rank": int,
    "prior-weight": float,
    "prior-album": int,
}
"""What of a recipe `evaluate` can take another value of."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Learn a person from photos and draw them.")
    commands = parser.add_subparsers(dest="command", required=True)

    commands.add_parser("work", help="take jobs from the queues until stopped")

    base = commands.add_parser("base", help="the base model in use")
    base.add_argument("--path", action="store_true", help="print its folder")

    inspect = commands.add_parser("inspect", help="a verdict for each photo")
    inspect.add_argument("photos", nargs="+", type=Path)
    inspect.add_argument("--class", dest="noun", default="person", help="class noun; things need no face")

    learning = learn.add_commands(commands)

    imagine = commands.add_parser("imagine", help="draw pictures")
    imagine.add_argument("--avatar", type=Path, action="append", default=[], help="folder written by train")
    imagine.add_argument("--style", type=Path, action="append", default=[], help="folder or file of a style's adapter")
    imagine.add_argument("--few", type=Path, help="few-step adapter written by distil")
    imagine.add_argument(
        "--weight",
        type=float,
        action="append",
        default=[],
        help="how much each avatar, then each style, counts; in that order, 1 where left out",
    )
    imagine.add_argument("--prompt", required=True)
    imagine.add_argument("--out", type=Path, required=True)
    imagine.add_argument("--count", type=int, default=1)
    imagine.add_argument("--steps", type=int)
    imagine.add_argument("--guidance", type=float)
    imagine.add_argument("--negative", default="")
    imagine.add_argument("--width", type=int)
    imagine.add_argument("--height", type=int)
    imagine.add_argument("--original", type=Path, help="a picture to vary")
    imagine.add_argument("--strength", type=float, help="how far a variation may go from it, 0 to 1")

    export = commands.add_parser("export", help="write a LoRA for other programs")
    export.add_argument("--avatar", type=Path, required=True, help="folder written by train")
    export.add_argument(
        "--format",
        choices=("diffusers", "kohya"),
        default="diffusers",
        help="kohya: the names of kohya's scripts, the WebUI and ComfyUI",
    )
    export.add_argument("--out", type=Path, required=True, help="a .safetensors file")

    take_in = commands.add_parser(
        "import", help="make an avatar, a style or a few-step adapter of somebody's LoRA file"
    )
    take_in.add_argument("file", type=Path, help="a .safetensors file with diffusers', kohya's or ComfyUI's names")
    take_in.add_argument("--token", help="the word that the person was learned under; without it, it is a style")
    take_in.add_argument("--class", dest="noun", help="class noun of the person")
    take_in.add_argument("--few", type=int, metavar="STEPS", help="it draws in so few steps, as an LCM-LoRA does")
    take_in.add_argument("--out", type=Path, required=True)

    distil = commands.add_parser("distil", help="learn a few-step adapter for a base")
    distil.add_argument(
        "--method",
        choices=get_args(Distillate),
        default="consistency",
        help="consistency: as LCM-LoRAs; endpoints: as the embedded base's own, more alike and more work",
    )
    distil.add_argument(
        "--dataset",
        type=Path,
        help="captioned pictures: an imagefolder with metadata.jsonl; the embedded base's drawn world by default",
    )
    distil.add_argument("--pictures", type=int, default=2000, help="of the drawn world, or drawn by the base")
    distil.add_argument("--out", type=Path, required=True)
    for name, kind in (("steps", int), ("batch", int), ("rank", int), ("learning-rate", float)):
        distil.add_argument(f"--{name}", type=kind, help="instead of the default")

    evaluate = commands.add_parser("evaluate", help="measure what the embedded base learns of people it never saw")
    evaluate.add_argument("--world", action="store_true", required=True)
    evaluate.add_argument("--people", type=int, default=4)
    evaluate.add_argument("--processes", type=int, default=1, help="people at once, each with one thread")
    evaluate.add_argument("--few", type=Path, help="a few-step adapter to draw with")
    evaluate.add_argument("--sheet", type=Path, help="a PNG file for all pictures")
    evaluate.add_argument("--work", type=Path, help="keeps people's pictures, so that a stopped evaluation goes on")
    evaluate.add_argument("--method", choices=get_args(Method), default="lora")
    for name, number in EVALUATED.items():
        evaluate.add_argument(f"--{name}", type=number, help="instead of the recipe's")

    for command in (*learning, imagine, export, take_in, distil):
        command.add_argument(
            "--base",
            help="diffusers folder, hub id or .safetensors file, or 'embedded'; by default AVATAR_BASE_MODEL, and the "
            "embedded base where that is not set",
        )
    for command in (*learning, imagine, distil):
        command.add_argument("--seed", type=int, default=0)
    for command in (inspect, *learning, imagine, export, take_in, distil, evaluate):
        command.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def _work(asked: argparse.Namespace) -> dict[str, Any]:
    from pydantic import ValidationError

    from engine.work.gpu_client import BaseUnusable
    from engine.work.settings import EngineSettings
    from engine.work.worker import run

    try:
        asyncio.run(run(EngineSettings()))
    except BaseUnusable:
        sys.exit(2)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"AVATAR_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}", file=sys.stderr)
        sys.exit(2)
    return {}


def _default_base() -> str | None:
    """The operator's base model; None for the embedded one."""
    from engine.work.settings import EngineSettings

    return EngineSettings().base_model or None


def _base(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.toon import WEIGHTS

    print(_default_base() or WEIGHTS)
    return {}


def _inspect(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.photos.inspection import inspect_album, sentence
    from engine.photos.rules import Rules

    for path in asked.photos:
        if not path.is_file():
            raise UserError("no_file", file=path)
    verdicts = inspect_album([path.read_bytes() for path in asked.photos], Rules.for_noun(asked.noun))
    for path, verdict in zip(asked.photos, verdicts, strict=True):
        print(f"{path.name}: {sentence(verdict)}")
    rows = zip(asked.photos, verdicts, strict=True)
    return {"verdicts": [{"file": str(path)} | verdict.to_json() for path, verdict in rows]}


def _imagine(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters.adapters import Attached, facts_of
    from engine.bases.base import BaseModel, as_drawn
    from engine.drawing.drawing import Drawing, check, draw

    adapters = (*asked.avatar, *asked.style, *([asked.few] if asked.few else []))
    for adapter in adapters:
        facts_of(adapter)
    if len(asked.weight) > len(adapters):
        raise UserError(
            "out_of_range", what="the number of weights", low=0, high=len(adapters), value=len(asked.weight)
        )
    weights = (*asked.weight, *[1.0] * (len(adapters) - len(asked.weight)))
    base = BaseModel.load(asked.base, rests=as_drawn)
    drawing = Drawing(
        asked.prompt, asked.count, asked.seed, asked.steps, asked.guidance, asked.negative,
        asked.width, asked.height, adapters, weights, asked.original,
        Drawing.strength if asked.strength is None else asked.strength,
    )  # fmt: skip
    attached = Attached(base)
    check(drawing, base, attached)
    began = time.monotonic()
    pictures = draw(base, attached, drawing)
    seconds = round(time.monotonic() - began, 2)
    paths = [asked.out / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, drawing, base.source)
        print(f"{path} (seed {picture.seed})")
    if base.family.notice:
        print(NOTICES[base.family.notice])
    if not base.fits(asked.prompt):
        print("The prompt is longer than this base model reads; its end was left out.")
    return {
        "prompt": asked.prompt, "seconds": seconds, "base": base.source, "notice": base.family.notice,
        "whole_prompt_read": base.fits(asked.prompt),
        "pictures": [{"path": str(path), "seed": p.seed} for path, p in zip(paths, pictures, strict=True)],
    }  # fmt: skip


def _export(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters.exchange import export
    from engine.bases.base import BaseModel

    layers = export(BaseModel.load(asked.base), asked.avatar, asked.format, asked.out)
    print(f"{asked.out}: {layers} layers under the names of {asked.format}")
    return {"file": str(asked.out), "format": asked.format, "layers": layers}


def _import(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters.adapters import FILE, AdapterKind
    from engine.adapters.exchange import foreign_facts, take_in
    from engine.bases.base import BaseModel
    from engine.learning import distillation

    if (asked.token is None) != (asked.noun is None):
        raise UserError("token_and_noun")
    who = learn.named(asked.token, asked.noun) if asked.token else ("", "")
    base = BaseModel.load(asked.base)
    kind: AdapterKind = "avatar" if asked.token else "few" if asked.few else "style"
    facts = distillation.facts(base, asked.few, 1.0) if asked.few else foreign_facts(base, kind, *who)
    layers = take_in(base, asked.file, facts, asked.out / FILE)
    print(f"{asked.out / FILE}: {layers} layers")
    return {"adapter": str(asked.out / FILE), "kind": kind, "layers": layers}


def _distil(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters.adapters import FILE
    from engine.bases.base import BaseModel
    from engine.learning import distillation

    base = BaseModel.load(asked.base)
    if asked.dataset:
        pictures, captions = distillation.captioned(base, asked.dataset)
    elif not base.family.sample_captions:
        raise UserError("no_photos", folder="--dataset")
    elif asked.method == "endpoints":
        pictures, captions = [], distillation.prompts(asked.pictures, asked.seed)
    else:
        pictures, captions = distillation.world(base, asked.pictures, asked.seed)
    values = {name: getattr(asked, name) for name in ("steps", "batch", "rank", "learning_rate")}
    recipe = replace(
        distillation.DEFAULTS[asked.method], **{name: value for name, value in values.items() if value is not None}
    )

    def show(step: int, of: int, loss: float) -> None:
        if step == of or step % 20 == 0:
            print(f"step {step} of {of}, loss {loss:.5f}", file=sys.stderr, flush=True)

    done = distillation.distil(base, pictures, captions, recipe, asked.out / FILE, seed=asked.seed, on_step=show)
    print(
        f"{asked.out / FILE}: draws in {distillation.DRAW_STEPS} steps, "
        f"learned in {done.steps} steps, {done.seconds:.0f} s"
    )
    return {
        "adapter": str(asked.out / FILE), "steps": done.steps, "seconds": round(done.seconds, 2),
        "first_loss": done.first_loss, "last_loss": done.last_loss, "draw_steps": distillation.DRAW_STEPS,
    }  # fmt: skip


def _evaluate(asked: argparse.Namespace) -> dict[str, Any]:
    from engine.adapters.adapters import FILE
    from engine.measuring.evaluation import evaluate, table

    overrides = {field: getattr(asked, field) for name in EVALUATED if (field := name.replace("-", "_"))}
    figures = evaluate(
        asked.people, asked.method, processes=asked.processes, few=asked.few and asked.few / FILE, sheet=asked.sheet,
        work=asked.work, on_person=lambda line: print(line, flush=True), **overrides,
    )  # fmt: skip
    print(table(figures))
    return figures


COMMANDS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "work": _work, "base": _base, "inspect": _inspect, "imagine": _imagine, "evaluate": _evaluate,
    "export": _export, "import": _import, "distil": _distil, **learn.COMMANDS,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 for success and 2 for a usage or input error, with one line on it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("arq", "httpx", "alembic", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The libraries are half a million objects that stay: to search them for dead ones again and again while they are
    # imported took a tenth of the time until the first step.
    gc.set_threshold(10_000)
    asked = _parser().parse_args(arguments)
    try:
        place = launched.place(os.environ)
        if place and hasattr(asked, "out") and asked.command not in learn.COMMANDS:
            raise UserError("alone", command=asked.command)
        if getattr(asked, "base", "") is None:
            asked.base = _default_base()
        figures = COMMANDS[asked.command](asked)
    except UserError as error:
        print(f"python -m engine {asked.command}: {sentence(error)}", file=sys.stderr)
        return 2
    if getattr(asked, "json", False) and place.get("RANK", "0") == "0":
        # Linux counts kibibytes, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"command": asked.command, **figures, "peak_memory_mb": round(peak / 2**20)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
