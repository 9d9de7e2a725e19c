"""Train what reads looks from photos: `python -m engine.pretraining.looks --photos DIR --work DIR --out FILE`.

1. Labelled people (`looks_labels.json`) are varied: light, camera, pose, background, drawn glasses and hats, dyed hair.
2. A small network learns to find hair and skin, from studio photos whose background is plain.
3. The features of all pictures are computed (`engine.photos.looks_features`).
4. A linear head for each attribute is fitted, and everything is written to one file for numpy.

What is done is kept in the work folder, so a stopped run goes on where it was.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from engine.photos.alignment import landmarks
from engine.photos.decoding import load_photo
from engine.photos.face_network import SIDE, Array
from engine.photos.faces import find_faces
from engine.photos.head_parts import CHANNELS, WIDTHS, small
from engine.photos.looks_features import FACE_PADDING, HEAD_PADDING, balanced, features, squares, white_balance
from engine.photos.looks_model import CLASSES, FILE, read_parts
from engine.pretraining.looks_pictures import (
    Canvas,
    backdrop,
    canvas_of,
    dressed,
    dyed,
    jitter,
    photographed,
    posed,
    with_glasses,
    with_hat,
    with_parts,
)
from storage.atomic import atomic_write

LABELS = Path(__file__).with_name("looks_labels.json")
STUDIO = "london"
"""The source whose photos have a plain background and white shirts."""
PLAIN = (STUDIO, "canada")
"""Sources with a plain background."""


# 1. Pictures


@dataclass
class Varied:
    """The pictures of one person."""

    faces: list[Image.Image]
    heads: list[Image.Image]
    parts: list[NDArray[np.uint8]]
    """Of each head: 0 other, 1 hair, 2 skin, (150, 150), or (0, 0) where unknown."""
    changes: list[dict[str, Any]]
    """Of each picture, what differs from the person's labels."""

    def add(self, face: Image.Image, head: Image.Image, parts: NDArray[np.uint8], changes: dict[str, Any]) -> None:
        """Add a picture."""
        self.faces.append(face)
        self.heads.append(head)
        self.parts.append(parts)
        self.changes.append(changes)


