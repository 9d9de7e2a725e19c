"""The commands that learn: `python -m engine train | finetune | study`. Imports torch only once one of them runs."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from engine.recipe import STEPS_PER_PHOTO, Crop, Method, Named, Optimiser, Precision, RateSchedule
from engine.sentences import NOTICES
from storage.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from engine.learning.team import Team
    from engine.learning.training import Progress
    from engine.photos.inspection import Verdict
    from engine.recipe import Learner, Recipe

SUFFIXES = frozenset(".jpg .jpeg .png .webp .avif .heic .heif .tif .tiff .gif .bmp".split())
"""Files that `--photos DIR` takes for photos; what they really are is decided by their content."""

NUMBERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "steps": (int, "training steps"),
    "batch": (int, "photos that a device takes at once"),
    "accumulation": (int, "batches that make one step"),
    "rank": (int, "rank of the LoRA"),
    "learning-rate": (float, "learning rate"),
    "warmup": (int, "steps over which the learning rate rises"),
    "weight-decay": (float, "weight decay"),
    "min-snr": (float, "gamma of min-SNR weighting, as 5"),
    "noise-offset": (float, "scale of offset noise, as 0.1"),
    "ema": (float, "decay of the running mean of the weights, as 0.99"),
    "face-weight": (float, "how much more an error in the face counts"),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimiser": get_args(Optimiser),
    "schedule": get_args(RateSchedule),
    "crop": get_args(Crop),
    "precision": get_args(Precision),
}
SWITCHES: Mapping[str, str] = {
    "text-encoder": "a LoRA on the text encoder too",
    "pivotal": "learn the token's own embedding too",
    "dora": "weight-decomposed LoRA",
    "rslora": "rank-stabilised scaling",
    "flip": "learn mirror images too; wrong for faces",
    "captions": "learn each photo under its caption in metadata.jsonl",
    "checkpointing": "compute activations again to save memory; by default where memory is short",
}
"""What of a recipe can be said on the command line: the fields of `engine.recipe.Recipe`."""

STUDIED = frozenset(("steps", "warmup", "schedule"))
"""What a study settles itself: the largest of its multiples, learned at a constant rate."""


def _recipe_options(parser: argparse.ArgumentParser, without: Set[str] = frozenset()) -> None:
    group = parser.add_argument_group("instead of the recipe's own")
    for name, (kind, text) in NUMBERS.items():
        if name not in without:
            group.add_argument(f"--{name}", type=kind, help=text)
    for name, values in CHOICES.items():
        if name not in without:
            group.add_argument(f"--{name}", choices=values)
    for name, text in SWITCHES.items():
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)
    group.add_argument("--size", dest="side", type=int, help="side of the training pictures in pixels")


def add_commands(commands: Any) -> list[argparse.ArgumentParser]:
    """Tell the parser of the three commands."""
    train = commands.add_parser("train", help="learn a person from a folder of photos")
    study = commands.add_parser("study", help="learn a person and plot likeness and overfitting over steps a photo")
    for parser in (train, study):
        parser.add_argument("--photos", type=Path, required=parser is train)
        parser.add_argument("--token", required=parser is train, help="a made-up word for the person, as cr7d")
        parser.add_argument("--class", dest="noun", required=parser is train, help="class noun, as man")
        parser.add_argument("--method", choices=get_args(Method))
        parser.add_argument("--recipe", choices=get_args(Named), default="auto",
                            help="seed: the seed's own run; reference: the defaults of diffusers' scripts")  # fmt: skip
        parser.add_argument("--prior-weight", type=float, help="weight of prior preservation; 0 for none")
        parser.add_argument(
            "--prior-pictures", type=int, help="class pictures, drawn once for each base and class noun"
        )
        parser.add_argument(
            "--prior-album", type=int, help="how often each photo stands among them, under the class noun"
        )
    train.add_argument("--steps-per-photo", type=int, help="instead of the automatic rule's number")
    study.add_argument("--multiples", default="10,25,50,75,100,150", help="steps a photo to judge, with commas between")

    finetune = commands.add_parser("finetune", help="learn a style from a captioned set of pictures")
    finetune.add_argument("--dataset", type=Path, required=True, help="pictures and metadata.jsonl: file_name, text")
    finetune.add_argument("--name", help="the style's name; the folder's by default")
    for parser in (train, finetune, study):
        parser.add_argument("--out", type=Path, required=True)
        _recipe_options(parser, STUDIED if parser is study else frozenset())
    for parser in (train, finetune):
        parser.add_argument("--report-to", choices=("tensorboard", "wandb", "none"), default=None)
        parser.add_argument("--preview-every", type=int, default=0, help="steps between two sample grids")
        parser.add_argument("--preview", action="append", help="a prompt of the sample grids; may be given often")
        parser.add_argument("--checkpoint-seconds", type=float, default=60.0, help="seconds between two checkpoints")
    return [train, finetune, study]


def _overrides(asked: argparse.Namespace, *more: str) -> dict[str, Any]:
    names = [name.replace("-", "_") for name in (*NUMBERS, *CHOICES, *SWITCHES)]
    return {name: getattr(asked, name, None) for name in (*names, "side", *more)}


def _album(folder: Path, noun: str) -> "tuple[dict[Path, Verdict], list[str]]":
    """The usable photos of a folder with what was found of them, and a line on each with any fault."""
    from engine.photos.inspection import inspect_album, sentence
    from engine.photos.rules import Rules

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise UserError("no_photos", folder=folder)
    verdicts = inspect_album([path.read_bytes() for path in files], Rules.for_noun(noun))
    lines = [
        f"{path.name}: {sentence(verdict)}" for path, verdict in zip(files, verdicts, strict=True) if verdict.codes
    ]
    good = {path: verdict for path, verdict in zip(files, verdicts, strict=True) if verdict.ok}
    if not good:
        raise UserError("no_good_photos", good=0, of=len(files), needed=1, verdicts=" ".join(lines[:3]))
    return good, lines


def named(token: str, noun: str) -> tuple[str, str]:
    """Token and class noun as they are kept. Raises UserError for what may not name a person."""
    from storage import naming
    from storage.errors import UserError

    codes = {"token_shape": "bad_token", "token_word": "token_is_word", "noun_shape": "bad_noun", "minor": "minor"}
    try:
        return naming.token(token), naming.noun(noun)
    except UserError as error:
        raise UserError(codes[error.code], **error.facts) from error


def _show(progress: "Progress") -> None:
    if sys.stderr.isatty():
        done = 30 * progress.step // progress.steps
        bar = "#" * done + "." * (30 - done)
        line = f"\r[{bar}] step {progress.step} of {progress.steps}, {progress.seconds_left:.0f} s left "
        print(line, end="\n" if progress.step == progress.steps else "", file=sys.stderr, flush=True)


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
) -> dict[str, Any]:
    """Train with checkpoints, previews, a tracker and scores, and say what was done."""
    from engine.adapters.adapters import FILE
    from engine.learning.training import Previews, train
    from engine.measuring.trackers import grid, open_tracker

    out: Path = asked.out
    wanted: Any = asked.report_to or ("wandb" if getattr(asked, "recipe", None) == "seed" else "none")
    tracker = open_tracker(wanted, out / "runs", recipe.as_json()) if wanted != "none" and team.first else None
    every = asked.preview_every or (max(1, recipe.steps // 4) if tracker else 0)
    shown = tuple(asked.preview or prompts)
    previews = Previews(shown, frozenset(range(every, recipe.steps, every)) | {recipe.steps}) if every else None
    person = options.get("kind") != "style"
    likeness = score = None
    if previews:  # what judges pictures costs time and memory to load
        from engine.measuring.likeness import likeness_of
        from engine.measuring.scoring import PromptScore

        likeness = likeness_of(base, album) if person else None
        score = PromptScore() if base.family.prompt_score else None

    def on_step(progress: "Progress") -> None:
        if team.first:
            _show(progress)
        if tracker:
            numbers = {"loss": progress.loss, "learning_rate": progress.learning_rate}
            tracker.numbers(
                progress.step, numbers | ({"prior_loss": progress.prior_loss} if progress.prior_loss else {})
            )

    def on_pictures(step: int, pictures: "list[Image.Image]") -> None:
        (out / "previews").mkdir(parents=True, exist_ok=True)
        grid(pictures).save(out / "previews" / f"{step}.png")
        if tracker:
            tracker.pictures(step, "samples", pictures)
            scores = {"score/likeness": likeness(pictures)} if likeness else {}
            if score:
                plain = [prompt.replace(f"{token} ", "") for prompt in shown]
                scores["score/prompt"] = float(score(pictures, plain).diagonal().mean())
            if scores:
                tracker.numbers(step, scores)

    began = time.monotonic()
    checkpoint = out / "checkpoint.safetensors"
    trained = train(
        base, album, token, noun, recipe, out / FILE, seed=asked.seed, team=team, sole=True, previews=previews,
        checkpoint=checkpoint, checkpoint_seconds=asked.checkpoint_seconds, on_step=on_step, on_pictures=on_pictures,
        on_memory=lambda rows: print(f"Memory is short: {rows} pictures at once from now on.", flush=True),
        **options,
    )  # fmt: skip
    if team.first:
        checkpoint.unlink(missing_ok=True)
    if tracker:
        tracker.close()
    return {
        "steps": trained.steps, "seconds": round(time.monotonic() - began, 2), "recipe": recipe.as_json(),
        "first_loss": trained.first_loss, "last_loss": trained.last_loss, "resumed_at": trained.resumed_at,
        "rows_at_once": trained.rows_at_once, "checkpointing": trained.checkpointing, "devices": team.size,
        "step_seconds": trained.step_seconds,
        "base": base.source, "notice": base.family.notice, "device": str(base.device), "adapter": str(out / FILE),
    } | ({} if trained.delta_error is None else {"delta_error": trained.delta_error})  # fmt: skip


def _captions(files: Sequence[Path]) -> list[str]:
    """The captions of these photos, from the metadata.jsonl beside them."""
    from engine.learning.examples import CAPTIONS, read_captioned

    folder = files[0].parent
    captioned = read_captioned(folder)
    texts = {path.name: text for path, text in zip(captioned.files, captioned.texts, strict=True)}
    missing = [path.name for path in files if path.name not in texts]
    if missing:
        raise UserError("bad_captions", file=folder / CAPTIONS, line=1, reason=f"no text for {missing[0]}")
    return [texts[path.name] for path in files]


def _opened(asked: argparse.Namespace, team: "Team", choose: "Callable[[Learner], Recipe]") -> "tuple[Any, Recipe]":
    """The base, resting in no more digits than the recipe wants, and the recipe for its family."""
    from engine.bases.base import BaseModel
    from engine.device.precision import best_device
    from engine.learning.training import frozen_dtype

    device = getattr(team, "device", None) or best_device()
    base = BaseModel.load(asked.base, device, lambda base: frozen_dtype(choose(base.family), device))
    return base, choose(base.family)


def _ready(asked: argparse.Namespace, noun: str) -> tuple[Any, "Team", list["Image.Image"], list[Path], "Recipe"]:
    """The base, this process's team, the album and the recipe for it."""
    if asked.recipe == "seed" and asked.method == "lora":
        raise UserError("seed_is_dreambooth")
    found, lines = _album(asked.photos, noun)
    files = list(found)

    from engine.learning.team import join
    from engine.photos.decoding import load_photo
    from engine.photos.faces import face_crop
    from engine.recipe import choose

    team = join()
    if team.first:
        for line in lines:
            print(line)
    more = [
        name for name in ("steps_per_photo", "prior_weight", "prior_pictures", "prior_album") if hasattr(asked, name)
    ]
    base, recipe = _opened(asked, team, lambda family: choose(
        len(files), asked.method or "lora", family, asked.recipe, **_overrides(asked, *more)
    ))  # fmt: skip
    side = base.check_size(recipe.side or base.side)
    album = [load_photo(path.read_bytes()) for path in files]
    if base.family.album_crop == "face" and recipe.crop == "centre":
        drawn = ["drawn" in verdict.codes for verdict in found.values()]
        album = [face_crop(photo, side, drawn=flat) for photo, flat in zip(album, drawn, strict=True)]
    if base.family.notice and team.first:
        print(NOTICES[base.family.notice])
    return base, team, album, files, recipe


