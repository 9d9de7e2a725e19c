"""Adapters: what a person's training leaves behind, one safetensors file.

A LoRA is stored under diffusers' names with its configuration, so `StableDiffusionPipeline.load_lora_weights` reads
the same file. Full DreamBooth is stored as thin factors of the difference from the base's weights. The header's
`avatar` entry says whose it is. Either is worn by the resident base, row by row, and never merged into it.
"""

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import set_weights_and_activate_adapters
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine import lowrank
from engine.base import BaseModel, plain_parameters
from engine.deltas import compress, wearable
from engine.errors import InputError
from engine.quantised import Int8Linear
from engine.recipe import Recipe
from engine.words import LearnedWord, heard

FILE = "adapter.safetensors"
LORA_METADATA = "lora_adapter_metadata"
"""Header key in which diffusers looks for a LoRA's configuration (diffusers/loaders/lora_base.py)."""

WORD = "lora_word."
"""Before a token in the key of its learned embedding. diffusers passes over keys of no model of its pipeline, but only
if their names hold "lora" (diffusers/loaders/lora_pipeline.py)."""

Kind = Literal["avatar", "style", "few"]
"""A person, a style (learned from a captioned set, or imported), or what makes the base draw in few steps."""

RESIDENT = 32
"""So many adapters at most stay in the device's memory until they are wanted again."""

RESIDENT_BYTES = 2**31
"""And at most so many bytes of them: a full DreamBooth of Stable Diffusion 1.5 has 0.5 GB in half precision."""


@dataclass(frozen=True)
class AvatarFacts:
    """What an adapter's file says about itself."""

    token: str
    noun: str
    method: str
    base: str
    recipe: dict[str, Any]
    seed: int
    kind: Kind = "avatar"
    fingerprint: str = ""
    """The base's, wherever it lies now; older files lack it and go by the name that it had."""

    @property
    def instance(self) -> str:
        """The words that stand for the person, `cr7d man`."""
        return f"{self.token} {self.noun}"

    def fits(self, base: BaseModel) -> bool:
        """Whether this was trained on this base."""
        return self.fingerprint == base.fingerprint if self.fingerprint else self.base == base.source

    def check_base(self, base: BaseModel) -> None:
        """Raises InputError `wrong_base` if this was trained on another base."""
        if not self.fits(base):
            other = ", with other weights" if self.base == base.source else ""
            raise InputError("wrong_base", trained=self.base, used=base.source + other)


def attach_fresh(base: BaseModel, recipe: Recipe, name: str, seed: int) -> list[torch.nn.Parameter]:
    """Put a new LoRA on the base, make it the active one, and return its float32 parameters to train.

    Its first factor is drawn from `seed`, the second is zero: the adapted model starts as the base (arXiv 2106.09685).
    """
    own = recipe.targets or base.family.adapter_targets
    modules = base.adaptable if recipe.text_encoder else {base.family.denoiser: base.unet}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in modules.values():
            ends = own if module is base.unet else base.family.text_targets
            config = LoraConfig(
                r=recipe.rank, lora_alpha=recipe.alpha, target_modules=_targets(module, ends), use_dora=recipe.dora,
                use_rslora=recipe.rslora, init_lora_weights="gaussian" if recipe.gaussian else True,
            )  # fmt: skip
            module.add_adapter(config, adapter_name=name)
    for module in modules.values():
        _activate(module, [name])
    parameters = [
        parameter
        for module in modules.values()
        for key, parameter in module.named_parameters()
        if f".{name}." in f"{key}."
    ]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def detach(base: BaseModel, name: str) -> None:
    """Take the LoRA `name` off the base and leave every other one switched off."""
    for module in base.adaptable.values():
        if name in getattr(module, "peft_config", {}):
            (module.delete_adapters if module is base.unet else module.delete_adapter)(name)
        _activate(module, [])


