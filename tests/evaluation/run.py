"""Run the evaluation: `python -m tests.evaluation --people 40 --base DIR --out DIR`.

Each person is learned from an album and drawn with every prompt; pictures are kept in `--out`, so that a stopped run
resumes and scores can be computed again. Other artworks are reported apart.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from tests.evaluation import albums, strangers
from tests.evaluation.drawing import Print
from tests.evaluation.judging import PixelReader, Ruler, judge_of, kept_ruler, right
from tests.evaluation.painting import EnginePainter, Painter, Refused, Request, home
from tests.evaluation.prompts import COUNT, Prompt, prompts
from tests.evaluation.scoring import (
    AVATAR,
    BASE,
    CLASS,
    CLASS_KINDS,
    WAYS,
    Recognises,
    Sheets,
    Subject,
    Tally,
    figures,
    goals,
    table,
    tally,
)

OWN = "avataaars"
"""The artwork of the base's own world; the others are strangers'."""

PHOTOS = 8

LEAST_PEOPLE = 40
"""Fewer people prove nothing."""

MEASURED = 4000
"""Renders on which readers are measured."""


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    base: str
    out: Path
    people: int = 40
    pictures: int = 4
    """Pictures of each prompt."""
    prompts: int = COUNT
    """Prompts of each person, spread over the kinds."""
    photos: int = PHOTOS
    seed: int = 0
    options: tuple[str, ...] = ()
    """Further options of `engine train`."""
    steps: int | None = None
    measured: int = MEASURED


def weights_of(base: str) -> Path:
    """The folder of a base model's weights."""
    from engine.toon import WEIGHTS

    return WEIGHTS if base == "embedded" else Path(base)


def fingerprint(folder: Path) -> str:
    """Sixteen hexadecimal digits: a hash of all weights in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def asked_of(number: int, count: int) -> list[Prompt]:
    """The prompts of one person; `count` of them, spread over the kinds."""
    every = prompts(number)
    return every if count >= len(every) else [every[(2 * n + 1) * len(every) // (2 * count)] for n in range(count)]


def subject_of(artwork: str, number: int, plan: Plan) -> tuple[Subject, Sequence[Any]]:
    """Who is learned, and the album."""
    asked = asked_of(number, plan.prompts)
    if artwork == OWN:
        person = albums.person(number, plan.seed)
        identity = {name: (value,) for name, value in person.facts().items() if name in albums.IDENTITY}
        return Subject(identity, person.noun, asked), albums.album(person, plan.photos, plan.seed)
    stranger = strangers.stranger(artwork, number, plan.seed)
    return Subject(stranger.accepted(), stranger.noun, asked), strangers.album(stranger, plan.photos, plan.seed)


def requests_of(subject: Subject, number: int, plan: Plan, avatar: Path) -> dict[str, list[Request | None]]:
    """What is drawn of one person, by way. The seeds of all ways are equal."""

    def one(way: str, at: int, prompt: Prompt) -> Request | None:
        if way == CLASS and prompt.kind not in CLASS_KINDS:
            return None
        who = f"{token_of(number)} {subject.noun}" if way == AVATAR else subject.noun
        seed = 7_000 + 1_000 * number + plan.pictures * at
        return Request(prompt.of(who), seed, plan.pictures, prompt.size, None if way == BASE else avatar)

    return {way: [one(way, at, prompt) for at, prompt in enumerate(subject.prompts)] for way in WAYS}


def token_of(number: int) -> str:
    """The made-up word of one person."""
    return f"qv{number}t"


def paint_person(artwork: str, number: int, plan: Plan, key: str, painter: Painter) -> dict[str, Any]:
    """Learn and draw one person, unless an equal run did; returns what is known of the training."""
    folder = plan.out / artwork / f"person-{number:02d}"
    done, asked = folder / "done.json", {"key": key, "plan": _of_person(plan)}
    if done.exists() and (before := json.loads(done.read_text()))["asked"] == asked:
        return dict(before["training"])
    shutil.rmtree(folder, ignore_errors=True)
    subject, album = subject_of(artwork, number, plan)
    photos = folder / "album"
    photos.mkdir(parents=True)
    truths = {}
    for at, picture in enumerate(album):
        suffix, data = picture.file()
        (photos / f"{at}.{suffix}").write_bytes(data)
        truths[f"{at}.{suffix}"] = picture.facts()
    (folder / "truth.json").write_text(json.dumps(truths, indent=1) + "\n")
    avatar = folder / "avatar-file"
    try:
        trained = painter.learn(photos, token_of(number), subject.noun, avatar)
        training: dict[str, Any] = {
            "seconds": trained.get("seconds"), "photos": trained.get("photos"), "steps": trained.get("steps")
        }  # fmt: skip
    except Refused as refusal:
        training = {"refused": str(refusal)}
    every = requests_of(subject, number, plan, avatar)
    for way, wanted in every.items():
        if "refused" in training and way != BASE:
            continue
        chosen = [(at, one) for at, one in enumerate(wanted) if one]
        sets = painter.draw([one for _, one in chosen])
        (folder / way).mkdir()
        for (at, _), pictures in zip(chosen, sets, strict=True):
            strip(pictures).save(folder / way / f"{at:02d}.png")
    # It says that the pictures are complete, so it comes last.
    done.write_text(json.dumps({"asked": asked, "training": training}) + "\n")
    return training


def _of_person(plan: Plan) -> dict[str, Any]:
    """What of the plan decides a person's pictures."""
    parts = dataclasses.asdict(plan)
    return {name: parts[name] for name in ("pictures", "prompts", "photos", "seed", "steps")} | {
        "options": list(plan.options)
    }


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size beside each other."""
    width, height = pictures[0].size
    board = Image.new("RGB", (width * len(pictures), height))
    for number, picture in enumerate(pictures):
        board.paste(picture, (number * width, 0))
    return board


def sheets_of(artwork: str, number: int, plan: Plan) -> Sheets:
    """The pictures of one person that were kept."""
    folder = plan.out / artwork / f"person-{number:02d}"

    def pictures(file: Path) -> list[Image.Image] | None:
        if not file.exists():
            return None
        with Image.open(file) as board:
            width = board.width // plan.pictures
            return [board.crop((n * width, 0, (n + 1) * width, board.height)) for n in range(plan.pictures)]

    count = len(asked_of(number, plan.prompts))
    return {way: [pictures(folder / way / f"{at:02d}.png") for at in range(count)] for way in WAYS}


def read_in_artwork(artwork: str, ruler: Ruler, people: int = 12) -> dict[str, float]:
    """How often the readers are right about a stranger's own pictures, by attribute of the person.

    Readers are trusted with the base's artwork. An avatar that draws as the stranger does may be misread, which these
    shares show.
    """
    answers = defaultdict[str, list[bool]](list)
    for number in range(people):
        person = strangers.stranger(artwork, number)
        pictures = [dataclasses.replace(one, how=Print(256)).image() for one in strangers.album(person, 3)]
        for found in ruler.reading(pictures):
            for name, accepted in person.accepted().items():
                if name in found:
                    answers[name].append(right(name, found[name], accepted))
    return {name: sum(given) / len(given) for name, given in answers.items()}


CELL = 96
"""Pixels of a contact sheet's cells."""


