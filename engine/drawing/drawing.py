"""Drawing: prompts, seeds and adapters become pictures."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from engine.adapters.adapters import Attached, facts_of
from engine.bases.base import BaseModel
from engine.bases.schedule import Step
from engine.device.cores import on_one_core
from engine.drawing.denoising import Sampling, denoise, denoising_steps, later_noise, noise
from storage.atomic import atomic_write
from storage.errors import UserError

PROMPT_LIMIT = 1000
"""Characters of a prompt; far more than any text encoder reads."""


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
    """How much each of them counts; None is 1 for all."""
    original: Path | None = None
    """A picture to vary; None draws from noise alone."""
    strength: float = 0.6
    """How far a variation may go from its original, 0 to 1: the part of the steps that are drawn, one at least."""

    @property
    def stack(self) -> tuple[tuple[Path, float], ...]:
        """The adapters with their weights."""
        return tuple(zip(self.avatars, self.weights or (1.0,) * len(self.avatars), strict=True))


@dataclass(frozen=True)
class Picture:
    """A drawn picture and the seed that draws it again."""

    image: Image.Image
    seed: int

    def save(self, path: Path, drawing: Drawing, base: str) -> None:
        """Write a PNG that says in its text chunks how to draw it again, complete or not at all.

        The prompt is not among them: pictures are passed on, and what was asked for is the asker's own.
        """
        info = PngImagePlugin.PngInfo()
        facts = {"seed": self.seed, "steps": drawing.steps, "guidance": drawing.guidance, "base": base}
        if drawing.original:
            facts["strength"] = drawing.strength
        for key, value in facts.items():
            info.add_itxt(key, str(value))
        with atomic_write(path) as draft:
            self.image.save(draft, "PNG", pnginfo=info)


def check(drawing: Drawing, base: BaseModel, attached: Attached | None = None) -> None:
    """Refuse a drawing that cannot be made.

    Raises:
        UserError: `empty_prompt`, `prompt_too_long`, `out_of_range`, `bad_size` or `bad_original`, and with
            `attached` whatever `Attached.check` says of the adapters.
    """
    if not drawing.prompt.strip():
        raise UserError("empty_prompt")
    for text in (drawing.prompt, drawing.negative_prompt):
        if len(text) > PROMPT_LIMIT:
            raise UserError("prompt_too_long", length=len(text), limit=PROMPT_LIMIT)
    for what, value, low, high in (
        ("count", drawing.count, 1, 16), ("steps", drawing.steps, 1, 250), ("guidance", drawing.guidance, 0, 30),
        ("seed", drawing.seed, 0, 2**53), ("strength", drawing.strength, 0, 1),
        *(("weight", weight, -2, 2) for weight in drawing.weights or ()),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise UserError("out_of_range", what=what, low=low, high=high, value=value)
    side = base.side
    base.check_size(*(side if given is None else given for given in (drawing.width, drawing.height)))
    if drawing.original:
        opened(drawing.original)
    if attached:
        attached.check(drawing.stack)


def draw(
    base: BaseModel, attached: Attached, drawing: Drawing, on_step: Callable[[int, int], None] = lambda step, of: None
) -> list[Picture]:
    """Draw `drawing.count` pictures, one after another's seed; each is the same whether drawn alone or in company.

    Raises:
        UserError: as `check`.
    """
    return draw_together(base, attached, [drawing], on_step)[0]


def draw_together(
    base: BaseModel,
    attached: Attached,
    drawings: Sequence[Drawing],
    on_step: Callable[[int, int], None] = lambda step, of: None,
) -> list[list[Picture]]:
    """Draw several people's requests as one batch, each row with its own prompt, guidance and adapters.

    They must agree in what `company` says. Each picture is the one that is drawn alone, but for rounding.

    Raises:
        UserError: as `check`.
    """
    for drawing in drawings:
        check(drawing, base, attached)
    drawings = [in_few_steps(drawing, base, attached) for drawing in drawings]
    if len({company(drawing, base, attached) for drawing in drawings}) != 1:
        raise ValueError("these drawings cannot share a batch")
    first, counts = drawings[0], [drawing.count for drawing in drawings]
    shape = base.latent_shape(first.width or base.side, first.height or base.side)
    rows = [drawing for drawing in drawings for _ in range(drawing.count)]
    seeds = [drawing.seed + number for drawing in drawings for number in range(drawing.count)]
    stacks = [drawing.stack for drawing in drawings]
    with on_one_core(base), attached.rows(stacks, base.family.text_encoders):
        words = base.encode_prompts([drawing.prompt for drawing in drawings])
        negative = base.encode_negatives([drawing.negative_prompt for drawing in drawings])
    steps, skip = steps_of(first, base, attached), skipped(first, base, attached)
    consistent = by_consistency(first, attached)
    plan = denoising_steps(base.schedule, steps, shape[1] * shape[2], consistent)
    latents = begin(base, drawings, noise(seeds, shape), plan[skip])
    with ExitStack() as wearing:
        with on_one_core(base):
            unet = wearing.enter_context(attached.rows([drawing.stack for drawing in rows], [base.family.denoiser]))
        latents = denoise(
            unet, base, latents, words.repeat(counts), negative.repeat(counts),
            Sampling(
                steps, [guidance_of(drawing, base, attached) for drawing in rows], skip,
                partial(later_noise, seeds, shape) if consistent else None,
            ),
            on_step,
        )  # fmt: skip
    pictures = iter([Picture(image, seed) for image, seed in zip(base.decode(latents), seeds, strict=True)])
    return [list(islice(pictures, count)) for count in counts]


def company(drawing: Drawing, base: BaseModel, attached: Attached) -> tuple[object, ...]:
    """What drawings must have in common to be drawn together: sizes, steps, where they begin, whether they are guided
    and whether they are drawn by consistency.

    Raises:
        UserError: `missing_avatar` or `bad_adapter`.
    """
    drawing = in_few_steps(drawing, base, attached)
    return (
        drawing.width or base.side, drawing.height or base.side, steps_of(drawing, base, attached),
        skipped(drawing, base, attached), guidance_of(drawing, base, attached) == 1.0,
        by_consistency(drawing, attached),
    )  # fmt: skip


def in_few_steps(drawing: Drawing, base: BaseModel, attached: Attached) -> Drawing:
    """The drawing with the base's own few-step adapter, if it asks for that one's steps and wears no other such."""
    own = base.family.few_step_adapter
    if own is None or drawing.steps is None or attached.few(drawing.stack) or not (few := facts_of(own)).fits(base):
        return drawing
    if drawing.steps != few.recipe["draw_steps"]:
        return drawing
    weights = (*(weight for _, weight in drawing.stack), 1.0)
    return replace(drawing, avatars=(*drawing.avatars, own), weights=weights)


def by_consistency(drawing: Drawing, attached: Attached) -> bool:
    """Whether each step answers with the whole picture, as a few-step adapter that was learned by consistency does."""
    few = attached.few(drawing.stack)
    return few is not None and few.get("distillation", "consistency") == "consistency"


def steps_of(drawing: Drawing, base: BaseModel, attached: Attached) -> int:
    """The drawing's steps: as asked for, or the few-step adapter's, or the family's."""
    few = attached.few(drawing.stack)
    return drawing.steps or (int(few["draw_steps"]) if few else base.family.draw_steps)