def _active(module: nn.Module) -> list[str]:
    """The names of the LoRAs that are switched on."""
    for part in module.modules():
        if isinstance(part, BaseTunerLayer):
            return [] if part.disable_adapters else list(part.active_adapters)
    return []


def _activate(module: Any, names: Sequence[str], weights: Sequence[float] | None = None) -> None:
    """Switch exactly these LoRAs on."""
    if names:
        module.enable_adapters()
        set_weights_and_activate_adapters(module, list(names), list(weights or [1.0] * len(names)))
    elif getattr(module, "_hf_peft_config_loaded", False) and any(
        isinstance(part, BaseTunerLayer) for part in module.modules()
    ):
        module.disable_adapters()


def _targets(module: nn.Module, ends: Sequence[str]) -> list[str]:
    """The layers whose names end so; those below peft's wrappers and its own are not among them."""
    return [
        name
        for name, layer in module.named_modules()
        if "lora_" not in name and "base_layer" not in name and any(name.endswith(f".{end}") for end in ends)
        if isinstance(layer, nn.Linear | nn.Conv2d | BaseTunerLayer)
    ]


def save_lora(base: BaseModel, name: str, facts: AvatarFacts, path: Path, word: LearnedWord | None = None) -> None:
    """Write the LoRA `name`, and its learned word, to `path`, in half precision, complete or not at all."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, module in base.adaptable.items():
        if name in getattr(module, "peft_config", {}):
            state = get_peft_model_state_dict(module, adapter_name=name)
            tensors |= {f"{part}.{key}": tensor for key, tensor in state.items()}
            facts_of_it = module.peft_config[name].to_dict()
            config |= {f"{part}.{key}": _plain(value) for key, value in facts_of_it.items()}
    if word:
        tensors[WORD + word.word] = word.vectors
    write(tensors, facts, path, {LORA_METADATA: json.dumps(config)})


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)


def save_delta(untrained: nn.Module, dtype: torch.dtype, trained: nn.Module, facts: AvatarFacts, path: Path) -> float:
    """Write what full DreamBooth changed as thin factors, complete or not at all; the share that they leave out.

    Args:
        dtype: what the base's denoiser, which will wear them, rests in; `untrained` is as it was opened.
    """
    before, after = dict(plain_parameters(untrained)), dict(plain_parameters(trained))

    def differences() -> Iterator[tuple[str, Tensor]]:
        for key, parameter in after.items():
            yield _start(trained) + key, parameter.float() - before[key].to(parameter.device, dtype).float()

    delta = compress(differences)
    write(delta.tensors, facts, path, {"delta": json.dumps({"error": delta.error, "share": delta.share})})
    return delta.error


def _start(denoiser: nn.Module) -> str:
    """What the keys of a denoiser's weights begin with, as in diffusers' pipelines."""
    return "unet." if isinstance(denoiser, UNet2DConditionModel) else "transformer."


def write(tensors: dict[str, Tensor], facts: AvatarFacts, path: Path, extra: dict[str, str]) -> None:
    """Write an adapter's file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # A delta's factors and their scales are already as small as they may be.
    halves = {
        key: (tensor if key.endswith((".left", ".right", ".scale")) else tensor.detach().half()).cpu().contiguous()
        for key, tensor in tensors.items()
    }
    save_file(halves, partial, {"format": "pt", "avatar": json.dumps(asdict(facts))} | extra)
    partial.replace(path)


def facts_of(path: Path) -> AvatarFacts:
    """What an adapter's file says about itself.

    Raises:
        InputError: `missing_avatar` if there is none, `bad_adapter` if it is not one of ours.
    """
    file = _file(path)
    if not file.is_file():
        raise InputError("missing_avatar", folder=path)
    try:
        return AvatarFacts(**_header(file)["avatar"])
    except (KeyError, TypeError) as error:
        reason = "it does not say what it is; import it: python -m engine import"
        raise InputError("bad_adapter", folder=path, reason=reason) from error


