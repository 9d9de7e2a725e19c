"""Adapters: the result of a training, one safetensors file.

A LoRA is stored under diffusers' names with its configuration, so `StableDiffusionPipeline.load_lora_weights` reads
the same file. Full DreamBooth is stored as thin factors of the difference from the base's weights. The header's
`avatar` entry has the adapter's facts. Adapters of both kinds are applied to rows of a batch, and never merged into the
base.
"""

import copy
import hashlib
import json
import stat
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.adapters import applied, lora
from engine.adapters.deltas import compress, read_delta
from engine.adapters.file import FILE as FILE
from engine.adapters.learned_token import LearnedToken, apply_learned_tokens
from engine.adapters.lokr import LokrLayer
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.opening import WeightReader
from engine.bases.quantised import Int8Linear
from engine.device import precision
from engine.device.fast import one_core, small
from engine.device.generators import seed_of
from engine.recipe import Recipe
from engine.tensor_files import read_metadata, read_tensors
from storage.atomic import atomic_write
from storage.errors import UserError

LORA_METADATA = "lora_adapter_metadata"
"""Header key in which diffusers looks for a LoRA's configuration (diffusers/loaders/lora_base.py)."""

TOKEN_PREFIX = "lora_word."
"""Prefix of a token in the key of its learned embedding. diffusers ignores keys that belong to no model of its
pipeline, but only if they contain "lora" (diffusers/loaders/lora_pipeline.py)."""

AdapterKind = Literal["avatar", "style", "few"]
"""A person, a style (learned from captioned pictures, or imported), or a few-step adapter, as headers name them."""

COPIED_ROWS = 4
"""Most rows of a batch for which a small base's weights are copied and changed: those of one request. In a larger batch
hooks cost little for each row, and the adapters of other rows do not change the cost of a row."""

RESIDENT = 32
"""Most adapters that are kept in the device's memory for later batches."""

RESIDENT_BYTES = 2**31
"""Most bytes of these adapters: a full DreamBooth of Stable Diffusion 1.5 has 0.5 GB in half precision."""


@dataclass(frozen=True)
class AdapterFacts:
    """The facts in an adapter file's header."""

    token: str
    noun: str
    method: str
    base: str
    recipe: dict[str, Any]
    seed: int
    kind: AdapterKind = "avatar"
    fingerprint: str = ""
    """The base's fingerprint, which does not depend on where the base is stored. Older files have none: `base`, the
    source's name, decides there."""

    @property
    def few_step(self) -> bool:
        """Whether this makes the base draw in few steps. Its recipe says how: `draw_steps`, `guidance`, and
        `distillation`, which is consistency where it is missing."""
        return self.kind == "few"

    def fits(self, base: BaseModel) -> bool:
        """Whether this was trained on this base."""
        return self.fingerprint == base.fingerprint if self.fingerprint else self.base == base.source

    def check_base(self, base: BaseModel) -> None:
        """Raises UserError `wrong_base` if this was trained on another base."""
        if not self.fits(base):
            other = ", with other weights" if self.base == base.source else ""
            raise UserError("wrong_base", trained=self.base, used=base.source + other)


