"""The state of a training run: weights, optimizer, running mean and gradient scaler; and when it is checkpointed."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from engine.device.memory import within_memory
from engine.learning.checkpoints import load_checkpoint, save_checkpoint, settled
from engine.learning.config import TrainingConfig
from engine.learning.learner import Learner
from engine.learning.objectives import average, ema_decay
from engine.learning.optimisers import clear_state, clip

CHECKPOINT_PAUSE = 20
"""Least multiple of the last checkpoint's write time before the next one: a large model's checkpoint has 10 GB."""


class TrainingState:
    """Everything that the next step depends on, besides the material and the step's number."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.recipe = learner, learner.recipe
        self.parameters = learner.parameters
        self._rates = [float(group["lr"]) for group in learner.groups]
        self.optimiser = learner.make_optimiser()
        self.ema = [parameter.detach().clone() for parameter in self.parameters] if self.recipe.ema else None
        # float16 gradients are scaled up, so that small ones do not become zero.
        self.scaler = torch.amp.GradScaler(learner.base.device.type, enabled=learner.dtype == torch.float16)

    def update(self, step: int, rate: float) -> None:
        """Move the weights along the gradients of `step`.

        Args:
            rate: share of each group's full learning rate.
        Raises:
            OutOfMemory: for the optimiser's state.
        """
        for group, full in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = full * rate
        self.scaler.unscale_(self.optimiser)
        # The first update allocates the optimiser's state. Fewer rows at once would not make it smaller.
        within_memory(self._clip_and_step)
        self.scaler.update()
        if self.ema is not None:
            average(self.ema, self.parameters, ema_decay(self.recipe.ema, step))

    def _clip_and_step(self) -> None:
        with self.learner.fast.update():
            clip(self.parameters, self.recipe.max_norm)
            self.scaler.step(self.optimiser)

    def kept_weights(self) -> AbstractContextManager[None]:
        """Within, the parameters are those that are kept in the end: the running mean, or a schedule-free optimiser's
        own."""
        return settled(self.optimiser, self.parameters, self.ema)

    def free_memory(self) -> None:
        """Forget gradients and the optimiser's state, after the last step."""
        for parameter in self.parameters:
            parameter.grad = None
        clear_state(self.optimiser)


class Checkpoints:
    """Writes checkpoints of the state at intervals, and resumes from one."""

    def __init__(self, config: TrainingConfig, run: str, clock: Callable[[], float], began: float) -> None:
        """
        Args:
            run: digest of what is learned; a checkpoint of another run is ignored.
            clock: seconds.
            began: when the run began.
        """
        self._path, self._run, self._clock = config.checkpoint, run, clock
        self._least = self._pause = config.checkpoint_seconds
        self._written = began

    def load(self, state: TrainingState) -> int:
        """Put the state back; the step to go on with, 0 without a checkpoint of this run."""
        if self._path is None:
            return 0
        step, scaling = load_checkpoint(self._path, self._run, state.parameters, state.optimiser, state.ema)
        if scaling:
            state.scaler.load_state_dict(scaling)
        return step

    def save_if_due(self, state: TrainingState, step: int) -> bool:
        """Write the state after `step` steps if it is time; whether it was written."""
        if self._path is None or self._clock() - self._written < self._pause:
            return False
        began = self._clock()
        scaling = state.scaler.state_dict()
        save_checkpoint(self._path, self._run, step, state.parameters, state.optimiser, state.ema, scaling)
        self._written = self._clock()
        self._pause = self._least and max(self._least, CHECKPOINT_PAUSE * (self._written - began))
        return True
