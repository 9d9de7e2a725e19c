"""The command that draws: `python -m engine imagine`. Imports torch only when it runs."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from engine.commands.command import Command, Figures, base_option, base_source, json_option, seed_option
from engine.sentences import KNOWN_WORDS, MISSPELLED, NOTICES, OTHER_SIZE, UNKNOWN_WORDS
from storage.errors import UserError

if TYPE_CHECKING:
    from engine.drawing.remarks import Remarks


PHRASE_MOST = 60
"""Most characters of an unknown phrase in a sentence."""


def _imagine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="what to draw, such as: cr7d man in a suit")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the pictures, which are added to those in it"
    )
    parser.add_argument(
        "--avatar",
        type=Path,
        action="append",
        default=[],
        help="folder of an avatar, written by train; may be repeated (default: none)",
    )
    parser.add_argument(
        "--style",
        type=Path,
        action="append",
        default=[],
        help="folder or file of a style, written by finetune or import; may be repeated (default: none)",
    )
    parser.add_argument(
        "--few-step",
        "--few",
        dest="few_step",
        type=Path,
        help="folder of a few-step adapter, written by distil or import (default: none)",
    )
    parser.add_argument(
        "--weight",
        type=float,
        action="append",
        default=[],
        help="weight of an adapter: avatars first, then styles, in their order; may be repeated (default: 1 each)",
    )
    parser.add_argument("--count", type=int, default=1, help="number of pictures (default: 1)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the base model's)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the base model's)")
    parser.add_argument("--negative", default="", help="negative prompt: what to avoid (default: none)")
    parser.add_argument("--width", type=int, help="width in pixels (default: the base model's)")
    parser.add_argument("--height", type=int, help="height in pixels (default: the base model's)")
    parser.add_argument("--original", type=Path, help="a picture to vary (default: none)")
    parser.add_argument(
        "--strength", type=float, help="how far a variation may be from its original, 0 to 1 (default: 0.6)"
    )
    base_option(parser)
    seed_option(parser)
    json_option(parser)


def run_imagine(asked: argparse.Namespace) -> Figures:
    """`imagine`: draw pictures of a prompt."""
    from engine.adapters.adapters import Attached, facts_of
    from engine.bases.base import BaseModel, drawing_dtype
    from engine.drawing.drawing import Drawing, draw_together, make_plan, read_original
    from engine.drawing.remarks import remarks

    # 1. The original, and the adapters with their weights. A missing one is reported before the base is loaded.
    if asked.original:
        read_original(asked.original)
    adapters = (*asked.avatar, *asked.style, *([asked.few_step] if asked.few_step else []))
    for adapter in adapters:
        facts_of(adapter)
    if len(asked.weight) > len(adapters):
        raise UserError(
            "out_of_range", what="the number of weights", low=0, high=len(adapters), value=len(asked.weight)
        )
    weights = (*asked.weight, *[1.0] * (len(adapters) - len(asked.weight)))

    # 2. The drawing.
    base = BaseModel.load(base_source(asked), denoiser_dtype=drawing_dtype)
    drawing = Drawing(
        prompt=asked.prompt,
        count=asked.count,
        seed=asked.seed,
        steps=asked.steps,
        guidance=asked.guidance,
        negative_prompt=asked.negative,
        width=asked.width,
        height=asked.height,
        avatars=adapters,
        weights=weights,
        original=asked.original,
        strength=Drawing.strength if asked.strength is None else asked.strength,
    )
    attached = Attached(base)
    plan = make_plan(drawing, base, attached)
    began = time.monotonic()
    [pictures] = draw_together(base, attached, [plan])
    seconds = round(time.monotonic() - began, 2)

    # 3. The files and the report.
    first = _first_free(asked.out)
    paths = [asked.out / f"{first + number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, drawing, base.source)
        print(f"{path} (seed {picture.seed})")
    remarked = remarks(plan, base)
    for line in _lines(remarked):
        print(line)
    if base.family.notice:
        print(NOTICES[base.family.notice])
    unread = plan.unread(base)
    if unread:
        print(f"This base model could not read the end of the prompt: {unread}")
    weights_ignored = base.weights_ignored(asked.prompt)
    if weights_ignored:
        print("This base model knows no weights; the words in brackets were read as they are.")
    return {
        "prompt": asked.prompt,
        "seconds": seconds,
        "base": base.source,
        "notice": base.family.notice,
        "whole_prompt_read": not unread,
        "unread": unread,
        "weights_ignored": weights_ignored,
        "pictures": [{"path": str(path), "seed": one.seed} for path, one in zip(paths, pictures, strict=True)],
        **remarked.as_json(),
    }


def _first_free(folder: Path) -> int:
    """The number after the last picture in the folder, so that none is replaced."""
    numbers = [int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal()]
    return max(numbers, default=-1) + 1


def _lines(remarked: "Remarks") -> Iterator[str]:
    """The remarks on a drawing as sentences."""
    if remarked.unknown:
        phrases = ", ".join(f"'{shorten(one.phrase, PHRASE_MOST, placeholder='...')}'" for one in remarked.unknown)
        similar = ", ".join(f"'{word}'" for one in remarked.unknown for word in one.similar[:1])
        known = ", ".join(f"'{names[0]}'" for names in remarked.known.values())
        hint = MISSPELLED.format(similar=similar) if similar else KNOWN_WORDS.format(examples=known)
        yield f"{UNKNOWN_WORDS.format(phrases=phrases)} {hint}"
    asked, drawn = ("x".join(map(str, size)) for size in (remarked.size.asked, remarked.size.drawn))
    if asked != drawn:
        yield OTHER_SIZE.format(asked=asked, drawn=drawn)


COMMANDS = (Command("imagine", "draw pictures", _imagine_options, run_imagine, single=True),)