def run_train(asked: argparse.Namespace) -> dict[str, Any]:
    """`train`: an album becomes an avatar."""
    token, noun = named(asked.token, asked.noun)
    base, team, album, files, recipe = _ready(asked, noun)
    prompts = tuple(
        f"{start}{token} {noun}{end}" for start, end in (("a photo of ", ""), ("a photo of ", " in a suit"))
    )
    options = {"captions": _captions(files)} if recipe.captions else {}
    facts = _learn(asked, base, album, token, noun, recipe, team, prompts, prior_folder=_priors(), **options)
    if team.first:
        # Full DreamBooth is stored small, and people are told what that costs.
        lost = f", without {facts['delta_error']:.1%} of the change" if "delta_error" in facts else ""
        print(f"Learned {token} {noun} from {len(album)} photos in {facts['steps']} steps, {facts['seconds']} s: "
              f"{facts['adapter']}{lost}")  # fmt: skip
    return {"token": token, "class": noun, "photos": len(album)} | facts


def run_finetune(asked: argparse.Namespace) -> dict[str, Any]:
    """`finetune`: a captioned set becomes a style."""
    from engine.learning.examples import read_captioned

    dataset = read_captioned(asked.dataset)
    name = asked.name or asked.dataset.resolve().name

    from engine.learning.team import join
    from engine.recipe import style

    team = join()

    def choose(family: Any) -> "Recipe":
        return style(len(dataset), family, **_overrides(asked))

    base, recipe = _opened(asked, team, choose)
    base.check_size(recipe.side or base.side)
    prompts = tuple(dict.fromkeys(dataset.texts))[:4]
    facts = _learn(asked, base, dataset, name, "style", recipe, team, prompts, captions=dataset.texts, kind="style")
    if team.first:
        print(f"Learned the style {name} from {len(dataset)} pictures in {facts['steps']} steps, {facts['seconds']} s: "
              f"{facts['adapter']}")  # fmt: skip
    return {"style": name, "pictures": len(dataset)} | facts


