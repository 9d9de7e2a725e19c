"""Adapters: what a person's training leaves behind, one safetensors file.

A LoRA is stored under diffusers' names with its configuration, so `StableDiffusionPipeline.load_lora_weights` reads
the same file. Full DreamBooth is stored as thin factors of the difference from the base's weights. The header's
`avatar` entry says whose it is. Adapters are attached to the resident base, never merged into it.
"""

import copy
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import set_weights_and_activate_adapters
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.base import BaseModel, plain_parameters
from engine.deltas import compress, restored
from engine.errors import InputError
from engine.precision import mixed_precision
from engine.recipe import Recipe
from engine.words import LearnedWord

FILE = "adapter.safetensors"
LORA_METADATA = "lora_adapter_metadata"
"""Header key in which diffusers looks for a LoRA's configuration (diffusers/loaders/lora_base.py)."""

WORD = "lora_word."
"""Before a token in the key of its learned embedding. diffusers passes over keys of no model of its pipeline, but only
if their names hold "lora" (diffusers/loaders/lora_pipeline.py)."""

Kind = Literal["avatar", "style"]

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The text encoder's layers that a LoRA is put on, as in diffusers' train_dreambooth_lora.py."""

RESIDENT = 8
"""So many LoRAs stay attached, switched off, until they are wanted again."""


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

    @property
    def instance(self) -> str:
        """The words that stand for the person, `cr7d man`."""
        return f"{self.token} {self.noun}"


def attach_fresh(base: BaseModel, recipe: Recipe, name: str, seed: int) -> list[torch.nn.Parameter]:
    """Put a new LoRA on the base, make it the active one, and return its float32 parameters to train.

    Its first factor is drawn from `seed`, the second is zero: the adapted model starts as the base (arXiv 2106.09685).
    """
    ends = recipe.targets or base.family.adapter_targets
    targets = [module for module, _ in base.unet.named_modules() if _is_target(module, ends)]
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, use_dora=recipe.dora, use_rslora=recipe.rslora,
        init_lora_weights="gaussian" if recipe.gaussian else True,
    )  # fmt: skip
    modules: list[nn.Module] = [base.unet]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base.unet.add_adapter(config, adapter_name=name)
        if recipe.text_encoder:
            heard = replace(config, target_modules=list(TEXT_TARGETS))
            base.text_encoder.add_adapter(heard, adapter_name=name)
            modules.append(base.text_encoder)
    for module in modules:
        _activate(module, [name])
    parameters = [
        parameter for module in modules for key, parameter in module.named_parameters() if f".{name}." in f"{key}."
    ]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    mixed_precision(base.unet, base.device)
    return parameters


def detach(base: BaseModel, name: str) -> None:
    """Take the LoRA `name` off the base and leave every other one switched off."""
    for module in (base.unet, base.text_encoder):
        if name in getattr(module, "peft_config", {}):
            (module.delete_adapters if module is base.unet else module.delete_adapter)(name)
        _activate(module, [])
    if name in base.words:
        base.words.pop(name).remove()


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


def _is_target(module: str, ends: Sequence[str]) -> bool:
    # Other adapters' own layers have names below `base_layer` and `lora_*`; the wrapped layer keeps its name.
    return "lora_" not in module and "base_layer" not in module and any(module.endswith(f".{end}") for end in ends)


def save_lora(base: BaseModel, name: str, facts: AvatarFacts, path: Path) -> None:
    """Write the LoRA `name` to `path`, in half precision, complete or not at all."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, module in (("unet", base.unet), ("text_encoder", base.text_encoder)):
        if name in getattr(module, "peft_config", {}):
            state = get_peft_model_state_dict(module, adapter_name=name)
            tensors |= {f"{part}.{key}": tensor for key, tensor in state.items()}
            facts_of_it = module.peft_config[name].to_dict()
            config |= {f"{part}.{key}": _plain(value) for key, value in facts_of_it.items()}
    if name in base.words:
        tensors[WORD + base.words[name].word] = base.words[name].vectors
    _write(tensors, facts, path, {LORA_METADATA: json.dumps(config)})


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)


def save_delta(base: UNet2DConditionModel, trained: UNet2DConditionModel, facts: AvatarFacts, path: Path) -> float:
    """Write what full DreamBooth changed as thin factors, complete or not at all; the share that they leave out."""
    before, after = dict(plain_parameters(base)), dict(plain_parameters(trained))

    def differences() -> Iterator[tuple[str, Tensor]]:
        for key, parameter in after.items():
            yield f"unet.{key}", parameter.float() - before[key].float()

    delta = compress(differences)
    _write(delta.tensors, facts, path, {"delta": json.dumps({"error": delta.error, "share": delta.share})})
    return delta.error


