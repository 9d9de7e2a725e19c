"""Import and export of adapters: diffusers' names, and those of kohya's scripts, the WebUI, ComfyUI and others.

Both directions use one table of each layer's names in the other programs (`engine.adapters.names`). A layer that is not
in the table is refused, never skipped; what a file has beside its layers is left out with a note. Only safetensors
files are read.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.adapters.adapters import (
    LORA_METADATA,
    TOKEN_PREFIX,
    AdapterFacts,
    AdapterKind,
    Attached,
    adapter_file,
    below,
    half,
    header_of,
    read_file,
    write,
)
from engine.adapters.applied import (
    INPUT_GAIN,
    MAGNITUDES,
    apply_each,
    pattern_value,
    ratio,
    read_lora,
    scale_of,
    shape_of,
    weight_of,
)
from engine.adapters.card import Format, card, person_of
from engine.adapters.lora import config_of
from engine.adapters.low_rank import (
    KINDS,
    ROLES,
    Parts,
    Scaling,
    balanced,
    exact_rank,
    kind_of,
    low_rank,
    nearest,
    shaped,
    shortest,
)
from engine.adapters.names import (
    FLUX2_SWAPPED,
    FileNames,
    Layer,
    canonical,
    foreign_names,
    fused_foreign_names,
    layers_of,
    with_text_model,
)
from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.device import precision
from engine.device.fast import small
from engine.tensor_files import copy_tensors, read_metadata, read_tensors
from storage.atomic import atomic_write
from storage.errors import UserError

LARGEST = 2**31
"""Most bytes of an imported adapter, which is as much as the device's memory keeps for adapters."""

NOT_FINITE = "it has numbers that are not finite or too large, so pictures would be black"

RANKS = (256, 128, 64, 32, 16, 8)
"""Ranks that are proposed where the exact ones are too large."""

_KEY = re.compile("(.+?)(?:" + "|".join(f"(?P<{role}>{ends})" for role, ends in ROLES) + ")")
_NORMS = re.compile(r".+\.(?:[wb]_norm|diff_b|lora_B(?:\.\w+)?\.bias)")
_REFUSED = {kind: re.compile(f"(.+?)(?:{ends})") for kind, ends in KINDS.items()}


@dataclass(frozen=True)
class Pair:
    """A layer's LoRA in an adapter of this engine."""

    down: Tensor
    """A (r, in, ...)."""
    up: Tensor
    """B (out, r, ...)."""
    scale: float = 1.0
    """The scale of B A."""
    magnitude: Tensor | None = None
    """DoRA's magnitudes (out,), where they are of outputs."""
    input_gain: Tensor | None = None
    """(in,), float32: added to 1, it scales the inputs of the layer's own weight (DoRA whose magnitudes are of inputs;
    A is scaled already)."""
    sources: tuple[str, str] | None = None
    """The keys of A and B in the file, where both are as there."""


@dataclass(frozen=True)
class Imported:
    """What an import found."""

    layers: int
    """Layers that are adapted."""
    kinds: Mapping[str, int]
    """Layers by kind, such as "LoHa"."""
    notes: tuple[str, ...]
    """What was left out or taken for granted, a sentence each."""
    error: float
    """|D - D'| / |D| over all layers together: 0 for the exact change D, more where its rank was reduced."""