def read_file(path: Path) -> tuple[AvatarFacts, dict[str, Tensor], dict[str, Any]]:
    """What an adapter says about itself, its tensors, and a LoRA's configuration.

    Raises:
        InputError: as `facts_of`.
    """
    file = _file(path)
    facts = facts_of(file)
    return facts, _tensors(file), _header(file).get(LORA_METADATA, {})


def _header(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as reader:
            return {key: json.loads(value) for key, value in (reader.metadata() or {}).items() if value[:1] == "{"}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error


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

    layers: Mapping[str, lowrank.Adapter]
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
            InputError: `missing_avatar`, `bad_adapter` or `wrong_base`.
        """
        for path, _ in stack:
            facts_of(path).check_base(self.base)
            if content_of(_file(path)) not in self._sound:
                self._wearable(_file(path))

    def few(self, stack: Stack) -> Mapping[str, Any] | None:
        """The few-step adapter's recipe, if one is among these: `draw_steps` and `guidance` say how to draw with it."""
        return next((facts.recipe for path, _ in stack if (facts := facts_of(path)).kind == "few"), None)

    @contextmanager
    def rows(self, stacks: Sequence[Stack]) -> Iterator[Any]:
        """The denoiser, with exactly the adapters of stacks[n] on row n of what passes it or a text encoder.

        A batch may be several times as large and then wears them as often in the same order. What is being trained, a
        LoRA and a word, is switched off meanwhile, and on again afterwards.

        Raises:
            InputError: as `check`.
        """
        for stack in stacks:
            self.check(stack)
        ready = {file: self._wearable(file) for file in {_file(path) for stack in stacks for path, _ in stack}}
        worn = [[(ready[_file(path)], weight) for path, weight in stack] for stack in stacks]
        modules = self.base.adaptable
        before = {name: _active(module) for name, module in modules.items()}
        try:
            with ExitStack() as hooks:
                for part, module in modules.items():
                    _activate(module, [])
                    hooks.enter_context(
                        lowrank.worn(module, [[(one.layers[part], weight) for one, weight in row] for row in worn])
                    )
                hooks.enter_context(
                    heard(self.base, [[(word, weight) for one, weight in row for word in one.words] for row in worn])
                )
                yield self.base.unet
        finally:
            for name, module in modules.items():
                _activate(module, before[name])

    def _wearable(self, file: Path) -> Wearable:
        key = content_of(file)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        try:
            self._ready[key] = ready = self._read(file)
        except ValueError as error:
            raise InputError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error
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
        layers: dict[str, lowrank.Adapter] = {}
        for part, start in known.items():
            own, module = below(tensors, start), base.adaptable[part]
            layers[part] = (
                wearable(own, module, base.device, base.dtype)
                if facts.method == "dreambooth"
                else lowrank.read(own, below(config, start), module, base.device, base.dtype)
            )
        words = [LearnedWord(base, token, vectors) for token, vectors in below(tensors, WORD).items()]
        return Wearable(layers, tuple(words))


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def below(values: Mapping[str, Any], start: str) -> dict[str, Any]:
    """What stands under keys that begin with `start`, by the rest of its key."""
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def plain_copy(unet: UNet2DConditionModel, dtype: torch.dtype | None = None) -> UNet2DConditionModel:
    """A copy of the U-Net's own weights, without any adapter.

    Raises:
        InputError: `quantised_base`, of whose weights only the rounded ones are here.
    """
    if any(isinstance(part, Int8Linear) for part in unet.modules()):
        raise InputError("quantised_base")
    device = next(unet.parameters()).device
    copied = type(unet).from_config(copy.deepcopy(unet.config)).to(unet.dtype)
    copied.load_state_dict(dict(plain_parameters(unet)))
    copied.to(device).eval()
    return copied if dtype in (None, copied.dtype) else copied.to(dtype)