def _write(tensors: dict[str, Tensor], facts: AvatarFacts, path: Path, extra: dict[str, str]) -> None:
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
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError("missing_avatar", folder=path)
    return AvatarFacts(**_header(file)["avatar"])


def _header(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as reader:
            return {key: json.loads(value) for key, value in (reader.metadata() or {}).items() if value[:1] == "{"}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error


def _tensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as reader:
        return {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118 (not a mapping)


class Attached:
    """The adapters on one base: loads, switches and forgets them."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._loras: OrderedDict[tuple[Path, int], str] = OrderedDict()
        self._delta: tuple[tuple[Path, int], UNet2DConditionModel] | None = None

    @contextmanager
    def use(self, avatars: Sequence[Path], weights: Sequence[float] | None = None) -> Iterator[UNet2DConditionModel]:
        """The U-Net with exactly these adapters on it and on the text encoder, so prompts are encoded within.

        Afterwards whatever was active before is active again.

        Raises:
            InputError: `missing_avatar`, `bad_adapter`, `wrong_base`, or `one_delta` for two full DreamBooth avatars.
        """
        files = [path / FILE if path.is_dir() else path for path in avatars]
        facts = [facts_of(file) for file in files]
        for fact in facts:
            if fact.base != self.base.source:
                raise InputError("wrong_base", trained=fact.base, used=self.base.source)
        deltas = [file for file, fact in zip(files, facts, strict=True) if fact.method == "dreambooth"]
        if deltas and len(files) > 1:
            raise InputError("one_delta")
        if deltas:
            yield self._with_delta(deltas[0])
            return
        modules = (self.base.unet, self.base.text_encoder)
        before = [_active(module) for module in modules]
        heard = [name for name, word in self.base.words.items() if word.on]
        try:
            names = [self._lora(file) for file in files]
            for module in modules:
                # A person may have been learned without the text encoder.
                known = [(name, weight) for name, weight in zip(names, weights or [1.0] * len(names), strict=True)
                         if name in getattr(module, "peft_config", {})]  # fmt: skip
                _activate(module, [name for name, _ in known], [weight for _, weight in known])
            self._listen(names)
            yield self.base.unet
        finally:
            self._listen(heard)
            for module, active in zip(modules, before, strict=True):
                _activate(module, active)

    def _listen(self, names: Sequence[str]) -> None:
        """Switch exactly these adapters' learned words on."""
        for name, word in self.base.words.items():
            word.on = name in names

    def _lora(self, file: Path) -> str:
        key = (file, file.stat().st_mtime_ns)
        if key in self._loras:
            self._loras.move_to_end(key)
            return self._loras[key]
        name = f"avatar_{uuid4().hex}"  # unique on the base, which others may attach to as well
        tensors, metadata = _tensors(file), _header(file)[LORA_METADATA]
        self.base.unet.load_lora_adapter(tensors, prefix="unet", adapter_name=name, metadata=metadata)
        if any(tensor.startswith("text_encoder.") for tensor in tensors):
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(
                tensors, None, self.base.text_encoder, prefix="text_encoder", adapter_name=name, metadata=metadata
            )
        for tensor in tensors:
            if tensor.startswith(WORD):
                self.base.words[name] = LearnedWord(self.base, tensor.removeprefix(WORD), tensors[tensor])
        mixed_precision(self.base.unet, self.base.device)
        self._loras[key] = name
        while len(self._loras) > RESIDENT:
            detach(self.base, self._loras.popitem(last=False)[1])
        return name

    def _with_delta(self, file: Path) -> UNet2DConditionModel:
        key = (file, file.stat().st_mtime_ns)
        if self._delta is None or self._delta[0] != key:
            self._delta = None
            self._delta = (key, with_delta(self.base.unet, _tensors(file)))
        return self._delta[1]


def plain_copy(unet: UNet2DConditionModel, dtype: torch.dtype | None = None) -> UNet2DConditionModel:
    """A copy of the U-Net's own weights, without any adapter."""
    device = next(unet.parameters()).device
    copied = UNet2DConditionModel.from_config(copy.deepcopy(unet.config)).to(unet.dtype)
    copied.load_state_dict(dict(plain_parameters(unet)))
    mixed_precision(copied, device)
    copied.to(device).eval()
    return copied if dtype in (None, copied.dtype) else copied.to(dtype)


@torch.no_grad()
def with_delta(unet: UNet2DConditionModel, delta: dict[str, Tensor]) -> UNet2DConditionModel:
    """A copy of the U-Net with the stored difference added."""
    copied = plain_copy(unet)
    for key, parameter in copied.named_parameters():
        difference = restored(delta, f"unet.{key}", parameter.shape)
        if difference is not None:
            parameter += difference.to(parameter)
    return copied
