"""The commands that measure: `python -m engine inspect | evaluate`. `inspect` imports no torch."""

import argparse
from pathlib import Path
from typing import get_args

from engine.adapters.file import FILE
from engine.commands.command import Command, Figures, json_option
from engine.commands.recipe_options import EVALUATED, add_recipe_options, overrides
from engine.recipe import Method
from storage.errors import UserError


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", type=Path, help="photo files")
    parser.add_argument(
        "--class",
        dest="noun",
        default="person",
        help="class noun; a face is required only for people (default: person)",
    )
    json_option(parser)


def run_inspect(asked: argparse.Namespace) -> Figures:
    """`inspect`: a verdict for each photo."""
    from engine.photos.inspection import inspect_album, sentence
    from engine.photos.rules import Rules

    for path in asked.photos:
        if not path.is_file():
            raise UserError("no_file", file=path)
    verdicts = inspect_album([path.read_bytes() for path in asked.photos], Rules.for_noun(asked.noun))
    judged = list(zip(asked.photos, verdicts, strict=True))
    for path, verdict in judged:
        print(f"{path.name}: {sentence(verdict)}")
    return {"verdicts": [{"file": str(path)} | verdict.to_json() for path, verdict in judged]}


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--world",
        action="store_true",
        required=True,
        help="evaluate on people of the drawn world; required, since there is no other set yet",
    )
    parser.add_argument("--people", type=int, default=4, help="number of people (default: 4)")
    parser.add_argument(
        "--processes", type=int, default=1, help="number of processes, each with one person at a time (default: 1)"
    )
    parser.add_argument(
        "--few-step",
        "--few",
        dest="few_step",
        type=Path,
        help="folder of a few-step adapter to draw with (default: none)",
    )
    parser.add_argument("--sheet", type=Path, help="PNG file for all pictures (default: none)")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder that keeps the pictures, so that a stopped evaluation can resume (default: none)",
    )
    parser.add_argument(
        "--method", choices=get_args(Method), default="lora", help="LoRA or full DreamBooth (default: lora)"
    )
    add_recipe_options(parser, EVALUATED)
    json_option(parser)


def run_evaluate(asked: argparse.Namespace) -> Figures:
    """`evaluate`: learn people that the embedded base model has never seen, and score their pictures."""
    from engine.measuring.evaluation import evaluate, table

    figures = evaluate(
        asked.people,
        asked.method,
        processes=asked.processes,
        few_step_adapter=asked.few_step and asked.few_step / FILE,
        sheet=asked.sheet,
        work=asked.work,
        on_person=lambda line: print(line, flush=True),
        **overrides(asked),
    )
    print(table(figures))
    return figures


COMMANDS = (
    Command("inspect", "give a verdict for each photo", _inspect_options, run_inspect),
    Command(
        "evaluate", "measure how well the embedded base model learns unseen people", _evaluate_options, run_evaluate
    ),
)