def export(
    base: BaseModel,
    adapter: Path,
    form: Format,
    out: Path,
    licence: str = "",
    thumbnail: Image.Image | Path | None = None,
) -> int:
    """Write the LoRA in `adapter` to `out` under the names of `form`, with its card. Returns its number of layers.

    Args:
        licence: of the file, for its card.
        thumbnail: a picture for its card.
    Raises:
        UserError: `missing_avatar`, `bad_adapter`, `not_a_lora` for full DreamBooth, `word_stays` for a learned token
            embedding in a format that cannot hold one, `magnitudes_stay` for DoRA in one that cannot hold it, or
            `bad_original` for a thumbnail that is no picture.
    """
    facts, tensors, config = read_file(adapter)
    if facts.method != "lora":
        raise UserError("not_a_lora", folder=adapter)
    facts.check_base(base)
    known = layers_of(base)
    pairs = {layer: found for layer in known if (found := _pair(tensors, config, layer))}
    # diffusers knows no magnitudes of inputs, and a fused layer has one for each input where its parts may have others.
    of_inputs = any(pair.input_gain is not None for pair in pairs.values())
    if of_inputs and (form == "diffusers" or base.family.denoiser == "transformer"):
        raise UserError("magnitudes_stay", folder=adapter, format=form)
    sizes: dict[str, set[float]] = {
        "rank": {len(pair.down) for pair in pairs.values()},
        "alpha": {round(pair.scale * len(pair.down), 4) for pair in pairs.values()},
    }
    learned = datetime.fromtimestamp(adapter_file(adapter).path.stat().st_mtime, UTC)
    header = card(base, facts, form, sizes, learned, licence, thumbnail)
    if form == "diffusers":
        _save(_for_diffusers(base, tensors), out, header | {LORA_METADATA: json.dumps(config)})
        return len(pairs)
    if any(key.startswith(TOKEN_PREFIX) for key in tensors):
        raise UserError("word_stays", folder=adapter)
    _save(_for_kohya(base, pairs, known), out, header)
    return len(pairs)


def export_all(base: BaseModel, adapter: Path, folder: Path, thumbnail: Image.Image | None = None) -> dict[str, Path]:
    """Write the adapter to `folder` in each format that can hold it. Returns the files by format; none for full
    DreamBooth.

    Raises:
        UserError: `missing_avatar`, `bad_adapter` or `wrong_base`.
    """
    files: dict[str, Path] = {}
    for form in get_args(Format):
        file = folder / f"{form}{adapter.suffix}"
        try:
            export(base, adapter, form, file, thumbnail=thumbnail)
        except UserError as error:
            # A disk that is full loses no training.
            if error.code not in ("not_a_lora", "word_stays", "magnitudes_stay", "disk_full"):
                raise
        else:
            files[form] = file
    return files


def _for_diffusers(base: BaseModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that diffusers reads with transformers 4 as well as 5."""
    named = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        text = part != base.family.denoiser and part in base.adaptable
        named[f"{part}.{with_text_model(name)}" if text else key] = tensor
    return named


def _for_kohya(base: BaseModel, pairs: Mapping[Layer, Pair], known: Mapping[Layer, nn.Module]) -> dict[str, Tensor]:
    """The tensors under the names of kohya's scripts, or for a transformer under those of its own code."""
    names, written = foreign_names(base), dict[str, Tensor]()
    for layer in pairs.keys() & names.keys():  # the others are fused
        name, pair = names[layer], pairs[layer]
        down = _unscaled(pair)
        up = _other_half_first(pair.up) if layer[1] == FLUX2_SWAPPED else pair.up
        if layer[0] == "transformer":
            written |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * pair.scale}
        else:
            alpha = torch.tensor(pair.scale * len(down))
            written |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}
        magnitudes = _dora_scale(pair, down, weight_of(known[layer]).float().cpu())
        if magnitudes is not None:
            swap = layer[1] == FLUX2_SWAPPED and len(magnitudes) > 1
            written[f"{name}.dora_scale"] = _other_half_first(magnitudes) if swap else magnitudes
    for name, several in fused_foreign_names(base).items():
        if any(layer in pairs for layer in several):
            weights = [weight_of(known[layer]).float().cpu() for layer in several]
            written |= _fused(name, [pairs.get(layer) for layer in several], weights)
    return written


