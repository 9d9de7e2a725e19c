"""Drawing: prompts, seeds and adapters become pictures.

A request (`Drawing`) becomes a `Plan`, in which every value is decided. Plans with equal `batch_key` are drawn as one
batch (`draw_together`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from engine.adapters.adapters import AdapterFile, Adapters, Attached, adapter_file
from engine.bases.base import BaseModel
from engine.bases.prompts import Prompt
from engine.bases.schedule import Step
from engine.device.fast import one_core
from engine.drawing.denoising import OnStep, Sampling, denoise, denoising_steps, later_noise, noise
from engine.photos.decoding import BadPhoto, load_photo
from engine.photos.inspection import clause
from engine.photos.rules import Rules
from storage import naming
from storage.atomic import atomic_write
from storage.errors import UserError

PROMPT_LIMIT = 1000
"""Characters of a prompt; far more than any text encoder reads."""

ORIGINAL = Rules(max_bytes=100_000_000)
"""What the file of a picture to vary may be. PNGs and TIFFs on disk are larger than what people send into chats."""


@dataclass(frozen=True)
class Drawing:
    """One request for pictures. None leaves a value to the base model's family."""

    prompt: str
    count: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    avatars: tuple[Path, ...] = ()
    """Folders or files of the adapters that the pictures are drawn with: avatars, styles."""
    weights: tuple[float, ...] | None = None
    """How much each adapter counts; None is 1 for all."""
    original: Path | None = None
    """A picture to vary; None draws from noise alone."""
    strength: float = 0.6
    """How far a variation may go from its original, 0 to 1: the part of the steps that are drawn, one at least."""


@dataclass(frozen=True)
class Plan:
    """A drawing with every choice made for one base."""

    drawing: Drawing
    prompt: str
    """The drawing's, with everyone it names where the base reads it."""
    width: int
    """In pixels, as `height`."""
    height: int
    steps: int
    """Denoising steps from pure noise to a clean picture."""
    start: int
    """The first step that is drawn: 0, or later for a variation, as in diffusers' StableDiffusionImg2ImgPipeline."""
    guidance: float
    """The guidance scale of classifier-free guidance; 1 for none."""
    consistency: bool
    """Whether to sample by multistep consistency, for few-step adapters that were distilled by consistency."""
    adapters: Adapters
    """With their weights; among them the base's own few-step adapter where the drawing asks for its steps."""

    def unread(self, base: BaseModel) -> str:
        """The ends of the prompt and of the negative prompt that the base does not read, or ""."""
        unread = (base.unread(self.prompt), base.unread(self.drawing.negative_prompt))
        return " … ".join(end for end in unread if end)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Plans with equal keys share a batch."""
        return self.width, self.height, self.steps, self.start, self.guidance == 1.0, self.consistency


@dataclass(frozen=True)
class Picture:
    """A drawn picture and the seed that draws it again."""

    image: Image.Image
    seed: int

    def save(self, path: Path, drawing: Drawing, base: str) -> None:
        """Write a PNG whose text chunks say how to draw it again, complete or not at all.

        They leave out the prompt: pictures are passed on, and a prompt is private.
        """
        info = PngImagePlugin.PngInfo()
        facts = {"seed": self.seed, "steps": drawing.steps, "guidance": drawing.guidance, "base": base}
        if drawing.original:
            facts["strength"] = drawing.strength
        for key, value in facts.items():
            info.add_itxt(key, str(value))
        with atomic_write(path) as draft:
            self.image.save(draft, "PNG", pnginfo=info)


def make_plan(drawing: Drawing, base: BaseModel, attached: Attached) -> Plan:
    """Check a drawing and decide every value that it leaves open.

    Raises:
        UserError: `empty_prompt`, `prompt_too_long`, `lora_in_prompt`, `out_of_range`, `bad_size` or `bad_original`; of
            the adapters `missing_avatar`, `bad_adapter` or `wrong_base`.
    """
    _check(drawing)
    width, height = base.drawable_size(*asked_size(drawing, base))
    if drawing.original:
        read_original(drawing.original)
    weights = drawing.weights or (1.0,) * len(drawing.avatars)
    adapters = attached.checked(list(zip(drawing.avatars, weights, strict=True)))
    few_step = next((file.facts for file, _ in adapters if file.facts.few_step), None)
    if few_step is None and (own := _own_few_step(drawing, base)):
        few_step, adapters = own.facts, (*adapters, (own, 1.0))
    recipe = few_step.recipe if few_step else {}
    steps = drawing.steps or int(recipe.get("draw_steps", base.family.draw_steps))
    guidance = float(recipe.get("guidance", base.family.guidance)) if drawing.guidance is None else drawing.guidance
    return Plan(
        drawing,
        heard(
            drawing.prompt, base, [f"{file.facts.token} {file.facts.noun}" for file, _ in adapters if file.facts.token]
        ),
        width,
        height,
        steps,
        start=steps - max(1, int(steps * drawing.strength)) if drawing.original else 0,
        guidance=guidance,
        consistency=few_step is not None and recipe.get("distillation", "consistency") == "consistency",
        adapters=adapters,
    )


def heard(prompt: str, base: BaseModel, people: Sequence[str]) -> str:
    """The prompt, with the people in front whom it names only where this base does not read it.

    Args:
        people: token and class noun of each avatar.
    """
    unread = base.unread(prompt)
    if not unread:
        return prompt
    read = _before(prompt, unread)
    lost = [
        person
        for person in people
        if naming.mentions(unread, person.split()[0]) and not naming.mentions(read, person.split()[0])
    ]
    return ", ".join([*lost, prompt])


def _before(prompt: str, unread: str) -> str:
    """The plain text of a prompt in front of its unread end."""
    words = Prompt.parse(prompt).text.split()
    return " ".join(words[: len(words) - len(unread.split())])


def asked_size(drawing: Drawing, base: BaseModel) -> tuple[int, int]:
    """Width and height in pixels that a drawing asks for; a side that it leaves open is the base's own."""
    width, height = (base.side if side is None else side for side in (drawing.width, drawing.height))
    return width, height