def varied(row: Mapping[str, Any], folder: Path, scenery: Sequence[Image.Image], count: int) -> Varied:
    """The photos of a labelled person as they are and `count` variations of them, at random but always the same."""
    random = Random(row["person"])
    made = Varied([], [], [], [])
    for name in row["files"]:
        photo = load_photo((folder / name).read_bytes())
        faces = [face for face in find_faces(photo) if not face.turn]
        if not faces:
            continue
        points = landmarks(photo, faces[0])
        face, head = squares(photo, points)
        made.add(face, head, np.zeros((0, 0), np.uint8), {"plain": True})
        canvas = canvas_of(photo, points, plain=row["source"].startswith(PLAIN))
        if row["source"].startswith(STUDIO):
            canvas = with_parts(canvas, bald="bald" in (row["hair_length"] or ()))
        for _ in range(count // len(row["files"])):
            _vary(canvas, row, random, scenery, made)
    return made


def _vary(canvas: Canvas, row: Mapping[str, Any], random: Random, scenery: Sequence[Image.Image], made: Varied) -> None:
    """Add one variation of a canvas."""
    changes: dict[str, Any] = {}
    parts = canvas.parts
    hairy = parts is not None and bool((parts == 1).sum() > 1500)
    if hairy and random.random() < 0.4:
        picture, changes["hair_colour"] = dyed(canvas, random)
        canvas = replace(canvas, picture=picture)
    if parts is not None and random.random() < 0.8:
        canvas = replace(canvas, picture=dressed(canvas, random))
    if canvas.backdrop is not None and random.random() < 0.8:
        picture = canvas.picture.copy()
        picture.paste(backdrop(random, scenery), (0, 0), canvas.backdrop)
        canvas = replace(canvas, picture=picture)
    if random.random() < 0.4:
        picture, dark = with_glasses(canvas, random)
        canvas = replace(canvas, picture=picture)
        changes["glasses"] = "sunglasses" if dark else "glasses"
    if random.random() < 0.07:
        canvas = replace(canvas, picture=with_hat(canvas, random), parts=None)
        changes["covered"] = True
    off = jitter(random)
    mirrored = random.random() < 0.5
    picture = photographed(canvas.picture, random)
    face, head = (posed(canvas, picture, SIDE, padding, off) for padding in (FACE_PADDING, HEAD_PADDING))
    if mirrored:
        face, head = (square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for square in (face, head))
    found = np.zeros((0, 0), np.uint8)
    if canvas.parts is not None:
        inside = np.full_like(canvas.parts, 255)
        layers = [(canvas.parts == 1) * 255, (canvas.parts == 2) * 255, inside]
        shades = Image.fromarray(np.stack(layers, axis=-1).astype(np.uint8))
        moved = np.asarray(posed(canvas, shades, SIDE, HEAD_PADDING, off))
        moved = moved[:, ::-1] if mirrored else moved
        found = np.where(moved[..., 2] < 190, 0, np.where(moved[..., 0] > 127, 1, np.where(moved[..., 1] > 127, 2, 0)))
    made.add(face, head, found.astype(np.uint8), changes)


def load_scenery(folder: Path | None) -> list[Image.Image]:
    """Photos of things whose parts become backgrounds, at most 512 pixels wide; none without a folder."""
    photos = list[Image.Image]()
    for path in sorted(folder.rglob("*.jpg")) if folder else []:
        photo = load_photo(path.read_bytes())
        photo.thumbnail((512, 512))
        photos.append(photo)
    return photos


def make_pictures(
    rows: Sequence[Mapping[str, Any]], photos: Path, scenery: Path | None, work: Path, count: int
) -> None:
    """Write each person's variations to `work`, those that are missing."""
    things = load_scenery(scenery)
    for row in rows:
        file = work / "pictures" / f"{row['person']}.npz"
        if file.exists():
            continue
        made = varied(row, photos, things, count)
        if not made.faces:
            print(f"no face in {row['files']}")
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        parts = [found if found.size else np.full((SIDE, SIDE), 255, np.uint8) for found in made.parts]
        np.savez_compressed(
            part,
            faces=np.stack([np.asarray(face) for face in made.faces]),
            heads=np.stack([np.asarray(head) for head in made.heads]),
            parts=np.stack(parts),
            changes=json.dumps(made.changes),
        )
        part.replace(file)


# 2. Hair and skin


class _Block(nn.Sequential):
    """A 3 x 3 convolution, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Parts(nn.Module):
    """`engine.photos.head_parts.PartsNetwork`, to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(*sides) for sides in CHANNELS)
        self.last = nn.Conv2d(WIDTHS[0], 3, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 3, 64, 64) from -0.5 to 0.5 to logits (B, 3, 64, 64)."""
        kept = list[Tensor]()
        for level in range(4):
            maps = self.layers[2 * level + 1](self.layers[2 * level](maps))
            if level < 3:
                kept.append(maps)
                maps = F.avg_pool2d(maps, 2)
        for level in range(4, 7):
            maps = torch.cat([F.interpolate(maps, scale_factor=2), kept.pop()], dim=1)
            maps = self.layers[2 * level + 1](self.layers[2 * level](maps))
        logits: Tensor = self.last(maps)
        return logits

    def exported(self) -> dict[str, Array]:
        """The weights with the normalisation folded in, by the names that `read_parts` knows."""
        found = dict[str, Array]()
        for number, block in enumerate(self.layers):
            convolution: Any = block[0]  # type: ignore[index]
            norm: Any = block[1]  # type: ignore[index]
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            found[f"parts.{number}.weight"] = (convolution.weight * gain[:, None, None, None]).detach().numpy()
            found[f"parts.{number}.bias"] = (norm.bias - norm.running_mean * gain).detach().numpy()
        for name, values in self.last.named_parameters():
            found[f"parts.last.{name}"] = values.detach().numpy()
        return found


def train_parts(people: Sequence[str], work: Path, steps: int) -> None:
    """Train the network that finds hair and skin, with a checkpoint every 100 steps."""
    done = work / "parts.safetensors"
    if done.exists():
        return
    inputs, targets = list[NDArray[np.uint8]](), list[NDArray[np.uint8]]()
    for person in people:
        with np.load(work / "pictures" / f"{person}.npz") as made:
            for head, parts in zip(made["heads"], made["parts"], strict=True):
                if parts.max() <= 2:
                    picture = Image.fromarray(head)
                    inputs.append(small(balanced(picture, white_balance(picture))))
                    targets.append(np.asarray(Image.fromarray(parts).resize((64, 64), Image.Resampling.NEAREST)))
    pictures, truth = torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets)).long()
    torch.manual_seed(0)
    model = Parts()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-4)
    rates = OneCycleLR(optimiser, 3e-3, total_steps=steps)
    checkpoint = work / "checkpoint.safetensors"
    first = _restore(checkpoint, model, optimiser, rates) if checkpoint.exists() else 0
    for step in range(first, steps):
        rows = torch.from_numpy(np.random.default_rng(step).integers(len(pictures), size=32))
        logits = model(pictures[rows].permute(0, 3, 1, 2).float() / 255 - 0.5)
        loss = F.cross_entropy(logits, truth[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        if (step + 1) % 100 == 0:
            right = (logits.argmax(1) == truth[rows]).float().mean()
            print(f"hair and skin: step {step + 1} of {steps}, loss {loss:.3f}, right {100 * right:.1f} %", flush=True)
            _save(checkpoint, step + 1, model, optimiser, rates)
    with atomic_write(done) as draft:
        save_file(model.exported(), draft)


def _save(path: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, rates: OneCycleLR) -> None:
    """Write a checkpoint: tensors as safetensors, and numbers as JSON in its header."""
    tensors = {f"model.{name}": tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    state = optimiser.state_dict()
    for number, moments in state["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor.numpy() for name, tensor in moments.items()}
    header = {"step": str(step), "groups": json.dumps(state["param_groups"]), "rates": json.dumps(rates.state_dict())}
    with atomic_write(path) as draft:
        save_file(tensors, draft, header)


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, rates: OneCycleLR) -> int:
    """Read a checkpoint and return its step."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    moments = dict[int, dict[str, Tensor]]()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, part = name.split(".")
            moments.setdefault(int(number), {})[part] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": json.loads(header["groups"])})
    rates.load_state_dict(json.loads(header["rates"]))
    return int(header["step"])


