"""Every kind of job, declared once: its payload, its queue, its limits and the states it passes through. No I/O."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class State(StrEnum):
    """The state of a job: queued -> running -> one of TERMINAL; queued -> cancelled or failed is possible too."""

    QUEUED = "queued"
    """Recorded; no engine has claimed it yet."""
    RUNNING = "running"
    """An engine claimed it; `attempt` counts the claims. A dead engine leaves it running until the next claim."""
    SUCCEEDED = "succeeded"
    """Its result is recorded."""
    FAILED = "failed"
    """Its error, a code and facts, is recorded."""
    CANCELLED = "cancelled"
    """The user cancelled it before it ended."""


PHOTOS_FEWEST = 5
"""The fewest photos without a fault with which an avatar can be trained."""

TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class JobKind(StrEnum):
    """What an engine can be asked to do."""

    INSPECT = "inspect"
    """Look at each photo of an avatar: seconds."""
    TRAIN = "train"
    """Learn an avatar: minutes to hours."""
    IMAGINE = "imagine"
    """Draw pictures: seconds."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Give each photo of the avatar a verdict."""

    avatar_id: str


@dataclass(frozen=True, slots=True)
class Train:
    """Learn the avatar from its photos. `steps=None` leaves the number to the recipe."""

    avatar_id: str
    method: str = "lora"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Imagine:
    """Draw `count` pictures. None leaves a value to the base model's family; sizes are in pixels.

    original: blob key of a picture to vary; None draws from noise alone. strength: how far a variation may go from its
    original, 0 to 1. style: the name of a style that engines offer; it is combined with the avatars. style_weight: the
    weight of its adapter; 1 is as learned. repeats: the id of the drawing under which a button asked for this one.
    """

    prompt: str
    avatar_ids: tuple[str, ...] = ()
    count: int = 4
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    original: str | None = None
    strength: float = 0.6
    style: str | None = None
    style_weight: float = 1.0
    repeats: str | None = None


Payload = Inspect | Train | Imagine


@dataclass(frozen=True, slots=True)
class JobSpec:
    """How a kind of job is run.

    time_limit: seconds one attempt may take. max_attempts: claims after which it counts as crashing its engine.
    at_once: how many of the kind one engine runs at the same time.
    """

    kind: JobKind
    payload: type[Payload]
    queue: str
    time_limit: float
    max_attempts: int
    at_once: int


SPECS: Mapping[JobKind, JobSpec] = MappingProxyType(
    {
        JobKind.INSPECT: JobSpec(JobKind.INSPECT, Inspect, "avatar:inspect", time_limit=300, max_attempts=3, at_once=4),
        # A restart of the engine is an attempt too, and a long training sees several.
        JobKind.TRAIN: JobSpec(JobKind.TRAIN, Train, "avatar:train", time_limit=12 * 3600, max_attempts=10, at_once=1),
        # The GPU process puts drawings that run at the same time into one batch.
        JobKind.IMAGINE: JobSpec(JobKind.IMAGINE, Imagine, "avatar:imagine", time_limit=900, max_attempts=3, at_once=8),
    }
)


def to_json(payload: Payload) -> dict[str, Any]:
    """The payload as JSON values; `from_json` reads it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(payload).items()}


def from_json(kind: JobKind, values: Mapping[str, Any]) -> Payload:
    """The payload of a job of this kind. Raises TypeError for missing or unknown fields."""
    make: Callable[..., Payload] = SPECS[kind].payload
    return make(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
