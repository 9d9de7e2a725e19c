"""Our loop with another trainer's random choices, and another trainer's LoRA drawn as our judge's pictures are."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from engine.bases.base import BaseModel
from engine.learning.config import TrainingConfig
from engine.learning.learner import Learner
from engine.learning.listener import Listener, Progress
from engine.learning.samples import StepSample
from engine.learning.training import train
from engine.recipe import REFERENCE, Recipe
from engine.toon.prompts import PROMPTS, SEED


def largest_difference(method: str, record: Path, album: Path, work: Path, token: str, noun: str) -> float:
    """Learn with our loop what `record` tells of a reference run; the largest |ours - theirs| / theirs of a loss.

    Their initial LoRA weights, photos, latents, noise and timesteps; our latents' means and deviations, text
    embeddings, loss, clipping and optimiser.
    """
    theirs = json.loads((record / "losses.json").read_text())
    noted = load_file(record / "chance.safetensors")
    base = BaseModel.load()
    pictures = [Image.open(path).convert("RGB") for path in sorted(album.iterdir())]
    means, deviations = base.encode_pictures(pictures)
    factor = float(base.vae.config.scaling_factor)
    recipe: Recipe = replace(REFERENCE[method], steps=len(theirs), checkpointing=False)

    def sampler(step: int) -> StepSample:
        latent = noted[f"latent.{step}"][0] * factor
        row = int((means - latent).flatten(1).norm(dim=1).argmin())
        spread = (latent - means[row]) / deviations[row]
        noise = noted[f"noise.{step}"][0]
        offsets = torch.zeros(1, len(noise), 1, 1)
        return StepSample([row], [], [0.0], [spread], [noise], offsets, noted[f"timestep.{step}"])

    ours: list[float] = []

    class Replay(Listener):
        def on_start(self, learner: Learner) -> None:
            adapter = learner.parameters if method == "lora" else ()
            for number, parameter in enumerate(adapter):
                parameter.data.copy_(noted[f"parameter.{number}"])

        def on_step(self, progress: Progress) -> None:
            ours.append(progress.loss)

    config = TrainingConfig(token, noun, recipe, sampler=sampler)
    train(base, pictures, config, work / "replayed" / "adapter.safetensors", listener=Replay())
    return max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))


def drawn_by_diffusers(folder: Path, who: str) -> list[Image.Image]:
    """The judge's prompts with a reference run's LoRA, in diffusers' own pipeline, from our seeds."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    from engine.drawing.denoising import noise
    from engine.toon import WEIGHTS

    base = BaseModel.load()
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    shape = base.latent_shape(base.side, base.side)
    return [
        pipeline(prompt.format(who=who), num_inference_steps=base.family.draw_steps,
                 guidance_scale=base.family.guidance, latents=noise([SEED + number], shape)).images[0]
        for number, (prompt, _) in enumerate(PROMPTS)
    ]  # fmt: skip