# 3. Features


def compute_features(people: Sequence[str], work: Path) -> None:
    """Write each person's features to `work`, those that are missing."""
    network = read_parts(load_file(work / "parts.safetensors"))
    for person in people:
        file = work / "features" / f"{person}.npz"
        if file.exists():
            continue
        with np.load(work / "pictures" / f"{person}.npz") as made:
            faces = [Image.fromarray(face) for face in made["faces"]]
            heads = [Image.fromarray(head) for head in made["heads"]]
        found, _ = features(faces, heads, network)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        half: dict[str, Any] = {name: values.astype(np.float16) for name, values in found.items()}
        np.savez(part, **half)
        part.replace(file)


# 4. Heads

_DLIB = ("face_8", "face_4", "face_2", "face_1", "head_8", "head_4", "head_2", "head_1")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "skin": ("face_8", "face_4", "face_1", "face_colours", "head_colours", "measures"),
    "hair_colour": ("face_1", "head_8", "head_4", "head_1", "head_colours", "shapes", "measures"),
    "hair_length": ("face_4", "face_1", "head_8", "head_4", "head_2", "head_1", "shapes", "measures"),
    "facial_hair": ("face_8", "face_4", "face_1"),
    "glasses": ("face_8", "face_4"),
    "hair_kind": (*_DLIB, "shapes", "measures"),
    "beard_length": ("face_8", "face_4", "face_1"),
    "covered": ("face_4", "head_8", "head_4", "shapes", "measures"),
    "tied": (*_DLIB, "shapes", "measures"),
}
"""The features that each head sees."""
DECAY: Mapping[str, float] = dict.fromkeys(CLASSES, 0.0003) | {"hair_colour": 0.002}
"""Weight of the squared weights in each head's loss; 0.02 was 4 to 10 points worse for hair and beards, and between
0.002 and 0.0003 a point decides (cross-validation over the training people)."""

_STUBBLE = {"faint": (0.85, 0.0, 0.15), "clear": (0.3, 0.0, 0.7)}
"""No facial hair, moustache and beard, where there is stubble."""


def target(name: str, row: Mapping[str, Any], changes: Mapping[str, Any]) -> list[float] | None:
    """What a head should say of a picture: a share for each class; None if the labels do not tell.

    The first of several labels has 0.7, the others share the rest.
    """
    classes = CLASSES[name]
    if name == "skin":
        shares = [float(np.exp(-((number - row["skin"]) ** 2) / 0.5)) for number in range(1, 7)]
        return [share / sum(shares) for share in shares]
    if name == "facial_hair" and row["stubble"] and "moustache" not in row["facial_hair"]:
        return list(_STUBBLE[row["stubble"]])
    hidden = changes.get("covered", False) or row["covered"]
    if name == "covered":
        labels = ["yes" if hidden else "no"]
    elif name == "glasses":
        labels = [changes.get("glasses", "glasses" if row["glasses"] else "none")]
    elif name == "tied":
        labels = ["yes" if row["tied"] else "no"] if row["hair_length"] and not hidden else []
    elif name == "beard_length":
        labels = ["light" if row["stubble"] else "full"] if "beard" in row["facial_hair"] else []
    elif name == "hair_kind":
        labels = [row[name]] if row[name] else []
    elif name == "hair_colour" and name in changes:
        labels = [changes[name]]
    else:
        labels = row[name] or []
    if not labels or (name in ("hair_colour", "hair_length") and hidden and not row["covered"]):
        return None
    rest = 0.3 / (len(labels) - 1) if len(labels) > 1 else 0.0
    first = 0.7 if rest else 1.0
    return [first if one == labels[0] else rest if one in labels else 0.0 for one in classes]


