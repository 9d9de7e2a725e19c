"""The learner: the trainable parameters of a run, a LoRA on the base's denoiser or in full DreamBooth all weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.adapters.adapters import AdapterFacts, attach_fresh, detach, plain_copy, save_delta, save_lora
from engine.adapters.learned_token import LearnedToken, apply_learned_tokens
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.families import Conditioning
from engine.bases.interfaces import Denoiser
from engine.device import fast
from engine.device.fast import FastLearning, fast_learning, one_core
from engine.device.precision import DTYPES, autocast, compute_dtype
from engine.learning.batches import Batch
from engine.learning.config import TrainingConfig
from engine.learning.material import Material
from engine.learning.objectives import weighted_errors
from engine.learning.optimisers import AdamW, Group, make
from engine.recipe import Recipe

TRAINING = "in_training"
"""Name of the LoRA that is being trained."""


def learning_dtype(recipe: Recipe, base: BaseModel) -> torch.dtype:
    """The dtype that the recipe computes in on this base: the recipe's, or the fastest one."""
    if recipe.precision != "auto":
        return DTYPES[recipe.precision]
    return fast.learning_dtype(base, recipe.batch + recipe.prior_batch, frozen=recipe.method == "lora")


def _dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    return compute_dtype(device) if recipe.precision == "auto" else DTYPES[recipe.precision]