def skipped(drawing: Drawing, base: BaseModel, attached: Attached) -> int:
    """How many of the first steps a variation leaves out, as diffusers' StableDiffusionImg2ImgPipeline does."""
    steps = steps_of(drawing, base, attached)
    return 0 if drawing.original is None else steps - max(1, round(steps * drawing.strength))


def begin(base: BaseModel, drawings: Sequence[Drawing], noise: Tensor, first: Step) -> Tensor:
    """Latents (n, c, h, w) on the base's device that drawing begins with: noise (n, c, h, w), and for variations the
    original at the noise level of the `first` step (SDEdit, arXiv 2108.01073, algorithm 1).

    The original's latent is the mean that the VAE gives, not a sample of it, so that a seed draws the same again.
    """
    latents, row = noise.to(base.device), 0
    alpha, sigma = first.now
    size = (noise.shape[3] * base.vae_scale_factor, noise.shape[2] * base.vae_scale_factor)
    for drawing in drawings:
        if drawing.original:
            clean, _ = base.encode_pictures([ImageOps.fit(opened(drawing.original), size, Image.Resampling.LANCZOS)])
            latents[row : row + drawing.count] = alpha * clean + sigma * latents[row : row + drawing.count]
        row += drawing.count
    return latents


def opened(path: Path) -> Image.Image:
    """The picture in RGB. Raises UserError `bad_original`."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise UserError("bad_original", file=path.name) from error


def guidance_of(drawing: Drawing, base: BaseModel, attached: Attached) -> float:
    """The drawing's guidance: as asked for, or the few-step adapter's, or the family's."""
    few = attached.few(drawing.stack)
    usual = float(few["guidance"]) if few else base.family.guidance
    return usual if drawing.guidance is None else drawing.guidance