@dataclass
class Examples:
    """All pictures of the training people."""

    rows: list[Mapping[str, Any]]
    changes: list[Mapping[str, Any]]
    features: dict[str, Array]


def load_examples(rows: Sequence[Mapping[str, Any]], work: Path) -> Examples:
    """The features of all pictures of those people, in order."""
    found = Examples([], [], {})
    groups = dict[str, list[Array]]()
    for row in rows:
        with np.load(work / "pictures" / f"{row['person']}.npz") as made:
            changes = json.loads(str(made["changes"]))
        found.changes += changes
        found.rows += [row] * len(changes)
        with np.load(work / "features" / f"{row['person']}.npz") as made:
            for name in made.files:
                groups.setdefault(name, []).append(made[name])
    found.features = {name: np.concatenate(parts).astype(np.float32) for name, parts in groups.items()}
    return found


def fit(name: str, examples: Examples, groups: Sequence[str], decay: float) -> dict[str, Array]:
    """Fit one head by L-BFGS: cross entropy with the targets, and squared weights.

    Each group's features are standardised and divided by the square root of their number, so that every group has the
    same say. Each person counts alike, and rare classes count more (by the root of their rarity).
    """
    wanted = [target(name, row, changes) for row, changes in zip(examples.rows, examples.changes, strict=True)]
    chosen = [number for number, one in enumerate(wanted) if one]
    truth = torch.tensor([wanted[number] for number in chosen], dtype=torch.float32)
    means, scales = list[Array](), list[Array]()
    for group in groups:
        values = examples.features[group][chosen]
        means.append(values.mean(axis=0))
        scales.append(1 / (values.std(axis=0) + 0.05 * values.std() + 1e-6) / np.sqrt(values.shape[1]))
    mean, scale = np.concatenate(means), np.concatenate(scales).astype(np.float32)
    inputs = torch.from_numpy(
        (np.concatenate([examples.features[group][chosen] for group in groups], axis=1) - mean) * scale
    )
    people = [examples.rows[number]["person"] for number in chosen]
    often = dict(zip(*np.unique(people, return_counts=True), strict=True))
    rarity = (truth.mean(dim=0) + 0.01) ** -0.5
    weights = torch.tensor([1 / often[person] for person in people]) * (truth @ rarity)
    weights = weights / weights.sum()
    weight = torch.zeros(truth.shape[1], inputs.shape[1], requires_grad=True)
    bias = torch.zeros(truth.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=120, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -(weights[:, None] * truth * F.log_softmax(inputs @ weight.T + bias, dim=1)).sum()
        loss = loss + decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return {
        f"{name}.{part}": np.asarray(values, np.float16)
        for part, values in (("mean", mean), ("scale", scale), ("weight", weight.detach()), ("bias", bias.detach()))
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.pretraining.looks", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with the photos that the labels name")
    parser.add_argument("--scenery", type=Path, help="folder with photos whose parts become backgrounds")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed on the way")
    parser.add_argument("--out", type=Path, default=FILE, help=f"the weights (default: {FILE})")
    parser.add_argument("--variations", type=int, default=14, help="variations of each person (default: 14)")
    parser.add_argument("--steps", type=int, default=600, help="steps of the hair and skin network (default: 600)")
    asked = parser.parse_args(arguments)
    rows = json.loads(LABELS.read_text())
    asked.work.mkdir(parents=True, exist_ok=True)
    make_pictures(rows, asked.photos, asked.scenery, asked.work, asked.variations)
    rows = [row for row in rows if (asked.work / "pictures" / f"{row['person']}.npz").exists()]
    people = [row["person"] for row in rows]
    train_parts(people, asked.work, asked.steps)
    compute_features(people, asked.work)
    examples = load_examples(rows, asked.work)
    weights = {name: values.astype(np.float16) for name, values in load_file(asked.work / "parts.safetensors").items()}
    for name in CLASSES:
        weights |= fit(name, examples, GROUPS[name], DECAY[name])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(asked.out) as draft:
        save_file(weights, draft, {f"{name}.groups": " ".join(GROUPS[name]) for name in CLASSES})
    print(f"{asked.out}: {asked.out.stat().st_size / 1e6:.1f} MB from {len(people)} people")


if __name__ == "__main__":
    main()
