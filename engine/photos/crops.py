"""What is learned from: photos and class pictures as latents, their captions, and what chance decides of a step."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.bases.base import BaseModel
from engine.bases.schedule import NoiseSchedule
from engine.device import memory
from engine.drawing.drawing import denoise, noise
from engine.learning.objectives import face_weights
from engine.photos.inspection import Face, find_faces, is_drawing, load_photo
from engine.recipe import Crop, Recipe
from storage.atomic import atomic_write
from storage.errors import UserError

CAPTIONS = "metadata.jsonl"
"""The file of an imagefolder that says of each picture what it shows (Hugging Face datasets: `file_name`, `text`)."""

PRIORS = 8
"""Class pictures that are drawn at once where memory allows."""

CLASS_STEPS = 8
"""Denoising steps of a class picture at most: with the second-order solver they show as much as 25 do, only softer."""


@dataclass(frozen=True)
class Example:
    """One picture to learn, seen through the VAE, and the numbers of the prompts that it is learned under."""

    mean: Tensor
    """(channels, height, width) of the latent's distribution; every epoch draws from it anew."""
    deviation: Tensor
    prompts: tuple[int, ...]
    weights: Tensor | None = None
    """(1, height, width) with mean 1: how much an error counts where."""
    picture: str = ""
    """A digest of the pixels, which tells the picture from others, whatever device encoded it."""