def _other_half_first(tensor: Tensor) -> Tensor:
    return tensor.roll(len(tensor) // 2, 0)


def _dora_scale(pair: Pair, down: Tensor, weight: Tensor) -> Tensor | None:
    """A layer's magnitudes as lycoris-lora and the WebUI have them: (out, 1, ...) of outputs, (1, in, ...) of inputs.

    Args:
        down: A without the scale of the inputs.
        weight: W, float32.
    """
    ones = [1] * (weight.ndim - 2)
    if pair.magnitude is not None:
        return pair.magnitude.float().reshape(-1, 1, *ones)
    if pair.input_gain is None:
        return None
    lengths = _column_norms(weight + pair.scale * _product(down, pair.up).reshape(weight.shape))
    return (lengths * (1 + pair.input_gain.float())).reshape(1, -1, *ones)


def _column_norms(weight: Tensor) -> Tensor:
    """(in,): the norm of all that each input is multiplied by."""
    norms: Tensor = torch.linalg.vector_norm(weight.transpose(0, 1).flatten(1), dim=1)
    return norms


def _product(down: Tensor, up: Tensor) -> Tensor:
    """B A, float32 (out, in ...), flattened."""
    product: Tensor = up.float().flatten(1) @ down.float().flatten(1)
    return product


def _unscaled(pair: Pair) -> Tensor:
    """A before the inputs' scale was multiplied into it."""
    if pair.input_gain is None:
        return pair.down
    factor = 1 + pair.input_gain.float()
    down: Tensor = pair.down.float() / factor.where(factor != 0, 1.0).reshape(1, -1, *[1] * (pair.down.ndim - 2))
    return down


def _pair(tensors: Mapping[str, Tensor], config: Mapping[str, Any], layer: Layer) -> Pair | None:
    part, name = layer
    start = f"{part}.{name}"
    down = tensors.get(f"{start}.lora_A.weight")
    if down is None:
        return None
    magnitude = next((tensors[start + end] for end in MAGNITUDES if start + end in tensors), None)
    return Pair(
        down,
        tensors[f"{start}.lora_B.weight"],
        scale_of(below(config, f"{part}."), name, len(down)),
        None if magnitude is None else magnitude.flatten(),
        tensors.get(start + INPUT_GAIN),
    )


def _fused(name: str, pairs: list[Pair | None], weights: list[Tensor]) -> dict[str, Tensor]:
    """The tensors of one fused layer: the A of these layers concatenated, their B as a block diagonal, scales included.

    Args:
        name: of the fused layer.
        pairs: of each layer; None without a LoRA.
        weights: of each layer, float32 (out, in).
    """
    downs = [pair.down for pair in pairs if pair]
    ups = [
        pair.up * pair.scale if pair else torch.zeros(len(weight), 0, dtype=downs[0].dtype)
        for pair, weight in zip(pairs, weights, strict=True)
    ]
    found = {f"{name}.lora_A.weight": torch.cat(downs), f"{name}.lora_B.weight": torch.block_diag(*ups)}
    if any(pair and pair.magnitude is not None for pair in pairs):
        # A layer without magnitudes keeps the norms that it has.
        norms = [
            (weight if pair is None else weight + pair.scale * _product(pair.down, pair.up)).norm(dim=1)
            if pair is None or pair.magnitude is None
            else pair.magnitude.float()
            for pair, weight in zip(pairs, weights, strict=True)
        ]
        found[f"{name}.dora_scale"] = torch.cat(norms)[:, None]
    return found


def _save(tensors: Mapping[str, Tensor], out: Path, metadata: dict[str, str]) -> None:
    with atomic_write(out) as draft:
        save_file({key: half(key, tensor) for key, tensor in tensors.items()}, draft, {"format": "pt"} | metadata)


def import_lora(base: BaseModel, file: Path, facts: AdapterFacts, out: Path, rank: int | None = None) -> Imported:
    """Write another program's adapter file as an adapter of this engine, which was applied to the base once.

    LoRA, LoCon, LoHa and LoKr are read, with DoRA's magnitudes of outputs or inputs, of any of torch's floating-point
    dtypes, under the names of `engine.adapters.names`.

    Args:
        rank: the largest rank of a layer, whose change is then the nearest one of that rank; None for the exact change.
    Raises:
        UserError: `no_file`, `bad_adapter` where the file is no adapter for this base, or `rank_too_large`.
    """
    if not file.is_file():
        raise UserError("no_file", file=file)
    new = not out.parent.exists()
    try:
        found = _read(base, file)
        if rank is None and (bytes_needed := found.bytes(None)) > LARGEST:
            nearest_rank = next((one for one in RANKS if found.bytes(one) <= LARGEST), RANKS[-1])
            error = _missed(found.pairs(nearest_rank, {}))
            raise UserError(
                "rank_too_large",
                gigabytes=round(bytes_needed / 1e9, 1),
                most=round(LARGEST / 1e9, 1),
                rank=nearest_rank,
                percent=round(100 * error, 1),
            )
        kinds: dict[str, int] = {}
        kept, lost, whole = dict[Layer, Pair](), 0.0, 0.0
        for layer, pair, energies in found.pairs(rank, kinds):
            if layer in kept:
                raise ValueError(f"it changes {layer[1]} under two names")
            kept[layer] = pair
            lost, whole = lost + energies[0], whole + energies[1]
        with atomic_write(out) as draft:
            # What is copied is checked meanwhile: writing waits for the disk.
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(_write, kept, found.tokens, facts, draft, file)
                _check_copied(kept)
                if large := base.device.type == "cpu" and not small(base):
                    _apply_each(base, kept)
                writing.result()
            if not large:
                predict_once(base, draft)
    except (SafetensorError, OSError, ValueError) as error:
        if new:
            with suppress(OSError):
                out.parent.rmdir()
        raise UserError("bad_adapter", folder=file, reason=str(error)[:200]) from error
    return Imported(len(kept), kinds, found.notes, (lost / whole) ** 0.5 if whole else 0.0)


def _missed(pairs: "Iterator[tuple[Layer, Pair, tuple[float, float]]]") -> float:
    lost, whole = 0.0, 0.0
    for _, _, energies in pairs:
        lost, whole = lost + energies[0], whole + energies[1]
    return (lost / whole) ** 0.5 if whole else 0.0


def _write(
    pairs: Mapping[Layer, Pair], tokens: Mapping[str, Tensor], facts: AdapterFacts, path: Path, source: Path
) -> None:
    """Write the adapter. Where all is as in the source, its bytes are copied, which is faster than reading them."""
    configs = dict[str, Any]()
    for part in {part for part, _ in pairs}:
        ranks = {name: len(pair.down) for (owner, name), pair in pairs.items() if owner == part}
        alphas = {name: pairs[part, name].scale * rank for name, rank in ranks.items()}
        own = config_of(ranks, alphas, dora=any(pairs[part, name].magnitude is not None for name in ranks))
        configs |= {f"{part}.{key}": value for key, value in own.items()}
    extra = {LORA_METADATA: json.dumps(configs)}
    names: dict[str, str] = {}
    for (part, name), pair in pairs.items():
        if pair.sources:
            names |= {
                pair.sources[0]: f"{part}.{name}.lora_A.weight",
                pair.sources[1]: f"{part}.{name}.lora_B.weight",
            }
    if not tokens and len(names) == 2 * len(pairs):
        copy_tensors(source, names, header_of(facts) | extra, path)
        return
    kept = dict(tokens)
    for (part, name), pair in pairs.items():
        kept |= {f"{part}.{name}.lora_A.weight": pair.down, f"{part}.{name}.lora_B.weight": pair.up}
        if pair.magnitude is not None:
            kept[f"{part}.{name}{MAGNITUDES[0]}"] = pair.magnitude
        if pair.input_gain is not None:
            kept[f"{part}.{name}{INPUT_GAIN}"] = pair.input_gain
    write(kept, facts, path, extra)


def _check_copied(pairs: Mapping[Layer, Pair]) -> None:
    """Raises ValueError where a LoRA that stays as the file has it has numbers that are not finite."""
    for (_, name), pair in pairs.items():
        if pair.sources:
            # The least or the largest number is not finite if any is not: in a tenth of the time of asking each.
            extremes = [float(one) for tensor in (pair.down, pair.up) for one in torch.aminmax(tensor)]
            if not all(map(math.isfinite, [*extremes, pair.scale])):
                raise ValueError(f"{name}: {NOT_FINITE}")


def _apply_each(base: BaseModel, pairs: Mapping[Layer, Pair]) -> None:
    """Apply the first rank of each layer once by itself, which a large base on a CPU does in no time.

    Raises:
        ValueError: one cannot be applied.
    """
    for part, module in base.adaptable.items():
        tensors: dict[str, Tensor] = {}
        for (owner, name), pair in pairs.items():
            if owner == part:
                tensors |= {f"{name}.lora_A.weight": pair.down[:1], f"{name}.lora_B.weight": pair.up[:, :1]}
                tensors |= {name + MAGNITUDES[0]: pair.magnitude} if pair.magnitude is not None else {}
                tensors |= {name + INPUT_GAIN: pair.input_gain} if pair.input_gain is not None else {}
        apply_each(module, read_lora(tensors, {}, module, base.device, torch.float32))


def predict_once(base: BaseModel, file: Path) -> None:
    """Predict once with the adapter in `file`, on the smallest latents, so that what cannot be drawn is seen at once.

    Raises:
        ValueError: it does not fit the base, or the prediction is not finite.
    """
    attached = Attached(base)
    try:
        rows = [attached.checked([(file, 1.0)])]
        with torch.no_grad(), attached.applied(rows) as denoiser, precision.autocast(base.device):
            if base.family.text_targets:
                conditioning = base.encode_prompts(["a photo"])
            else:
                width = base.unet.config.joint_attention_dim
                conditioning = Conditioning(torch.zeros(1, 8, width, device=base.device, dtype=base.dtype))
            shape = base.latent_shape(*[8 * base.multiple] * 2)
            latents = torch.zeros(1, *shape, device=base.device)
            predicted = base.predict(denoiser, latents, torch.full((1,), 500, device=base.device), conditioning)
    except (UserError, RuntimeError) as error:
        reason = error.facts.get("reason", error.code) if isinstance(error, UserError) else str(error)
        raise ValueError(f"the base model cannot draw with it: {reason}") from error
    if not bool(predicted.isfinite().all()):
        raise ValueError("with it the base model predicts numbers that are not finite, so pictures would be black")


@dataclass(frozen=True)
class _File:
    """An adapter file's layers, by the layers of the base."""

    known: Mapping[Layer, nn.Module]
    """The layers of the base."""
    layers: Mapping[tuple[Layer, ...], tuple[str, Parts]]
    """The layers of the base that one layer in the file is for, its name there, and its tensors."""
    keys: Mapping[str, Mapping[str, str]]
    """The keys of a layer's tensors, by the layer's name in the file and by role."""
    config: Mapping[str, Any]
    tokens: Mapping[str, Tensor]
    notes: tuple[str, ...]

    def bytes(self, rank: int | None) -> int:
        """Bytes in half precision of all factors, of at most `rank`. Raises ValueError."""
        size = 0
        for several, (name, parts) in self.layers.items():
            try:
                exact = exact_rank(parts)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"{name} lacks a factor") from error
            for layer in several:
                out, *into = shape_of(self.known[layer])
                sides = out, math.prod(into)
                size += 2 * sum(sides) * min(exact, *sides, rank or exact)
        return size

    def pairs(self, rank: int | None, kinds: dict[str, int]) -> Iterator[tuple[Layer, Pair, tuple[float, float]]]:
        """Each layer's LoRA, of at most `rank`, and |B A - B' A'|^2 and |B A|^2, which are 0 if `rank` is None.

        Args:
            kinds: counts layers by kind.
        Raises:
            ValueError: naming the layer in the file.
        """
        for several, (name, parts) in self.layers.items():
            try:
                as_is = self._as_it_is(several, name, parts) if rank is None else None
                if as_is is not None:
                    yield several[0], as_is, (0.0, 0.0)
                    pairs = []
                else:
                    pairs = self._pairs(several, name, parts)
                for layer, pair in zip(several, pairs, strict=False):
                    limited, lost, whole = _limited(pair, rank)
                    _check_finite(limited.down.half(), limited.up.half(), limited.input_gain)
                    yield layer, limited, (lost, whole)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            kind = kind_of(parts)
            kinds[kind] = kinds.get(kind, 0) + len(several)

    def _as_it_is(self, several: tuple[Layer, ...], name_in_file: str, parts: Parts) -> Pair | None:
        """The LoRA of a layer that can stay as the file has it: in half precision and of this layer's shape."""
        (part, name), layer = several[0], self.known[several[0]]
        down, up = parts.get("down"), parts.get("up")
        plain = parts.keys() <= {"down", "up", "alpha"} and len(several) == 1 and name != FLUX2_SWAPPED
        if down is None or up is None or not plain or {down.dtype, up.dtype} != {torch.float16}:
            return None
        out, *into = shape_of(layer)
        if list(down.shape[1:]) != into or up.shape[:2] != (out, len(down)) or not len(down):
            return None
        own = parts.get("alpha")
        scale = self._scaling((part, name))(len(down)) if own is None else float(own) / len(down)
        down_key, up_key = self.keys[name_in_file]["down"], self.keys[name_in_file]["up"]
        return Pair(down, up, scale, sources=(down_key, up_key))

    def _pairs(self, several: tuple[Layer, ...], name: str, parts: Parts) -> list[Pair]:
        shapes = [shape_of(self.known[layer]) for layer in several]
        down, up = low_rank(parts, self._scaling(several[0]))
        _check_finite(down, up, parts.get("dora_scale"), parts.get("magnitude"))
        down, sizes = shaped(down, shapes[0][1:]), [shape[0] for shape in shapes]
        if len(up) != sum(sizes):
            raise ValueError("it has other sizes in this base")
        swap = several[0][1] == FLUX2_SWAPPED and canonical(name).endswith("adaLN_modulation_1")
        magnitude, gain = None, None
        if (given := parts.get("dora_scale", parts.get("magnitude"))) is not None:
            weight = torch.cat([weight_of(self.known[layer]).float().cpu() for layer in several])
            weight = _other_half_first(weight) if swap else weight
            of_outputs = "magnitude" in parts and given.ndim != 2
            if magnitudes_of_inputs(given, weight) and not of_outputs:
                norms = _column_norms(weight + _product(down, up).reshape(weight.shape))
                share = ratio(given.float().flatten(), norms)
                down, gain = down * share.reshape(1, -1, *[1] * (down.ndim - 2)), share - 1
            else:
                magnitude = given.float().flatten()
        if "input_gain" in parts:
            gain = parts["input_gain"].float()
        if swap:
            up, magnitude = _other_half_first(up), None if magnitude is None else _other_half_first(magnitude)
        magnitudes = [None] * len(several) if magnitude is None else magnitude.split(sizes)
        return [
            # Copies, since a file's tensors must not share memory.
            Pair(
                *balanced(*shortest(down, own)),
                magnitude=None if own_magnitude is None else own_magnitude.clone(),
                input_gain=None if gain is None else gain.clone(),
            )
            for own, own_magnitude in zip(up.split(sizes), magnitudes, strict=True)
        ]

    def _scaling(self, layer: Layer) -> Scaling:
        """The scale of a layer by its rank, from the file's configuration; 1 without a configuration."""
        part, name = layer
        settings = below(self.config, f"{part}.") or (self.config if "peft_type" in self.config else {})
        bare = name.removeprefix("text_model.")

        def scaling(rank: int) -> float:
            if not settings:
                return 1.0
            rank = rank or int(pattern_value(settings.get("rank_pattern"), name, settings.get("r", 1)))
            # Text encoders have "text_model" in their names or not, by the version of transformers.
            names = [name] if part == "unet" or part == "transformer" else [name, bare, f"text_model.{bare}"]
            alphas = settings.get("alpha_pattern")
            matching = [one for one in names if not math.isnan(pattern_value(alphas, one, math.nan))]
            return scale_of(settings, (matching or names)[0], rank)

        return scaling