def run_study(asked: argparse.Namespace) -> dict[str, Any]:
    """`study`: one person, judged at several numbers of steps a photo."""
    import tempfile
    from dataclasses import asdict

    from engine.adapters.adapters import FILE
    from engine.measuring.study import Point, chart, study, table

    multiples = _multiples(asked.multiples)
    token, noun = named(asked.token or "zk0p", asked.noun or "person")
    with tempfile.TemporaryDirectory() as drawn:
        if asked.photos is None:
            noun = _drawn_person(Path(drawn))
            asked.photos = Path(drawn)
        base, team, album, files, recipe = _ready(asked, noun)
        options: dict[str, Any] = {"captions": _captions(files)} if recipe.captions else {}

    def told(point: Point) -> None:
        print(
            f"{point.per_photo:g} steps a photo: likeness {point.likeness:.2f}, copying {point.copying:.2f}", flush=True
        )

    points = study(base, album, token, noun, recipe, multiples, asked.out / FILE, seed=asked.seed,
                   prior_folder=_priors(), team=team, on_point=told,
                   on_step=_show if team.first else lambda progress: None, **options)  # fmt: skip
    rows = [asdict(point) for point in points]
    if team.first:
        (asked.out / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
        (asked.out / "study.svg").write_text(chart(points, f"{recipe.method}, {len(album)} photos, {base.source}"))
        print(table(points))
        print(asked.out / "study.svg")
    return {"points": rows, "recipe": recipe.as_json(), "chart": str(asked.out / "study.svg")}


def _multiples(text: str) -> list[int]:
    """The steps a photo that are asked for, ascending. Raises UserError `out_of_range`."""
    low, high = STEPS_PER_PHOTO
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and low <= int(part) <= high for part in parts):
        raise UserError("out_of_range", what="each of the multiples", low=low, high=high, value=text)
    return sorted({int(part) for part in parts})


def _drawn_person(folder: Path) -> str:
    """Eight drawings of somebody whom the embedded base has never seen; their class noun."""
    from engine.measuring.evaluation import PHOTOS, people
    from engine.toon.world import album, render

    person = people(1)[0]
    for number, scene in enumerate(album(person, PHOTOS, seed=0)):
        render(scene).save(folder / f"{number}.png")
    return person.noun


def _priors() -> Path:
    from engine.work.settings import EngineSettings

    return EngineSettings().home / "priors"


COMMANDS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "train": run_train, "finetune": run_finetune, "study": run_study,
}  # fmt: skip