@dataclass(frozen=True)
class Captioned(Sequence[Image.Image]):
    """A captioned set on the disk. Pictures are read when they are asked for: a set may be larger than memory."""

    files: tuple[Path, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return Captioned(self.files[number], self.texts[number])
        return load_photo(self.files[number].read_bytes())


def read_captioned(folder: Path) -> Captioned:
    """The pictures that the folder's metadata.jsonl names, with their texts.

    Raises:
        UserError: `no_captions` if there is no such file, `bad_captions` with the line that is wrong.
    """
    file = folder / CAPTIONS
    if not file.is_file():
        raise UserError("no_captions", folder=folder)
    files, texts = list[Path](), list[str]()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("bad_captions", file=file, line=number, reason="file_name and text are needed") from error
        picture = folder / str(name)
        if not picture.resolve().is_relative_to(folder.resolve()) or not picture.is_file():
            raise UserError("bad_captions", file=file, line=number, reason=f"there is no picture {name}")
        files.append(picture)
        texts.append(str(text))
    if not files:
        raise UserError("bad_captions", file=file, line=1, reason="it names no picture")
    return Captioned(tuple(files), tuple(texts))


# Cropping


def prepare(picture: Image.Image, side: int) -> Image.Image:
    """The picture's centre square, resized to `side` pixels."""
    return ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def buckets(side: int, multiple: int) -> list[tuple[int, int]]:
    """(width, height) of the sizes that pictures are learned at, as NovelAI's aspect ratio bucketing has them.

    Multiples with at most side^2 pixels and at least four fifths of that, none longer than twice its width.
    """
    sizes = set[tuple[int, int]]()
    for width in range(multiple, side + 1, multiple):
        height = min(side * side // width, 2 * width) // multiple * multiple
        if width * height >= 0.8 * side * side:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def bucket_of(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size whose aspect is nearest to that of `size`; of equals, the largest."""
    aspect = math.log(size[0] / size[1])
    return min(sizes, key=lambda one: (round(abs(math.log(one[0] / one[1]) - aspect), 6), -one[0] * one[1]))


def largest_face(picture: Image.Image) -> Face | None:
    """The largest upright face of a photograph; None in a drawing."""
    faces = [] if is_drawing(picture) else [face for face in find_faces(picture) if not face.turn]
    return faces[0] if faces else None


def face_square(size: tuple[int, int], face: Face, side: int) -> tuple[int, int, int, int]:
    """The square to learn of a photo of `size`: three times the face, but no smaller than `side`, which would only be
    blown up, and no larger than the photo; its centre is the face's as far as the photo allows."""
    length = min(max(3 * max(face.width, face.height), side), *size)
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    left = round(max(0, min(x - length / 2, size[0] - length)))
    top = round(max(0, min(y - length / 2, size[1] - length)))
    return left, top, left + length, top + length


def cropped(
    picture: Image.Image, crop: Crop, side: int, multiple: int, face: Face | None
) -> tuple[Image.Image, tuple[float, ...] | None]:
    """The part to learn, at its final size, and where the face's box is in it, as shares of width and height."""
    picture = picture.convert("RGB")
    if crop == "face" and face:
        box = face_square(picture.size, face, side)
        size = (side, side)
    else:
        size = bucket_of(picture.size, buckets(side, multiple)) if crop == "buckets" else (side, side)
        scale = min(picture.width / size[0], picture.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (round(left), round(top), round(left + width), round(top + height))
    part = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    if face is None:
        return part, None
    wide, high = box[2] - box[0], box[3] - box[1]
    return part, (
        (face.left - box[0]) / wide, (face.top - box[1]) / high,
        (face.right - box[0]) / wide, (face.bottom - box[1]) / high,
    )  # fmt: skip


def encode_album(
    base: BaseModel, album: Sequence[Image.Image], recipe: Recipe, side: int, prompts: Sequence[Sequence[int]]
) -> list[Example]:
    """The album through the VAE, once: cropped as the recipe says, and mirrored as well if it wants that.

    Args:
        prompts: for each picture the numbers of the prompts that it is learned under.
    """
    examples = []
    wants_faces = recipe.crop == "face" or recipe.face_weight != 1.0
    for number, picture in enumerate(album):
        face = largest_face(picture) if wants_faces else None
        part, box = cropped(picture, recipe.crop, side, base.multiple, face)
        views = [(part, box)]
        if recipe.flip:
            mirrored = box and (1 - box[2], box[1], 1 - box[0], box[3])
            views.append((part.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored))
        for view, where in views:
            mean, deviation = base.encode_pictures([view])
            weights = None
            if where and recipe.face_weight != 1.0:
                height, width = mean.shape[-2:]
                weights = face_weights(height, width, where, recipe.face_weight).to(mean.device)
            digest = hashlib.sha256(view.tobytes()).hexdigest()
            examples.append(Example(mean[0], deviation[0], tuple(prompts[number]), weights, digest))
    return examples


def album_as_class(
    base: BaseModel, album: Sequence[Image.Image], prompts: Sequence[Sequence[str]], times: int, side: int
) -> tuple[Tensor, list[str]]:
    """The album's latents (n times, c, h, w) to stand among the class pictures, and the prompt of each.

    Args:
        prompts: of each picture, with the class noun alone; `times` of them are taken, from all over the list.
    """
    means, _ = base.encode_pictures([prepare(picture, side) for picture in album])
    taken = [several[number * len(several) // times] for several in prompts for number in range(times)]
    return means.repeat_interleave(times, dim=0), taken


def learned_under(
    base: BaseModel, album: Sequence[Image.Image], instance: str, recipe: Recipe, captions: Sequence[str]
) -> list[list[str]]:
    """For each picture the prompts that it is learned under, of which each step takes one."""
    if recipe.captions and captions:
        return [[text] for text in captions]
    usual = [prompt.format(instance=instance) for prompt in recipe.prompts or base.family.instance_prompts]
    if recipe.prompts or not base.family.cartoon:
        return [usual] * len(album)
    return [[*usual, *(base.family.captions(one, instance) if is_drawing(one) else ())] for one in album]


def class_latents(
    base: BaseModel,
    noun: str,
    count: int,
    side: int,
    folder: Path | None,
    wordings: Sequence[str] | None = None,
    on_step: Callable[[int, int], None] = lambda drawn, of: None,
) -> tuple[Tensor, list[str]]:
    """Class pictures for prior preservation, as latents (count, c, h, w), and the prompt of each.

    Drawn by the base itself and kept in `folder`, so they are drawn once for each base, class noun, size and wordings.
    Each batch is kept as soon as it is drawn: whoever was stopped goes on after it.

    Args:
        on_step: told between two denoising steps how many pictures there are and how many there will be. It may draw
            with adapters on the same base, and raise to stop.
    Raises:
        UserError: `out_of_memory` if not even one fits.
    """
    wordings = wordings or base.family.prior_prompts
    prompts = [wordings[n % len(wordings)].format(noun=noun) for n in range(count)]
    digest = hashlib.sha256("\n".join(wordings).encode()).hexdigest()[:6]
    name = f"{noun.replace(' ', '-')}-{side}-{count}-{digest}.safetensors"
    file = folder / base.fingerprint / name if folder else None
    latents = torch.empty(0, *base.latent_shape(side, side))
    if file and file.exists():
        latents = load_file(file)["latents"]
    latents, rows = latents.to(base.device), PRIORS
    while len(latents) < count:
        seeds = range(len(latents), min(count, len(latents) + rows))
        wanted = [prompts[seed] for seed in seeds]
        drawn = _class_batch(base, wanted, seeds, side, partial(on_step, len(latents), count))
        if drawn is None:
            if len(seeds) == 1:
                raise UserError("out_of_memory")
            rows = len(seeds) // 2
            torch.cuda.empty_cache()
            continue
        latents = torch.cat((latents, drawn))
        if file:
            with atomic_write(file) as draft:
                save_file({"latents": latents.cpu().contiguous()}, draft)
    return latents, prompts


def _class_batch(
    base: BaseModel, prompts: Sequence[str], seeds: Sequence[int], side: int, on_step: Callable[[], None]
) -> Tensor | None:
    """Latents (n, c, h, w) of class pictures; None if they do not fit into the memory together."""
    with memory.attempt():
        return denoise(
            base.unet, base, noise(seeds, base.latent_shape(side, side)), base.encode_prompts(prompts),
            base.encode_negatives([""]), steps=min(CLASS_STEPS, base.family.draw_steps), guidance=base.family.guidance,
            on_step=lambda step, of: on_step(),
        )  # fmt: skip
    return None


# Chance


@dataclass(frozen=True)
class Chance:
    """What chance decides of one step: instance rows first, then prior rows. All on the CPU, whatever the device."""

    rows: list[int]
    """Numbers of the examples, n."""
    prior_rows: list[int]
    """Numbers of the class pictures, m."""
    wordings: list[float]
    """Which of its prompts each instance row is learned under, in [0, 1), n."""
    spreads: list[Tensor]
    """Where in its distribution each instance row's latent is, standard normal, n of (c, h, w)."""
    noises: list[Tensor]
    """The noise of every row, standard normal, n + m of (c, h, w)."""
    shifts: Tensor
    """Offset noise of every row, standard normal, (n + m, c, 1, 1)."""
    timesteps: Tensor
    """(n + m,), as the noise schedule counts them."""


def chance(
    step: int,
    seed: int,
    recipe: Recipe,
    devices: int,
    examples: Sequence[Example],
    priors: Tensor,
    schedule: NoiseSchedule,
) -> Chance:
    """The chance of step `step`, from a generator seeded with (seed, step) alone: nothing to save and to restore.

    Args:
        devices: how many take part; the step has the rows of all of them.
        priors: latents of the class pictures (count, c, h, w).
        schedule: the base's, which says how training times lie on it.
    """
    random = torch.Generator().manual_seed((seed << 32) + step)
    instances = recipe.batch * recipe.accumulation * devices
    others = recipe.prior_batch * recipe.accumulation * devices if len(priors) else 0
    rows = row_numbers(len(examples), instances, step, seed)
    shapes = [examples[row].mean.shape for row in rows]
    spreads = [torch.randn(shape, generator=random) for shape in shapes]
    wordings = torch.rand(instances, generator=random).tolist()
    prior_rows = torch.randint(len(priors), (others,), generator=random).tolist() if others else []
    noises = [torch.randn(shape, generator=random) for shape in [*shapes, *[priors.shape[1:]] * others]]
    shifts = torch.randn(instances + others, noises[0].shape[0], 1, 1, generator=random)
    if recipe.timesteps == "stratified":
        times = torch.cat([_stratified(count, random) for count in (instances, others) if count])
    else:
        times = torch.rand(instances + others, generator=random)
    return Chance(rows, prior_rows, wordings, spreads, noises, shifts, schedule.timesteps(times))


def row_numbers(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Numbers of the examples of this step: every one once before any again."""
    places = range(step * batch, (step + 1) * batch)
    shuffles = {
        turn: torch.randperm(count, generator=torch.Generator().manual_seed((seed << 32) ^ (0x5EED + turn)))
        for turn in {place // count for place in places}
    }
    return [int(shuffles[place // count][place % count]) for place in places]


def _stratified(count: int, random: torch.Generator) -> Tensor:
    """Numbers in [0, 1) of which each has a part to itself, so that a small batch sees the whole noise schedule."""
    return (torch.arange(count) + torch.rand(count, generator=random)) / count


def in_batches(shapes: Mapping[int, Sequence[int]], most: int) -> Iterator[list[int]]:
    """The places of rows that go through together: of one shape, in their order, at most `most`."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, shape in shapes.items():
        by_shape.setdefault(tuple(shape), []).append(place)
    for places in by_shape.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]
