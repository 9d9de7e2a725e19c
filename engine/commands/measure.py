"""The commands that measure: `python -m engine inspect | evaluate`. `inspect` imports no torch."""

import argparse
from pathlib import Path
from typing import get_args

from engine.adapters.file import FILE
from engine.commands.command import Command, Figures, json_option, photo_files
from engine.commands.recipe_options import EVALUATED, add_recipe_options, overrides
from engine.recipe import Method
from storage.errors import UserError


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", type=Path, help="photo files, or folders of photos")
    parser.add_argument(
        "--class",
        dest="noun",
        default="person",
        help="class noun; a face is required only for people (default: person)",
    )
    json_option(parser)


def run_inspect(asked: argparse.Namespace) -> Figures:
    """`inspect`: a verdict for each photo, and what the person looks like."""
    from engine.photos.inspection import Inspected, inspect_album, sentence
    from engine.photos.looks import PhotoLooks, looks_sentence, read_album, read_photo
    from engine.photos.rules import Rules

    files = list[Path]()
    for path in asked.photos:
        if not path.exists():
            raise UserError("no_file", file=path)
        files += photo_files(path) if path.is_dir() else [path]
    seen = dict[int, PhotoLooks]()

    def read(number: int, one: Inspected) -> None:
        if one.image and one.face and "several_faces" not in one.verdict.codes:
            looks = read_photo(one.image, one.face)
            if looks:
                seen[number - 1] = looks

    verdicts = inspect_album([path.read_bytes() for path in files], Rules.for_noun(asked.noun), read)
    judged = list(zip(files, verdicts, strict=True))
    for path, verdict in judged:
        print(f"{path.name}: {sentence(verdict)}")
    # A rejected photo is read only if no other shows the person.
    accepted = [looks for number, looks in seen.items() if verdicts[number].ok]
    looks = read_album(accepted or list(seen.values()))
    if looks:
        print(looks_sentence(looks))
    return {
        "verdicts": [{"file": str(path)} | verdict.to_json() for path, verdict in judged],
        "looks": looks.to_json() if looks else None,
    }


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
    Command("inspect", "give a verdict for each photo, and read the person's looks", _inspect_options, run_inspect),
    Command(
        "evaluate", "measure how well the embedded base model learns unseen people", _evaluate_options, run_evaluate
    ),
)