def contact_sheet(artwork: str, number: int, plan: Plan) -> Image.Image:
    """One person at a glance: the album, and each prompt's first picture with the avatar and by the base alone."""
    folder, sheets = plan.out / artwork / f"person-{number:02d}", sheets_of(artwork, number, plan)
    rows: list[list[Image.Image]] = [[Image.open(file) for file in sorted((folder / "album").iterdir())]]
    rows += [[drawn[0] for drawn in sheets[way] if drawn] for way in (AVATAR, BASE)]
    board = Image.new("RGB", (CELL * max(map(len, rows)), CELL * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            picture.thumbnail((CELL - 2, CELL - 2))
            board.paste(picture.convert("RGB"), (CELL * x, CELL * y))
    return board


def score(artwork: str, plan: Plan, ruler: Ruler, recogniser: Recognises | None) -> dict[str, Any]:
    """The figures of all people of one artwork, from the pictures that were kept."""
    into = Tally()
    for number in range(plan.people):
        subject, _ = subject_of(artwork, number, plan)
        tally(subject, sheets_of(artwork, number, plan), ruler, recogniser, into)
    return figures(into)


def _in_process(artwork: str, number: int, plan: Plan, key: str, threads: int) -> dict[str, Any]:
    """`paint_person` with the engine, in a process of a pool."""
    import torch

    torch.set_num_threads(threads)
    with home(plan.out / f"home-{os.getpid()}"):
        return paint_person(artwork, number, plan, key, EnginePainter(plan.base, plan.options, plan.steps))


def evaluate(
    plan: Plan, artworks: Sequence[str], processes: int = 1, on_line: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Learn, draw and score. Returns the figures of each artwork, and what is measured by whom."""
    import torch

    from engine.bases.base import BaseModel
    from tests.evaluation.recognition import on_renders, recogniser_of

    folder = weights_of(plan.base)
    key = fingerprint(folder)
    plan.out.mkdir(parents=True, exist_ok=True)
    threads = 1 if processes > 1 else torch.get_num_threads()
    training = dict[str, list[dict[str, Any]]]()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        futures: list[tuple[str, int, Future[dict[str, Any]]]] = [
            (artwork, number, pool.submit(_in_process, artwork, number, plan, key, threads))
            for artwork in artworks
            for number in range(plan.people)
        ]
        for artwork, number, future in futures:
            training.setdefault(artwork, []).append(future.result())
            on_line(f"{artwork}, person {number + 1} of {plan.people}: {training[artwork][-1]}")
    for leftover in plan.out.glob("home-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    side = BaseModel.load(plan.base).side
    readers = [judge_of(folder), PixelReader()]
    ruler = kept_ruler(readers, plan.out / "readers.json", key, plan.measured, side)
    recogniser = recogniser_of(folder)
    lines = ruler.lines()
    if recogniser:
        shares = ", ".join(f"{kind} {100 * share:.0f}" for kind, share in on_renders(recogniser, side).items())
        lines.append(f"things: measured by the base's CLIP, which finds the right one first on renders, in %: {shares}")
    results: dict[str, Any] = {"base": plan.base, "people": plan.people, "measured_by": lines, "artworks": {}}
    for artwork in artworks:
        found = score(artwork, plan, ruler, recogniser)
        for number in range(plan.people):
            contact_sheet(artwork, number, plan).save(plan.out / artwork / f"person-{number:02d}.png")
        rows = training[artwork]
        seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
        found["training"] = {
            "refused": sum("refused" in row for row in rows),
            "photos_used": sum(row.get("photos") or 0 for row in rows) / max(1, plan.people * plan.photos),
            "mean_seconds": sum(seconds) / len(seconds) if seconds else None,
        }
        found["read_in_artwork"] = {} if artwork == OWN else read_in_artwork(artwork, ruler)
        results["artworks"][artwork] = {**found, "goals": goals(found)}
    (plan.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def report(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    parts = [
        f"## Evaluation of {results['base']}, {results['people']} people",
        "",
        "What was measured, and by whom:",
        "",
    ]
    parts += [f"- {line}" for line in results["measured_by"]]
    if results["people"] < LEAST_PEOPLE:
        parts += ["", f"{LEAST_PEOPLE} people are asked for; with fewer, nothing is shown yet."]
    for artwork, found in results["artworks"].items():
        whose = "albums in the base's own artwork" if artwork == OWN else "a stranger's drawings"
        training = found["training"]
        parts += ["", f"### {artwork}: {whose}", "", table(found), ""]
        parts.append(
            f"Albums refused: {training['refused']}; pictures used: {100 * training['photos_used']:.0f} %; mean "
            f"training time: {training['mean_seconds'] or 0:.0f} s."
        )
        if found["read_in_artwork"]:
            shares = ", ".join(f"{name} {100 * share:.0f}" for name, share in found["read_in_artwork"].items())
            parts.append(f"The readers are right about the stranger's own pictures for, in %: {shares}.")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation", description=__doc__)
    parser.add_argument("--people", type=int, default=40, help="number of people (default: 40)")
    parser.add_argument("--base", default="embedded", help="base model: a diffusers folder (default: embedded)")
    parser.add_argument("--out", type=Path, required=True, help="folder for albums, avatars, pictures and results")
    parser.add_argument(
        "--artwork", action="append", choices=(OWN, *strangers.ARTWORKS),
        help=f"artwork of the albums; may be repeated (default: {OWN})",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, default=1, help="people at a time (default: 1)")
    parser.add_argument("--pictures", type=int, default=4, help="pictures of each prompt (default: 4)")
    parser.add_argument("--prompts", type=int, default=COUNT, help=f"prompts of each person (default: {COUNT})")
    parser.add_argument("--photos", type=int, default=PHOTOS, help=f"pictures of each album (default: {PHOTOS})")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the base's)")
    parser.add_argument("--renders", type=int, default=MEASURED, help=f"to measure readers on (default: {MEASURED})")
    parser.add_argument("--seed", type=int, default=0, help="of people and albums (default: 0)")
    parser.add_argument(
        "--train", action="append", default=[], metavar="OPTION=VALUE",
        help="further option of `engine train`, such as steps-per-photo=20; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of tables")
    asked = parser.parse_args(arguments)
    plan = Plan(
        asked.base, asked.out, asked.people, asked.pictures, min(asked.prompts, COUNT), asked.photos, asked.seed,
        tuple(f"--{option}" for option in asked.train), asked.steps, asked.renders,
    )  # fmt: skip
    said = (lambda line: None) if asked.json else (lambda line: print(line, flush=True))
    results = evaluate(plan, asked.artwork or [OWN], asked.processes, said)
    print(json.dumps(results) if asked.json else report(results))
    return 0