def _check(drawing: Drawing) -> None:
    """Refuse values that no base draws with."""
    for text in (drawing.prompt, drawing.negative_prompt):
        if len(text) > PROMPT_LIMIT:
            raise UserError("prompt_too_long", length=len(text), limit=PROMPT_LIMIT)
        if tag := naming.adapter_tag(text):
            raise UserError("lora_in_prompt", tag=tag.text, name=tag.name, weight=f"{tag.weight:g}")
    if not Prompt.parse(drawing.prompt).text.strip():
        raise UserError("empty_prompt")
    for what, value, low, high in (
        ("count", drawing.count, 1, 16), ("steps", drawing.steps, 1, 250), ("guidance", drawing.guidance, 0, 30),
        ("seed", drawing.seed, 0, 2**53), ("strength", drawing.strength, 0, 1),
        *(("weight", weight, -2, 2) for weight in drawing.weights or ()),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise UserError("out_of_range", what=what, low=low, high=high, value=value)


def _own_few_step(drawing: Drawing, base: BaseModel) -> AdapterFile | None:
    """The base's own few-step adapter, if the drawing asks for exactly its steps."""
    if base.family.few_step_adapter is None or drawing.steps is None:
        return None
    file = adapter_file(base.family.few_step_adapter)
    return file if file.facts.fits(base) and drawing.steps == file.facts.recipe["draw_steps"] else None


def draw(
    base: BaseModel, attached: Attached, drawing: Drawing, on_step: OnStep = lambda step, of: None
) -> list[Picture]:
    """Draw `drawing.count` pictures with consecutive seeds; each is the same whether it is drawn alone or in a batch.

    Raises:
        UserError: as `make_plan`.
    """
    return draw_together(base, attached, [make_plan(drawing, base, attached)], on_step)[0]


def draw_together(
    base: BaseModel, attached: Attached, plans: Sequence[Plan], on_step: OnStep = lambda step, of: None
) -> list[list[Picture]]:
    """Draw several requests as one batch, each row with its own prompt, guidance and adapters.

    Each picture is the one that is drawn alone, but for rounding.

    Raises:
        ValueError: the plans' batch keys differ.
        UserError: as `Attached.checked`, where an adapter's file was removed since.
    """
    if len({plan.batch_key for plan in plans}) != 1:
        raise ValueError("these drawings cannot share a batch")
    first, counts = plans[0], [plan.drawing.count for plan in plans]
    rows = [plan for plan in plans for _ in range(plan.drawing.count)]
    seeds = [plan.drawing.seed + number for plan in plans for number in range(plan.drawing.count)]
    shape = base.latent_shape(first.width, first.height)  # (c, h, w)
    # 1. Prompts, once for each request.
    with one_core(base), attached.applied([plan.adapters for plan in plans], base.family.text_encoders):
        prompts = base.encode_weighted([plan.prompt for plan in plans])
        negative = base.encode_negatives([plan.drawing.negative_prompt for plan in plans])
    # 2. Latents at the noise level of the first step, (n, c, h, w).
    steps = denoising_steps(base.schedule, first.steps, shape[1] * shape[2], first.consistency)
    latents = first_latents(base, plans, noise(seeds, shape), steps[first.start])
    # 3. Denoising, each row with its adapters.
    step_noise = partial(later_noise, seeds, shape) if first.consistency else None
    sampling = Sampling(first.steps, [plan.guidance for plan in rows], first.start, step_noise)
    with attached.applied([plan.adapters for plan in rows], [base.family.denoiser]) as denoiser:
        latents = denoise(denoiser, base, latents, prompts.repeat(counts), negative.repeat(counts), sampling, on_step)
    # 4. Pictures, shared out to the requests.
    pictures = iter([Picture(image, seed) for image, seed in zip(base.decode(latents), seeds, strict=True)])
    return [list(islice(pictures, count)) for count in counts]


def first_latents(base: BaseModel, plans: Sequence[Plan], noise: Tensor, first: Step) -> Tensor:
    """Latents (n, c, h, w) on the base's device that drawing begins with: noise (n, c, h, w), and for variations the
    original at the noise level of the `first` step (SDEdit, arXiv 2108.01073, algorithm 1).

    The original's latent is the mean that the VAE gives, not a sample of it, so that a seed draws the same again.
    """
    latents, row = noise.to(base.device), 0
    alpha, sigma = first.now
    for plan in plans:
        rows = slice(row, row + plan.drawing.count)
        if plan.drawing.original:
            original = read_original(plan.drawing.original)
            fitted = ImageOps.fit(original, (plan.width, plan.height), Image.Resampling.LANCZOS)
            clean, _ = base.encode_pictures([fitted])  # (1, c, h, w)
            latents[rows] = alpha * clean + sigma * latents[rows]
        row += plan.drawing.count
    return latents


def read_original(path: Path) -> Image.Image:
    """The picture in RGB, read like a photo that is learned: upright by EXIF, in sRGB, transparency on white.

    Raises:
        UserError: `bad_original` with the reason, in the words of a photo's verdict.
    """
    try:
        return load_photo(path.read_bytes(), ORIGINAL)
    except BadPhoto as bad:
        raise UserError("bad_original", file=path.name, reason=clause(bad.code, bad.facts)) from bad
    except OSError as error:
        raise UserError("bad_original", file=path.name, reason=error.strerror or "it cannot be opened") from error
