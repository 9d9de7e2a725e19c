"""The commands that learn: `python -m engine train | finetune | study`. They import torch only when they run."""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine.adapters.file import FILE
from engine.commands.command import (
    Command,
    Figures,
    base_option,
    base_source,
    check_new,
    json_option,
    overwrite_option,
    photo_files,
    seed_option,
    settings,
)
from engine.commands.looks_options import add_looks_options, option_of, refuse_looks, with_given
from engine.commands.recipe_options import ALL, PERSON, PRIOR, STUDIED, STYLE, add_recipe_options, overrides
from engine.recipe import STEPS_PER_PHOTO, Method, Named
from engine.sentences import (
    DRAWINGS_LEFT_OUT,
    DRAWN_FROM_PHOTOS,
    LEARNED_AS_THEY_ARE,
    NOT_SURE,
    NOTICES,
    PHOTOS_LEFT_OUT,
    TOKEN_KNOWN,
    TOKEN_PROPOSED,
)
from storage import naming
from storage.atomic import atomic_write, write_text
from storage.errors import UserError
from storage.looks import unsure

if TYPE_CHECKING:
    from PIL import Image

    from engine.bases.families import Family
    from engine.learning.team import Team
    from engine.photos.inspection import Verdict
    from engine.photos.selection import Selection
    from engine.recipe import Recipe
    from storage.looks import Looks

CHECKPOINT = "checkpoint.safetensors"
"""The checkpoint's name in --out."""


def _person_options(parser: argparse.ArgumentParser, needed: bool) -> None:
    """The person to learn, and the recipe."""
    drawn = "" if needed else " (default: a drawn person)"
    parser.add_argument("--photos", type=Path, required=needed, help=f"folder of the person's photos{drawn}")
    parser.add_argument(
        "--token",
        required=needed,
        help=f"a made-up word for the person, such as cr7d{'' if needed else ' (default: zk0p)'}",
    )
    parser.add_argument(
        "--class",
        dest="noun",
        required=needed,
        help=f"class noun, such as man{'' if needed else ' (default: person)'}",
    )
    parser.add_argument(
        "--method",
        choices=get_args(Method),
        help="LoRA or full DreamBooth (default: lora; dreambooth with --recipe seed)",
    )
    parser.add_argument(
        "--recipe",
        choices=get_args(Named),
        default="auto",
        help="auto: by the number of photos; seed: the settings of the original project; reference: the defaults of "
        "diffusers' scripts (default: auto)",
    )
    add_looks_options(parser)


def _report_options(parser: argparse.ArgumentParser) -> None:
    """Reports, previews and checkpoints during training."""
    parser.add_argument(
        "--report-to",
        choices=("tensorboard", "wandb", "none"),
        help="tracker for losses, scores and sample grids (default: none; wandb for --recipe seed)",
    )
    parser.add_argument(
        "--preview-every",
        type=int,
        default=0,
        help="steps between two sample grids (default: a quarter of the steps with a tracker, no grids without one)",
    )
    parser.add_argument(
        "--preview",
        action="append",
        help="a prompt of the sample grids; may be repeated (default: prompts with the token, or of the dataset)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        help="minimum seconds between two checkpoints (default: 60)",
    )


def _common_options(
    parser: argparse.ArgumentParser, recipe: Collection[str], defaults: Mapping[str, str] = PERSON
) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    overwrite_option(parser)
    add_recipe_options(parser, recipe, defaults)
    base_option(parser)
    seed_option(parser)
    json_option(parser)


def _album(folder: Path, noun: str) -> "tuple[dict[Path, Verdict], list[str]]":
    """The usable photos of a folder with their verdicts, and a line on each photo that has a fault."""
    from engine.photos.inspection import inspect_album, sentence
    from engine.photos.rules import Rules

    files = photo_files(folder)
    verdicts = inspect_album([path.read_bytes() for path in files], Rules.for_noun(noun))
    lines = [
        f"{path.name}: {sentence(verdict)}" for path, verdict in zip(files, verdicts, strict=True) if verdict.codes
    ]
    good = {path: verdict for path, verdict in zip(files, verdicts, strict=True) if verdict.ok}
    if not good:
        raise UserError("no_good_photos", good=0, of=len(files), needed=1, verdicts=" ".join(lines[:3]))
    return good, lines


