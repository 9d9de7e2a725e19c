"""Adapters: what a training leaves behind, one safetensors file.

A LoRA is stored under diffusers' names with its configuration, so `StableDiffusionPipeline.load_lora_weights` reads
the same file. Full DreamBooth is stored as thin factors of the difference from the base's weights. The header's
`avatar` entry says what it is. Either is worn by the resident base, row by row, and never merged into it.
"""

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.adapters import applied, lora
from engine.adapters.deltas import compress, wearable
from engine.adapters.file import FILE as FILE
from engine.adapters.learned_word import LearnedWord, heard
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.opening import WeightReader
from engine.bases.quantised import Int8Linear
from engine.device import precision
from engine.device.cores import small
from engine.recipe import Recipe
from storage.atomic import atomic_write
from storage.errors import UserError

LORA_METADATA = "lora_adapter_metadata"
"""Header key in which diffusers looks for a LoRA's configuration (diffusers/loaders/lora_base.py)."""

WORD = "lora_word."
"""Before a token in the key of its learned embedding. diffusers passes over keys of no model of its pipeline, but only
if their names hold "lora" (diffusers/loaders/lora_pipeline.py)."""

AdapterKind = Literal["avatar", "style", "few"]
"""A person, a style (learned from a captioned set, or imported), or what makes the base draw in few steps."""

COPIED = 4
"""Rows up to which a small base's weights are copied to be drawn with: one request's. In a larger batch, where a row's
share of the hooks is small, it costs the same in whatever company it is drawn."""

RESIDENT = 32
"""So many adapters at most stay in the device's memory until they are wanted again."""

RESIDENT_BYTES = 2**31
"""And at most so many bytes of them: a full DreamBooth of Stable Diffusion 1.5 has 0.5 GB in half precision."""


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter's file says about itself."""

    token: str
    noun: str
    method: str
    base: str
    recipe: dict[str, Any]
    seed: int
    kind: AdapterKind = "avatar"
    fingerprint: str = ""
    """The base's, wherever it lies now; older files lack it and go by the name that it had."""

    def fits(self, base: BaseModel) -> bool:
        """Whether this was trained on this base."""
        return self.fingerprint == base.fingerprint if self.fingerprint else self.base == base.source

    def check_base(self, base: BaseModel) -> None:
        """Raises UserError `wrong_base` if this was trained on another base."""
        if not self.fits(base):
            other = ", with other weights" if self.base == base.source else ""
            raise UserError("wrong_base", trained=self.base, used=base.source + other)


def attach_fresh(base: BaseModel, recipe: Recipe, name: str, seed: int) -> list[nn.Parameter]:
    """Put a new LoRA on the base, and return its float32 parameters to train: on the denoiser unless that learns in
    full, and on the text encoders if the recipe says so.

    Its first factor is drawn from `seed`, the second is zero: the adapted model starts as the base (arXiv 2106.09685).
    """
    own = recipe.targets or base.family.adapter_targets
    modules = [
        module for module in base.adaptable.values()
        if (recipe.method == "lora" if module is base.unet else recipe.text_encoder)
    ]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in modules:
            lora.attach(module, own if module is base.unet else base.family.text_targets, recipe, name)
    layers = [layer for module in modules for layer in lora.adapted(module).values()]
    return [parameter for layer in layers for parameter in layer.learning.values()]


def detach(base: BaseModel) -> None:
    """Take what was learning off the base, which is then as it was before."""
    for module in base.adaptable.values():
        lora.detach(module)


def save_lora(base: BaseModel, facts: AdapterFacts, path: Path, word: LearnedWord | None = None) -> None:
    """Write what was learning on the base, and its learned word, to `path`, in half precision, complete or not at
    all."""
    tensors, config = _loras(base)
    if word:
        tensors[WORD + word.word] = word.vectors
    write(tensors, facts, path, {LORA_METADATA: json.dumps(config)})