def attach_fresh(base: BaseModel, recipe: Recipe, name: str, seed: int) -> list[nn.Parameter]:
    """Put a new LoRA, or LoKr, on the base, and return its float32 parameters to train: on the denoiser unless it is
    fine-tuned in full, and on the text encoders if the recipe says so.

    Its first factor is drawn from `seed`, the second is zero: the adapted model starts as the base (arXiv 2106.09685).
    """
    own = recipe.targets or base.family.adapter_targets
    modules = [
        module
        for module in base.adaptable.values()
        if (recipe.method == "lora" if module is base.unet else recipe.text_encoder)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        for module in modules:
            ends = own if module is base.unet else base.family.text_targets
            lora.attach(module, ends, recipe, name, LokrLayer if recipe.adapter == "lokr" else lora.LoraLayer)
    layers = [layer for module in modules for layer in lora.lora_layers(module).values()]
    return [parameter for layer in layers for parameter in layer.trainable.values()]


def detach(base: BaseModel) -> None:
    """Take the LoRA in training off the base, which is then as it was before."""
    for module in base.adaptable.values():
        lora.detach(module)


def save_lora(base: BaseModel, facts: AdapterFacts, path: Path, token: LearnedToken | None = None) -> None:
    """Write the LoRA in training, and the learned embedding of its token, to `path`, in half precision, complete or
    not at all."""
    tensors, config = _loras(base)
    if token:
        tensors[TOKEN_PREFIX + token.token] = token.vectors
    write(tensors, facts, path, {LORA_METADATA: json.dumps(config)})


def _loras(base: BaseModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The LoRA in training as in a file: tensors and configuration."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, module in base.adaptable.items():
        if lora.lora_layers(module):
            own, facts_of_it = lora.lora_state_dict(module)
            tensors |= {f"{part}.{key}": tensor for key, tensor in own.items()}
            config |= {f"{part}.{key}": value for key, value in facts_of_it.items()}
    return tensors, config


def save_delta(base: BaseModel, before: WeightReader, trained: nn.Module, facts: AdapterFacts, path: Path) -> float:
    """Write full DreamBooth's change of the weights as thin factors, and the text encoders' LoRA, complete or not at
    all. Returns the share of the change that the factors leave out.

    Args:
        base: the base that will draw with them.
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
    halves = {key: half(key, tensor) for key, tensor in tensors.items()}
    with atomic_write(path) as draft:
        save_file(halves, draft, header_of(facts) | extra)


def header_of(facts: AdapterFacts) -> dict[str, str]:
    """The text of an adapter's header that says what it is."""
    return {"format": "pt", "avatar": json.dumps(asdict(facts))}


EXACT = (".left", ".right", ".scale", *applied.MAGNITUDES, applied.INPUT_GAIN, ".dora_scale")
"""The endings of the keys whose tensors keep their dtypes: a delta's factors (int8) and their scales (float32), and
DoRA's magnitudes, since half of the change that they make would be lost in half precision."""


def half(key: str, tensor: Tensor) -> Tensor:
    """A tensor as in a file: on the CPU, in half precision but for those of `EXACT`."""
    return (tensor.detach() if key.endswith(EXACT) else tensor.detach().half()).cpu().contiguous()


@dataclass(frozen=True)
class AdapterFile:
    """An adapter's file. Two are equal if their contents are: each job brings its own copy in its own folder."""

    path: Path = field(compare=False)
    digest: str

    @property
    def facts(self) -> AdapterFacts:
        """What the header says. Raises UserError `bad_adapter` if it is not one of ours."""
        return _facts(self)

    def read(self) -> dict[str, Tensor]:
        """Its tensors. Raises UserError `bad_adapter`."""
        with _readable(self.path):
            return read_tensors(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        """A LoRA's configuration; empty where there is none."""
        config: Mapping[str, Any] = _header(self).get(LORA_METADATA, {})
        return config


def adapter_file(path: Path) -> AdapterFile:
    """The adapter in a file, or in a folder under the name `FILE`.

    Its content is hashed once for each file, as long as the file is not written again.

    Raises:
        UserError: `missing_avatar` if there is none.
    """
    for file in (path, path / FILE):
        try:
            status = file.stat()
        except OSError:
            break
        if stat.S_ISREG(status.st_mode):
            return AdapterFile(file, _digest(file, status.st_ino, status.st_size, status.st_mtime_ns))
    raise UserError("missing_avatar", folder=path)


@lru_cache(maxsize=1024)
def _digest(file: Path, *identity: int) -> str:
    # All bytes are hashed: the files of different people may have equal headers and sizes.
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@lru_cache(maxsize=1024)
def _header(file: AdapterFile) -> Mapping[str, Any]:
    """The header's JSON values. Read once for each content."""
    with _readable(file.path):
        return {key: json.loads(value) for key, value in read_metadata(file.path).items() if value[:1] == "{"}


@lru_cache(maxsize=1024)
def _facts(file: AdapterFile) -> AdapterFacts:
    try:
        return AdapterFacts(**_header(file)["avatar"])
    except (KeyError, TypeError) as error:
        reason = "it does not say what it is; import it: python -m engine import"
        raise UserError("bad_adapter", folder=file.path, reason=reason) from error


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Within, a file that cannot be read raises UserError `bad_adapter`."""
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("bad_adapter", folder=file.parent, reason=str(error)[:120]) from error


def facts_of(path: Path) -> AdapterFacts:
    """What an adapter's file says about itself.

    Raises:
        UserError: `missing_avatar` if there is none, `bad_adapter` if it is not one of ours.
    """
    return adapter_file(path).facts


def read_file(path: Path) -> tuple[AdapterFacts, dict[str, Tensor], Mapping[str, Any]]:
    """What an adapter says about itself, its tensors, and a LoRA's configuration.

    Raises:
        UserError: as `facts_of`.
    """
    file = adapter_file(path)
    return file.facts, file.read(), file.config


Adapters = Sequence[tuple[AdapterFile, float]]
"""The adapters of one row of a batch, and their weights."""


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter on the base's device, ready to be applied."""

    layers: Mapping[str, applied.Adapter]
    """By the part of the base that they belong to."""
    tokens: tuple[LearnedToken, ...]

    @cached_property
    def size(self) -> int:
        """Bytes on the device, without the learned tokens."""
        return sum(tensor.nbytes for part in self.layers.values() for one in part.values() for tensor in one.tensors)


class Attached:
    """The adapters of one base: loads them, applies them to the rows of a batch, and drops those unused longest.

    They are identified by their content, whatever the paths of their files.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._loaded: OrderedDict[AdapterFile, LoadedAdapter] = OrderedDict()
        self._checked: set[AdapterFile] = set()

    @property
    def loaded(self) -> Sequence[LoadedAdapter]:
        """The adapters in the device's memory, the most recently used one last."""
        return tuple(self._loaded.values())

    def checked(self, adapters: Sequence[tuple[Path, float]]) -> Adapters:
        """The files of these adapters, each a file or a folder with one, if this base can be drawn with them.

        Raises:
            UserError: `missing_avatar`, `bad_adapter` or `wrong_base`.
        """
        files = tuple((adapter_file(path), weight) for path, weight in adapters)
        for file, _ in files:
            file.facts.check_base(self.base)
            if file not in self._checked:
                self._load(file)
        return files

    @contextmanager
    def applied(self, rows: Sequence[Adapters], parts: Collection[str] | None = None) -> Iterator[Any]:
        """Within, exactly the adapters of rows[n] apply to row n of each batch through the denoiser or a text encoder.

        A batch of a multiple of len(rows) repeats them in the same order. A LoRA in training and its token are
        switched off meanwhile.

        Args:
            rows: as `checked` gives them.
            parts: the base's parts that will be used; all by default.
        Yields:
            The denoiser.
        Raises:
            UserError: `bad_adapter`, where a file was removed since it was checked.
        """
        loaded = {file: self._load(file) for file in dict.fromkeys(file for row in rows for file, _ in row)}
        modules = self.base.adaptable
        copied = small(self.base) and len(rows) <= COPIED_ROWS
        tokens = [[(token, weight) for file, weight in row for token in loaded[file].tokens] for row in rows]
        with ExitStack() as contexts:
            with one_core(self.base):
                contexts.enter_context(lora.switched_off(*modules.values()))
                for part, module in modules.items():
                    if parts is None or part in parts:
                        layers = [[(loaded[file].layers[part], weight) for file, weight in row] for row in rows]
                        contexts.enter_context(applied.apply_adapters(module, layers, copied))
                contexts.enter_context(apply_learned_tokens(self.base, tokens))
            yield self.base.unet

    def _load(self, file: AdapterFile) -> LoadedAdapter:
        """The adapter, from memory if it is there."""
        if file in self._loaded:
            self._loaded.move_to_end(file)
            return self._loaded[file]
        try:
            self._loaded[file] = loaded = self._read(file)
        except ValueError as error:
            raise UserError("bad_adapter", folder=file.path.parent, reason=str(error)[:120]) from error
        self._checked.add(file)
        while len(self._loaded) > 1 and (
            len(self._loaded) > RESIDENT or sum(one.size for one in self._loaded.values()) > RESIDENT_BYTES
        ):
            self._loaded.popitem(last=False)
        return loaded

    def _read(self, file: AdapterFile) -> LoadedAdapter:
        """The adapter in this file. Raises ValueError for what does not belong to the base."""
        base, facts, tensors, config = self.base, file.facts, file.read(), file.config
        prefixes = {part: f"{part}." for part in base.adaptable}
        if unknown := [name for name in tensors if not name.startswith((*prefixes.values(), TOKEN_PREFIX))]:
            raise ValueError(f"{unknown[0]} is no part of this base")
        layers: dict[str, applied.Adapter] = {}
        for part, prefix in prefixes.items():
            own, module = below(tensors, prefix), base.adaptable[part]
            # The dtype of the computation: a denoiser draws under autocast.
            dtype = precision.compute_dtype(base.device) if module is base.unet else base.dtype_of(module)
            layers[part] = (
                read_delta(own, module, base.device, dtype)
                if facts.method == "dreambooth" and module is base.unet
                else applied.read_lora(own, below(config, prefix), module, base.device, dtype)
            )
        tokens = [LearnedToken(base, token, vectors) for token, vectors in below(tensors, TOKEN_PREFIX).items()]
        return LoadedAdapter(layers, tuple(tokens))


def below(values: Mapping[str, Any], start: str) -> dict[str, Any]:
    """The values whose keys begin with `start`, by the rest of the key."""
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