def _limited(pair: Pair, rank: int | None) -> tuple[Pair, float, float]:
    if rank is None:
        return pair, 0.0, 0.0
    down, up, lost = nearest(pair.down, pair.up, rank)
    whole = float(_product(pair.down, pair.up).square().sum())
    return replace(pair, down=down, up=up), lost, whole


def _check_finite(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and not bool(tensor.float().isfinite().all()):
            raise ValueError(NOT_FINITE)


def magnitudes_of_inputs(magnitudes: Tensor, weight: Tensor) -> bool:
    """Whether DoRA's magnitudes are of the inputs, as OneTrainer's are by default, and not of the outputs.

    Files say it by the shape alone: (1, in, ...) or (out, 1, ...).

    Raises:
        ValueError: they are neither.
    """
    out, into = weight.shape[:2]
    shape = tuple(magnitudes.shape)
    if magnitudes.numel() == into and (shape[:2] == (1, into) if len(shape) > 1 else into != out):
        return True
    if magnitudes.numel() == out:
        return False
    raise ValueError(f"its DoRA magnitudes {shape} are neither of its {out} outputs nor of its {into} inputs")


def _read(base: BaseModel, file: Path) -> _File:
    """Raises ValueError for a layer that is not in this base, or of a kind that is not read."""
    if file.suffix in (".pt", ".ckpt", ".bin", ".pth"):
        raise ValueError("it is a pickle, which can run any program; only .safetensors files are read")
    tensors, config = read_tensors(file), _config(file)
    tokens = {key: tensors.pop(key) for key in list(tensors) if key.startswith(TOKEN_PREFIX)}
    names, found, keys, others = (
        FileNames(base),
        dict[str, dict[str, Tensor]](),
        dict[str, dict[str, str]](),
        list[str](),
    )
    for key, tensor in tensors.items():
        if match := _KEY.fullmatch(key):
            found.setdefault(match[1], {})[str(match.lastgroup)] = tensor
            keys.setdefault(match[1], {})[str(match.lastgroup)] = key
        else:
            for kind, pattern in _REFUSED.items():
                if (match := pattern.fullmatch(key)) and next(names.candidates(match[1]), None):
                    raise ValueError(f"it is of the kind {kind} ({key}), and LoRA, LoCon, LoHa and LoKr are read")
            others.append(key)
    layers, elsewhere = dict[tuple[Layer, ...], tuple[str, Parts]](), list[str]()
    known = layers_of(base)
    for name, parts in found.items():
        candidates = list(names.candidates(name))
        if not candidates and names.elsewhere(name):
            elsewhere.append(name)
        elif not candidates:
            raise ValueError(f"{name} is no layer of this base, so it was trained on another kind of base model")
        else:
            fitting = next((one for one in candidates if _fits(parts, [known[layer] for layer in one])), candidates[0])
            if fitting in layers:
                raise ValueError(f"{name} and {layers[fitting][0]} are the same layer")
            layers[fitting] = name, parts
    if not layers:
        raise ValueError("it has no layers for this base" if found else "it is no LoRA: it has no layers")
    notes = []
    if elsewhere:
        notes.append(f"Layers of parts that this base model does not adapt were left out: {_listed(elsewhere)}.")
    if changed := [key for key in others if _NORMS.fullmatch(key)]:
        others = [key for key in others if key not in changed]
        notes.append(f"Changes of norms and biases were left out, so pictures differ a little: {_listed(changed)}.")
    if others:
        notes.append(f"Tensors that are no part of a LoRA were left out: {_listed(others)}.")
    if any(name.startswith("base_model.model.") for name in found) and not config:
        notes.append("There is no adapter_config.json beside the file, so its LoRA's scale was taken as 1.")
    return _File(known, layers, keys, config, tokens, tuple(notes))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _config(file: Path) -> dict[str, Any]:
    """The configuration in the file's header, or of peft beside it. Raises ValueError where it is no JSON object."""
    text = read_metadata(file).get(LORA_METADATA)
    beside = file.parent / "adapter_config.json"
    if text is None and beside.is_file():
        text = beside.read_text("utf-8")
    config = json.loads(text or "{}")
    if not isinstance(config, dict):
        raise ValueError("its configuration is no JSON object")
    return config


def _fits(parts: Parts, layers: list[nn.Module]) -> bool:
    """Whether these tensors have the outputs of these layers, as far as can be seen without multiplying them."""
    out = sum(shape_of(layer)[0] for layer in layers)
    up = parts.get("up")
    return up is None or len(up) == out


def person_in(file: Path) -> tuple[str, str] | None:
    """Token and class noun of the person that a file's card names; None where it names none, or cannot be read.

    Raises:
        UserError: `minor`.
    """
    try:
        return person_of(read_metadata(file))
    except (SafetensorError, OSError):
        return None


def imported_facts(base: BaseModel, kind: AdapterKind, token: str = "", noun: str = "") -> AdapterFacts:
    """The facts of an adapter that another program trained."""
    return AdapterFacts(token, noun, "lora", base.source, {"imported": True}, 0, kind, base.fingerprint)