def _loras(base: BaseModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is learning on the base as in a file: tensors and configuration."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, module in base.adaptable.items():
        if lora.adapted(module):
            own, facts_of_it = lora.stored(module)
            tensors |= {f"{part}.{key}": tensor for key, tensor in own.items()}
            config |= {f"{part}.{key}": value for key, value in facts_of_it.items()}
    return tensors, config


def save_delta(base: BaseModel, before: WeightReader, trained: nn.Module, facts: AdapterFacts, path: Path) -> float:
    """Write what full DreamBooth changed as thin factors, and the LoRA that learned on the text encoders beside it,
    complete or not at all; the share of the change that the factors leave out.

    Args:
        base: whose denoiser will wear them, in the dtype that it rests in.
        before: the denoiser's weights as they were opened.
    """

    def differences() -> Iterator[tuple[str, Tensor]]:
        for key, parameter in plain_parameters(trained):
            was = before(key).to(parameter.device, base.dtype)
            yield f"{base.family.denoiser}.{key}", parameter.float() - was.float()

    delta = compress(differences)
    tensors, config = _loras(base)
    extra = {"delta": json.dumps({"error": delta.error, "share": delta.share}), LORA_METADATA: json.dumps(config)}
    write(delta.tensors | tensors, facts, path, extra)
    return delta.error


def write(tensors: dict[str, Tensor], facts: AdapterFacts, path: Path, extra: dict[str, str]) -> None:
    """Write an adapter's file, complete or not at all."""
    # A delta's factors and their scales are already as small as they may be.
    halves = {
        key: (tensor if key.endswith((".left", ".right", ".scale")) else tensor.detach().half()).cpu().contiguous()
        for key, tensor in tensors.items()
    }
    with atomic_write(path) as draft:
        save_file(halves, draft, {"format": "pt", "avatar": json.dumps(asdict(facts))} | extra)


def facts_of(path: Path) -> AdapterFacts:
    """What an adapter's file says about itself.

    Raises:
        UserError: `missing_avatar` if there is none, `bad_adapter` if it is not one of ours.
    """
    file = _file(path)
    if not file.is_file():
        raise UserError("missing_avatar", folder=path)
    try:
        return AdapterFacts(**_header(file)["avatar"])
    except (KeyError, TypeError) as error:
        reason = "it does not say what it is; import it: python -m engine import"
        raise UserError("bad_adapter", folder=path, reason=reason) from error


def read_file(path: Path) -> tuple[AdapterFacts, dict[str, Tensor], dict[str, Any]]:
    """What an adapter says about itself, its tensors, and a LoRA's configuration.

    Raises:
        UserError: as `facts_of`.
    """
    file = _file(path)
    facts = facts_of(file)
    return facts, _tensors(file), _header(file).get(LORA_METADATA, {})


def _header(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as reader:
            return {key: json.loads(value) for key, value in (reader.metadata() or {}).items() if value[:1] == "{"}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error


def _tensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as reader:
        return {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118 (not a mapping)


def content_of(file: Path) -> str:
    """A digest of all that the file holds, the same for every copy: each job brings its own in a folder of its own."""
    return _digest(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(file: Path, changed: int) -> str:
    # Read once, however often a drawing asks. All of the file counts: people's files have equal headers and sizes.
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


Stack = Sequence[tuple[Path, float]]
"""What one row of a batch wears: adapters, each a file or a folder with one, and their weights."""


@dataclass(frozen=True)
class Wearable:
    """An adapter that is ready to be worn."""

    layers: Mapping[str, applied.Adapter]
    """By the part of the base that they are on."""
    words: tuple[LearnedWord, ...]

    @cached_property
    def size(self) -> int:
        """Bytes on the device, but for the words."""
        return sum(tensor.nbytes for part in self.layers.values() for one in part.values() for tensor in one.tensors)


class Attached:
    """The adapters on one base: loads them, puts them on the rows of a batch, and forgets them.

    They are known by their content, wherever their files lie.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._ready: OrderedDict[str, Wearable] = OrderedDict()
        self._sound: set[str] = set()

    def check(self, stack: Stack) -> None:
        """Refuse what cannot be worn on this base.

        Raises:
            UserError: `missing_avatar`, `bad_adapter` or `wrong_base`.
        """
        for path, _ in stack:
            facts_of(path).check_base(self.base)
            if content_of(_file(path)) not in self._sound:
                self._wearable(_file(path))

    def few(self, stack: Stack) -> Mapping[str, Any] | None:
        """The few-step adapter's recipe, if one is among these: `draw_steps`, `guidance`, `distillation` (consistency
        if that is not told) say how to draw with it."""
        return next((facts.recipe for path, _ in stack if (facts := facts_of(path)).kind == "few"), None)

    @contextmanager
    def rows(self, stacks: Sequence[Stack], parts: Collection[str] | None = None) -> Iterator[Any]:
        """The denoiser, with exactly the adapters of stacks[n] on row n of what passes it or a text encoder.

        A batch may be several times as large and then wears them as often in the same order. What is being trained, a
        LoRA and a word, is switched off meanwhile, and on again afterwards.

        Args:
            parts: those of the base that anything will pass; all by default.
        Raises:
            UserError: as `check`.
        """
        for stack in stacks:
            self.check(stack)
        ready = {file: self._wearable(file) for file in {_file(path) for stack in stacks for path, _ in stack}}
        worn = [[(ready[_file(path)], weight) for path, weight in stack] for stack in stacks]
        modules = self.base.adaptable
        with ExitStack() as hooks:
            hooks.enter_context(lora.switched_off(*modules.values()))
            for part, module in modules.items():
                if parts is None or part in parts:
                    layers = [[(one.layers[part], weight) for one, weight in row] for row in worn]
                    hooks.enter_context(applied.worn(module, layers, small(self.base) and len(stacks) <= COPIED))
            hooks.enter_context(
                heard(self.base, [[(word, weight) for one, weight in row for word in one.words] for row in worn])
            )
            yield self.base.unet

    def _wearable(self, file: Path) -> Wearable:
        key = content_of(file)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        try:
            self._ready[key] = ready = self._read(file)
        except ValueError as error:
            raise UserError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error
        self._sound.add(key)
        while len(self._ready) > 1 and (
            len(self._ready) > RESIDENT or sum(one.size for one in self._ready.values()) > RESIDENT_BYTES
        ):
            self._ready.popitem(last=False)
        return ready

    def _read(self, file: Path) -> Wearable:
        """The adapter in this file. Raises ValueError for what does not belong to the base."""
        base, (facts, tensors, config) = self.base, read_file(file)
        known = {part: f"{part}." for part in base.adaptable}
        if strange := [name for name in tensors if not name.startswith((*known.values(), WORD))]:
            raise ValueError(f"{strange[0]} is no part of this base")
        layers: dict[str, applied.Adapter] = {}
        for part, start in known.items():
            own, module = below(tensors, start), base.adaptable[part]
            # As they are computed with: a denoiser draws under autocast.
            dtype = precision.compute_dtype(base.device) if module is base.unet else base.dtype_of(module)
            layers[part] = (
                wearable(own, module, base.device, dtype)
                if facts.method == "dreambooth" and module is base.unet
                else applied.read(own, below(config, start), module, base.device, dtype)
            )
        words = [LearnedWord(base, token, vectors) for token, vectors in below(tensors, WORD).items()]
        return Wearable(layers, tuple(words))


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def below(values: Mapping[str, Any], start: str) -> dict[str, Any]:
    """What stands under keys that begin with `start`, by the rest of its key."""
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def plain_copy(unet: Any, dtype: torch.dtype | None = None) -> Any:
    """A copy of a denoiser's own weights, without any adapter.

    Raises:
        UserError: `quantised_base`, of whose weights only the rounded ones are here.
    """
    if any(isinstance(part, Int8Linear) for part in unet.modules()):
        raise UserError("quantised_base")
    # Cast by torch's own method, as in `BaseModel.rest`.
    copied = nn.Module.to(type(unet).from_config(copy.deepcopy(unet.config)), dtype or BaseModel.dtype_of(unet))
    copied.load_state_dict(dict(plain_parameters(unet)))
    return copied.to(next(unet.parameters()).device).eval()
