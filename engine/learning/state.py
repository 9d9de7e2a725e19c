"""The state of a training run: weights, optimizer, running mean and gradient scaler; and when it is checkpointed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from engine.device.memory import within_memory
from engine.learning.checkpoints import UnusableCheckpoint, failure_of, load_checkpoint, save_checkpoint, settled
from engine.learning.config import TrainingConfig
from engine.learning.learner import Learner
from engine.learning.listener import Listener
from engine.learning.material import Material
from engine.learning.objectives import average, ema_decay
from engine.learning.optimisers import clear_state, clip
from storage.atomic import put_aside
from storage.errors import UserError

CHECKPOINT_PAUSE = 20
"""Least multiple of the last checkpoint's write time before the next one: a large model's checkpoint has 10 GB."""


class TrainingState:
    """Everything that the next step depends on, besides the material and the step's number."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.recipe = learner, learner.recipe
        self.parameters = learner.parameters
        self.optimiser = learner.make_optimiser()
        self._rates = [float(group["lr"]) for group in self.optimiser.param_groups]
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

    def check_finite(self, step: int) -> None:
        """Check the weights after `step` steps: a step with an infinite gradient spoils them, and no later loss may
        show it.

        Raises:
            UserError: `loss_not_finite`.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise not_finite(step, float("nan"), self.recipe.learning_rate)

    def kept_weights(self) -> AbstractContextManager[None]:
        """Within, the parameters are those that are kept in the end: the running mean, or a schedule-free optimiser's
        own."""
        return settled(self.optimiser, self.parameters, self.ema)

    def free_memory(self) -> None:
        """Forget gradients and the optimiser's state, after the last step."""
        for parameter in self.parameters:
            parameter.grad = None
        clear_state(self.optimiser)


def not_finite(step: int, loss: float, rate: float) -> UserError:
    """The error for a loss, or for weights, that are not finite after `step` steps at this learning rate."""
    return UserError("loss_not_finite", step=step, loss=str(loss), rate=f"{rate:g}")


class Checkpoints:
    """Writes checkpoints of the state at intervals, and resumes from one.

    A file that cannot be read or written is a warning, and the training goes on without it.
    """

    def __init__(
        self, config: TrainingConfig, material: Material, clock: Callable[[], float], began: float, listener: Listener
    ) -> None:
        """
        Args:
            material: what is learned; a checkpoint of another run is put aside.
            clock: seconds.
            began: when the run began.
        """
        self._config, self._path, self._clock, self._listener = config, config.checkpoint, clock, listener
        self._run, self._lineage = material.run, material.lineage
        self._least = self._pause = config.checkpoint_seconds
        self._written = began

    def load(self, state: TrainingState) -> int:
        """Put the state back; the step to go on with, 0 without a checkpoint of this run.

        Raises:
            UserError: `would_overwrite` for a run that has to go on and cannot.
        """
        step = 0
        if self._path is not None:
            try:
                step = self._load(self._path, state)
            except UnusableCheckpoint as error:
                if not self._config.must_resume:
                    aside = put_aside(self._path, "damaged" if str(error) == "checkpoint_damaged" else "before")
                    self._listener.on_warning(str(error), file=self._path, aside=aside or self._path)
        if self._config.must_resume and not step:
            raise UserError("would_overwrite", file=self._config.must_resume)
        if step:
            self._listener.on_resume(step)
        return step

    def _load(self, path: Path, state: TrainingState) -> int:
        step, scaling = load_checkpoint(
            path, self._run, state.parameters, state.optimiser, state.ema, self._lineage, state.recipe.steps
        )
        if scaling:
            state.scaler.load_state_dict(scaling)
        return step

    def save_if_due(self, state: TrainingState, step: int) -> bool:
        """Write the state after `step` steps if it is time; whether it was written.

        Raises:
            UserError: `loss_not_finite` for weights that nothing could go on with.
        """
        if self._path is None or self._clock() - self._written < self._pause:
            return False
        return self.keep(state, step)

    def keep(self, state: TrainingState, step: int) -> bool:
        """Write the state after `step` steps; whether it was written. Raises as `save_if_due`."""
        if self._path is None:
            return False
        state.check_finite(step)
        began, path, scaling = self._clock(), self._path, state.scaler.state_dict()
        failure = failure_of(
            lambda: save_checkpoint(
                path, self._run, step, state.parameters, state.optimiser, state.ema, scaling, self._lineage
            )
        )
        if failure:
            self._listener.on_warning("checkpoint_unwritten", file=self._path, reason=failure)
        self._written = self._clock()
        self._pause = self._least and max(self._least, CHECKPOINT_PAUSE * (self._written - began))
        return not failure

    def make_room(self) -> bool:
        """Delete the checkpoint, which is larger than what was learned; whether there was one.

        Only for a result that is complete and has no space on the disk.
        """
        if self._path is None or not self._path.exists():
            return False
        self._path.unlink(missing_ok=True)
        return True