def frozen_dtype(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """The dtype that the denoiser's frozen weights may be kept in if nobody else uses the base; None for the device's
    usual one. Frozen weights, those under a LoRA, need no more digits than they are computed with."""
    dtype = _dtype(recipe, device)
    return dtype if recipe.method == "lora" and dtype != torch.float32 else None


class Learner(ABC):
    """The denoiser in training, its trainable parameters, and how they become an adapter file."""

    fast: FastLearning
    """The fast paths of its steps; set by `open_learner`."""

    def __init__(self, base: BaseModel, recipe: Recipe, denoiser: Denoiser, groups: Sequence[Group]) -> None:
        self.base, self.recipe = base, recipe
        self.denoiser = denoiser
        """The denoiser in training, float32 where it is trained itself."""
        self.groups = list(groups)
        """The optimiser's parameter groups, {"params", "lr"}."""
        self.dtype = learning_dtype(recipe, base)
        """The dtype of the computation, under autocast."""
        self.trains_text_encoder = recipe.text_encoder or recipe.pivotal
        """Whether prompt embeddings change while learning, so that prompts are encoded at every step."""
        self.token_embedding: LearnedToken | None = None
        """The token's own embedding, in pivotal tuning."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters, in the order of the groups, which is their order in a checkpoint."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def train_token(self, embedding: LearnedToken) -> None:
        """Train the token's embedding too."""
        self.token_embedding = embedding
        self.groups.append({"params": [embedding.vectors], "lr": self.recipe.word_learning_rate})

    def make_optimiser(self) -> Optimizer:
        """The recipe's optimiser for `groups`, which become its own.

        Raises:
            UserError: `optimiser_unusable`.
        """
        optimiser = make(self.recipe, self.groups, self.base.device)
        if hasattr(optimiser, "train"):
            optimiser.train()  # a schedule-free optimiser keeps two sets of weights
        return optimiser

    def errors(self, batch: Batch, material: Material) -> Tensor:
        """The squared error of each row of the batch, (n,), float32, with gradients to the parameters."""
        conditioning = replace(self._conditioning(batch.prompts, material), sizes=batch.sizes)
        with autocast(self.base.device, self.dtype):
            predicted = self.base.predict(self.denoiser, batch.noisy, batch.timesteps, conditioning)  # (n, c, h, w)
        return weighted_errors(predicted, batch.targets, batch.pixel_weights)

    def _conditioning(self, prompts: Sequence[int], material: Material) -> Conditioning:
        """The embeddings of these n prompts; text encoders that learn encode each distinct prompt once."""
        if not self.trains_text_encoder:
            return material.embeddings[prompts]
        distinct = sorted(set(prompts))
        encoded = self.base.embed_prompts([material.prompts[index] for index in distinct])
        return encoded[[distinct.index(index) for index in prompts]]

    @abstractmethod
    def save(self, facts: AdapterFacts, path: Path) -> float | None:
        """Write what was learned to `path`, complete or not at all.

        Returns:
            Of full DreamBooth the share of the change that the stored form leaves out, |D - D'| / |D|.
        """


class LoraLearner(Learner):
    """A LoRA on the denoiser, and on the text encoders if the recipe says so."""

    def __init__(self, base: BaseModel, recipe: Recipe, adapter: Sequence[nn.Parameter]) -> None:
        super().__init__(base, recipe, base.unet, [{"params": list(adapter), "lr": recipe.learning_rate}])

    def save(self, facts: AdapterFacts, path: Path) -> None:
        save_lora(self.base, facts, path, self.token_embedding)


class FullLearner(Learner):
    """All weights of the denoiser in float32, and a LoRA on the text encoders if the recipe says so."""

    def __init__(self, base: BaseModel, recipe: Recipe, adapter: Sequence[nn.Parameter], in_place: bool) -> None:
        """
        Args:
            in_place: train the base's own denoiser instead of a copy.
        """
        self._in_place = in_place
        denoiser = base.unet.float() if in_place else plain_copy(base.unet, torch.float32)
        own = list(denoiser.requires_grad_(True).parameters())
        groups: list[Group] = [{"params": own, "lr": recipe.learning_rate}]
        if adapter:
            _, as_lora = base.family.recipes["lora"]
            groups.append({"params": list(adapter), "lr": as_lora.learning_rate})
        super().__init__(base, recipe, denoiser, groups)

    def make_optimiser(self) -> Optimizer:
        """As `Learner.make_optimiser`. Where the computation is in bfloat16, AdamW keeps gradients of matrices in it.

        That saves a quarter of the step's time. The rounding changes a gradient by at most 1/512; the gradients of two
        steps differ by about their own size.
        """
        optimiser = super().make_optimiser()
        if isinstance(optimiser, AdamW) and _dtype(self.recipe, self.base.device) == torch.bfloat16:
            for parameter in self.denoiser.parameters():
                if parameter.ndim > 1:
                    parameter.grad_dtype = torch.bfloat16
        return optimiser

    def save(self, facts: AdapterFacts, path: Path) -> float:
        base = self.base
        before = base.original_weights() if self._in_place else dict(plain_parameters(base.unet)).__getitem__
        with one_core(base):
            return save_delta(base, before, self.denoiser, facts, path)


@contextmanager
def open_learner(base: BaseModel, config: TrainingConfig, material: Material) -> Iterator[Learner]:
    """Attach the trainable parameters to the base. Afterwards the base is as it was before, also after an error, except
    that full DreamBooth of a base that nobody else uses may have trained the base's own denoiser.

    Raises:
        UserError: `quantised_base` if full DreamBooth finds rounded weights.
    """
    recipe = config.recipe
    token_embedding = LearnedToken(base, config.token) if recipe.pivotal else None
    if config.owns_base and (frozen := frozen_dtype(recipe, base.device)):
        base.cast_denoiser(frozen)
    with ExitStack() as cleanup:
        cleanup.callback(detach, base)
        adapter = attach_fresh(base, recipe, TRAINING, config.seed)
        learner: Learner
        if recipe.method == "lora":
            learner = LoraLearner(base, recipe, adapter)
        else:
            # The class rows' targets are the untrained base's predictions, which need its weights.
            needs_untrained = recipe.prior_target == "base" and len(material.class_latents) > 0
            learner = FullLearner(base, recipe, adapter, in_place=config.owns_base and not needs_untrained)
        frozen_denoiser = recipe.method == "lora"
        learner.fast = cleanup.enter_context(fast_learning(base, learner.denoiser, learner.dtype, frozen_denoiser))
        cleanup.callback(learner.denoiser.disable_gradient_checkpointing)
        if token_embedding:
            learner.train_token(token_embedding)
            cleanup.enter_context(apply_learned_tokens(base, [[(token_embedding, 1.0)]]))
        yield learner