def _learn(
    asked: argparse.Namespace,
    base: Any,
    album: "Sequence[Image.Image]",
    token: str,
    noun: str,
    recipe: "Recipe",
    team: "Team",
    prompts: tuple[str, ...],
    **options: Any,
) -> Figures:
    """Train with checkpoints, previews, a tracker and scores; the figures of the run.

    Args:
        prompts: of the previews, where --preview gives none.
        options: of `TrainingConfig`.
    """
    from engine.commands.interrupts import Interrupted, stops_after_step
    from engine.commands.reporter import Reporter
    from engine.learning.config import Previews, TrainingConfig
    from engine.learning.listener import Stopped
    from engine.learning.training import train
    from engine.measuring.trackers import open_tracker

    # 1. The tracker, the previews and their scores.
    out: Path = asked.out
    kind: Any = asked.report_to or ("wandb" if getattr(asked, "recipe", None) == "seed" else "none")
    tracker = open_tracker(kind, out / "runs", recipe.as_json()) if kind != "none" and team.first else None
    every = asked.preview_every or (max(1, recipe.steps // 4) if tracker else 0)
    shown = tuple(asked.preview or prompts)
    previews = Previews(shown, frozenset(range(every, recipe.steps, every)) | {recipe.steps}) if every else None
    likeness = score = None
    if previews:  # only then: loading the judge and CLIP takes time and memory
        from engine.measuring.likeness import likeness_of
        from engine.measuring.scoring import PromptScore

        likeness = likeness_of(base, album) if options.get("kind") != "style" else None
        score = PromptScore() if base.family.prompt_score else None
    without_token = [re.sub(rf"\b{re.escape(token)} ", "", prompt) for prompt in shown]
    reporter = Reporter(out / "previews", team.first, tracker, likeness, score, without_token)

    # 2. The training. Afterwards only a longer training of the same LoRA needs its checkpoint.
    began = time.monotonic()
    checkpoint = out / CHECKPOINT
    config = TrainingConfig(
        token,
        noun,
        recipe,
        seed=asked.seed,
        owns_base=True,
        previews=previews,
        checkpoint=checkpoint,
        checkpoint_seconds=asked.checkpoint_seconds,
        keeps_checkpoint=True,
        **options,
    )
    try:
        with stops_after_step(reporter, team.first, team.size == 1):
            trained = train(base, album, config, out / FILE, listener=reporter, team=team)
    except Stopped as stopped:
        raise Interrupted(_how_to_go_on(stopped.kept, recipe.steps)) from stopped
    if team.first and recipe.method != "lora":
        checkpoint.unlink(missing_ok=True)
    if tracker:
        tracker.close()

    # 3. The figures.
    figures = {
        "steps": trained.steps,
        "seconds": round(time.monotonic() - began, 2),
        "recipe": recipe.as_json(),
        "first_loss": None if math.isnan(trained.first_loss) else trained.first_loss,
        "last_loss": None if math.isnan(trained.last_loss) else trained.last_loss,
        "resumed_at": trained.resumed_at,
        "rows_at_once": trained.rows_at_once,
        "checkpointing": trained.checkpointing,
        "devices": team.size,
        "step_seconds": trained.step_seconds,
        "base": base.source,
        "notice": base.family.notice,
        "device": str(base.device),
        "adapter": str(out / FILE),
    }
    return figures if trained.delta_error is None else figures | {"delta_error": trained.delta_error}


def _how_to_go_on(kept: int, steps: int) -> str:
    """What to tell after a training was stopped.

    Args:
        kept: the number of steps in its checkpoint; 0 for none.
    """
    if not kept:
        return "Stopped. The same command starts again, from the last checkpoint if there is one."
    return f"Stopped after step {kept} of {steps}, which is kept. The same command goes on from there."


def _replaced(asked: argparse.Namespace) -> Path | None:
    """The adapter in --out, which this training may replace only if it goes on from its checkpoint.

    Raises:
        UserError: `would_overwrite` if it cannot, for want of a checkpoint or of more steps.
    """
    file: Path = asked.out / FILE
    if asked.overwrite or not file.exists():
        return None

    from engine.learning.checkpoints import kept_step

    kept = kept_step(asked.out / CHECKPOINT)
    longer = asked.steps > kept if asked.steps and kept else getattr(asked, "steps_per_photo", None)
    if not kept or not longer:
        raise UserError("would_overwrite", file=file)
    return file


def _captions(files: Sequence[Path]) -> list[tuple[str, ...]]:
    """The captions of these photos, as their folder gives them."""
    from engine.photos.captioned import read_captions

    captioned = read_captions(files[0].parent)
    captions = {path.name: texts for path, texts in zip(captioned.files, captioned.captions, strict=True)}
    missing = [path.name for path in files if path.name not in captions]
    if missing:
        raise UserError("uncaptioned", folder=files[0].parent, photo=missing[0])
    return [captions[path.name] for path in files]


def _opened(asked: argparse.Namespace, team: "Team", choose: "Callable[[Family], Recipe]") -> "tuple[Any, Recipe]":
    """The base, with the denoiser in the lowest precision that the recipe allows, and the recipe for its family."""
    from engine.bases.base import BaseModel
    from engine.device.precision import best_device
    from engine.learning.learner import frozen_dtype

    device = getattr(team, "device", None) or best_device()
    base = BaseModel.load(base_source(asked), device, lambda base: frozen_dtype(choose(base.family), device))
    return base, choose(base.family)


@dataclass(frozen=True)
class _Ready:
    """What `train` and `study` start from."""

    base: Any
    team: "Team"
    album: "list[Image.Image]"
    """The pictures to learn, as `engine.learning.training.train` takes them."""
    recipe: "Recipe"
    captions: Figures
    """The captions of the album, as options of `TrainingConfig`."""
    figures: Figures
    """What --json says about the album."""


def _ready(asked: argparse.Namespace, token: str, noun: str) -> _Ready:
    """The base, this process's team, the album and the recipe for it."""
    if asked.recipe == "seed" and asked.method == "lora":
        raise UserError("seed_is_dreambooth")
    found, lines = _album(asked.photos, noun)
    drawn = ["drawn" in verdict.codes for verdict in found.values()]

    from engine.bases.names import known_words, propose
    from engine.learning.albums import open_album, picture_count, selection
    from engine.learning.team import join
    from engine.photos.crops import prepared_album
    from engine.photos.inspection import learnable
    from engine.photos.rules import Rules
    from engine.recipe import choose

    team = join()
    for line in lines if team.first else ():
        print(line)
    base, recipe = _opened(
        asked,
        team,
        lambda family: choose(
            picture_count(family, noun, drawn), asked.method or "lora", family, asked.recipe, **overrides(asked)
        ),
    )
    side = base.check_size(recipe.side or base.side)
    chosen = selection(base.family, noun, drawn)
    if not chosen.redrawn:
        refuse_looks(asked)
    elif recipe.captions:
        raise UserError("captions_unused")
    photos = [learnable(path.read_bytes(), Rules.for_noun(noun)) for path in found]
    opened = open_album(photos, base.family, token, noun, read=partial(_read, asked), drawn=drawn, seed=asked.seed)
    album = prepared_album(opened.pictures, base.family.album_crop, recipe.crop, side, opened.drawn)
    figures: Figures = {"photos": len(chosen.chosen), "left_out": chosen.left_out, "looks": opened.looks}
    if opened.looks:
        figures["drawings"] = len(album)
    if known := known_words(base, token):
        figures["token_known"] = {"known": known, "proposal": propose(base, token, noun)}
        if team.first:
            print(_known_token(token, known, figures["token_known"]["proposal"]), file=sys.stderr)
    for line in _remarks(base.family, noun, chosen, opened.looks) if team.first else ():
        print(line)
    captions: Figures = {"known_captions": opened.captions}
    if recipe.captions:
        captions["captions"] = _captions([list(found)[number] for number in chosen.chosen])
    return _Ready(base, team, album, recipe, captions, figures)


def _known_token(token: str, known: "Sequence[str]", proposal: str | None) -> str:
    """What to tell where the base knows words within the token."""
    return TOKEN_KNOWN.format(token=token, words=", ".join(known)) + (
        f" {TOKEN_PROPOSED.format(proposal=proposal)}" if proposal else ""
    )


def _read(asked: argparse.Namespace, photos: "Sequence[Image.Image]") -> "Looks":
    """What the person in the photos looks like, with what was given on the command line in place of what was read."""
    from engine.photos.looks import read_album

    found = read_album(photos)
    return with_given(None if found is None else found.to_json(), asked)


def _remarks(family: "Family", noun: str, chosen: "Selection", looks: "Looks | None") -> list[str]:
    """What becomes of the album, one line each."""
    from engine.learning.albums import knows
    from engine.photos import looks as reader

    lines = [NOTICES[family.notice]] if family.notice else []
    if not knows(family, noun):
        lines.append(LEARNED_AS_THEY_ARE.format(noun=noun))
    if chosen.left_out:
        lines.append((DRAWINGS_LEFT_OUT if chosen.redrawn else PHOTOS_LEFT_OUT).format(count=chosen.left_out))
    if looks:
        lines.append(reader.looks_sentence(reader.Looks(**looks)))
        lines.append(DRAWN_FROM_PHOTOS.format(drawings=family.drawings))
        if doubtful := [option_of(attribute) for attribute in unsure(looks)]:
            lines.append(NOT_SURE.format(options=", ".join(doubtful)))
    return lines


def _train_options(parser: argparse.ArgumentParser) -> None:
    _person_options(parser, needed=True)
    _common_options(parser, ALL)
    _report_options(parser)


def run_train(asked: argparse.Namespace) -> Figures:
    """`train`: an album becomes an avatar."""
    noun = naming.noun(asked.noun)
    token = naming.check_token(asked.token, noun)
    replaced = _replaced(asked)
    ready = _ready(asked, token, noun)
    base, team, album, recipe = ready.base, ready.team, ready.album, ready.recipe
    prompts = tuple(
        f"{start}{token} {noun}{end}" for start, end in (("a photo of ", ""), ("a photo of ", " in a suit"))
    )
    options: Figures = {"prior_folder": _priors(), "must_resume": replaced, **ready.captions}
    facts = _learn(asked, base, album, token, noun, recipe, team, prompts, **options)
    if team.first:
        # Full DreamBooth is stored as thin factors, which leave out a part of the change.
        lost = f", without {facts['delta_error']:.1%} of the change" if "delta_error" in facts else ""
        cost = f"in {facts['steps']} steps, {facts['seconds']} s"
        print(f"Learned {token} {noun} from {ready.figures['photos']} photos {cost}: {facts['adapter']}{lost}")
    return ready.figures | {"token": token, "class": noun} | facts


def _finetune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=Path,
        required=True,
        help="folder of pictures with metadata.jsonl or .csv (file_name, text), or 1.txt beside 1.png",
    )
    parser.add_argument("--name", help="the style's name (default: the folder's)")
    _common_options(parser, ALL - PRIOR, STYLE)
    _report_options(parser)


def run_finetune(asked: argparse.Namespace) -> Figures:
    """`finetune`: a captioned dataset becomes a style."""
    from engine.photos.captioned import read_captioned

    replaced = _replaced(asked)
    dataset = read_captioned(asked.dataset)
    name = asked.name or asked.dataset.resolve().name

    from engine.learning.team import join
    from engine.recipe import style

    team = join()
    for line in dataset.left_out if team.first else ():
        print(f"Left out: {line}")

    def choose(family: Any) -> "Recipe":
        return style(len(dataset), family, **overrides(asked))

    base, recipe = _opened(asked, team, choose)
    base.check_size(recipe.side or base.side)
    prompts = tuple(dict.fromkeys(dataset.texts))[:4]
    options: Figures = {"captions": dataset.captions, "kind": "style", "must_resume": replaced}
    facts = _learn(asked, base, dataset, name, "style", recipe, team, prompts, **options)
    if team.first:
        cost = f"in {facts['steps']} steps, {facts['seconds']} s"
        print(f"Learned the style {name} from {len(dataset)} pictures {cost}: {facts['adapter']}")
    return {"style": name, "pictures": len(dataset), "left_out": len(dataset.left_out)} | facts


def _study_options(parser: argparse.ArgumentParser) -> None:
    _person_options(parser, needed=False)
    parser.add_argument(
        "--multiples",
        default="10,25,50,75,100,150",
        help="steps for each photo at which to measure, separated by commas (default: 10,25,50,75,100,150)",
    )
    _common_options(parser, ALL - STUDIED)


def run_study(asked: argparse.Namespace) -> Figures:
    """`study`: learn one person and measure after several numbers of steps for each photo."""
    import tempfile
    from dataclasses import asdict

    from engine.commands.reporter import show_progress
    from engine.measuring.study import Point, chart, study, table

    check_new(asked, asked.out / FILE)
    multiples = _multiples(asked.multiples)
    noun = naming.noun(asked.noun or "person")
    token = naming.check_token(asked.token or "zk0p", noun)
    with tempfile.TemporaryDirectory() as drawn:
        if asked.photos is None:
            noun = _drawn_person(Path(drawn))
            asked.photos = Path(drawn)
        ready = _ready(asked, token, noun)
        base, team, album, recipe = ready.base, ready.team, ready.album, ready.recipe

    def on_point(point: Point) -> None:
        scores = f"likeness {point.likeness:.2f}, copying {point.copying:.2f}"
        print(f"{point.per_photo:g} steps for each photo: {scores}", flush=True)

    points = study(
        base,
        album,
        token,
        noun,
        recipe,
        multiples,
        asked.out / FILE,
        seed=asked.seed,
        prior_folder=_priors(),
        team=team,
        on_point=on_point,
        on_step=show_progress if team.first else lambda progress: None,
        **ready.captions,
    )
    rows = [asdict(point) for point in points]
    if team.first:
        write_text(asked.out / "study.json", json.dumps(rows, indent=1) + "\n")
        write_text(asked.out / "study.svg", chart(points, f"{recipe.method}, {len(album)} photos, {base.source}"))
        print(table(points))
        print(asked.out / "study.svg")
    return {"points": rows, "recipe": recipe.as_json(), "chart": str(asked.out / "study.svg")}


def _multiples(text: str) -> list[int]:
    """The steps for each photo, ascending. Raises UserError `out_of_range`."""
    low, high = STEPS_PER_PHOTO
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and low <= int(part) <= high for part in parts):
        raise UserError("out_of_range", what="each of the multiples", low=low, high=high, value=text)
    return sorted({int(part) for part in parts})


def _drawn_person(folder: Path) -> str:
    """Draw eight pictures of a person unknown to the embedded base into `folder`; returns the class noun."""
    from engine.measuring.evaluation import PHOTOS, people
    from engine.toon.world import album, render

    person = people(1)[0]
    for number, scene in enumerate(album(person, PHOTOS, seed=0)):
        with atomic_write(folder / f"{number}.png") as draft:
            render(scene).save(draft)
    return person.noun


def _priors() -> Path:
    """The folder of class pictures."""
    home: Path = settings().home
    return home / "priors"


COMMANDS = (
    Command("train", "learn a person from a folder of photos", _train_options, run_train),
    Command("finetune", "learn a style from captioned pictures", _finetune_options, run_finetune),
    Command("study", "learn a person and plot likeness and overfitting over the steps", _study_options, run_study),
)
