"""The commands for adapter files: `python -m engine export | import | distil`. They import torch only when they run."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

from engine.adapters.file import FILE
from engine.commands.command import (
    Command,
    Figures,
    base_option,
    base_source,
    check_new,
    json_option,
    overwrite_option,
    seed_option,
)
from engine.commands.recipe_options import DISTILLATION, DISTILLED, add_recipe_options, overrides
from engine.recipe import RANGES, Distillate, check
from storage import naming
from storage.errors import UserError


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--avatar", type=Path, required=True, help="folder of an avatar, written by train")
    parser.add_argument(
        "--format",
        choices=("diffusers", "kohya"),
        default="diffusers",
        help="naming of the layers; kohya is for kohya's scripts, the WebUI and ComfyUI (default: diffusers)",
    )
    parser.add_argument("--licence", default="", help="licence of the file, such as cc-by-4.0 (default: none)")
    parser.add_argument("--thumbnail", type=Path, help="a picture for programs to show with it (default: none)")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    overwrite_option(parser)
    base_option(parser)
    json_option(parser)


def run_export(asked: argparse.Namespace) -> Figures:
    """`export`: an avatar becomes a LoRA file for other programs."""
    from engine.adapters.exchange import export
    from engine.bases.base import BaseModel

    check_new(asked, asked.out)
    base = BaseModel.load(base_source(asked))
    layers = export(base, asked.avatar, asked.format, asked.out, asked.licence, asked.thumbnail)
    print(f"{asked.out}: {layers} layers under the names of {asked.format}")
    return {"file": str(asked.out), "format": asked.format, "layers": layers}


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a .safetensors file with a LoRA, LoCon, LoHa or LoKr")
    parser.add_argument(
        "--token", help="token of the person that the LoRA was trained on (default: its card's; none for a style)"
    )
    parser.add_argument("--class", dest="noun", help="class noun of the person; needs --token (default: its card's)")
    parser.add_argument(
        "--few-step",
        "--few",
        dest="few_step",
        type=int,
        metavar="STEPS",
        help="import a few-step adapter, such as an LCM-LoRA, that draws in this many steps (default: none)",
    )
    parser.add_argument(
        "--rank",
        type=int,
        help="reduce each layer to the nearest change of this rank (default: the exact change, whatever its rank)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    overwrite_option(parser)
    base_option(parser)
    json_option(parser)


def run_import(asked: argparse.Namespace) -> Figures:
    """`import`: another program's LoRA becomes an avatar, a style or a few-step adapter."""
    from engine.adapters.adapters import AdapterKind
    from engine.adapters.exchange import import_lora, imported_facts, person_in
    from engine.bases.base import BaseModel
    from engine.learning import distillation

    check_new(asked, asked.out / FILE)
    if (asked.token is None) != (asked.noun is None):
        raise UserError("token_and_noun")
    check("rank", asked.rank, *RANGES["rank"])
    person = ("", "")
    if asked.token:
        person = (naming.token(asked.token), naming.noun(asked.noun))
    elif not asked.few_step:
        person = person_in(asked.file) or person
    base = BaseModel.load(base_source(asked))
    kind: AdapterKind = "avatar" if person[0] else "few" if asked.few_step else "style"
    if asked.few_step:
        facts = distillation.few_step_facts(base, asked.few_step, 1.0)
    else:
        facts = imported_facts(base, kind, *person)
    path = asked.out / FILE
    found = import_lora(base, asked.file, facts, path, asked.rank)
    kinds = ", ".join(f"{count} layers of {name}" for name, count in found.kinds.items())
    print(f"{path}: {kinds}" + (f"; {100 * found.error:.1f} % of the change is missed" if asked.rank else ""))
    if person[0] and not asked.token:
        print(f"Its card names the person “{' '.join(person)}”: prompts need these words.")
    for note in found.notes:
        print(note)
    return {
        "adapter": str(path),
        "kind": kind,
        "token": person[0],
        "noun": person[1],
        "layers": found.layers,
        "kinds": dict(found.kinds),
        "notes": list(found.notes),
        "error": found.error,
    }


def _distil_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        choices=get_args(Distillate),
        default="consistency",
        help="consistency distillation as for LCM-LoRAs, or endpoints, which is closer to the base model's pictures "
        "and takes longer (default: consistency)",
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        help="folder of captioned pictures, as for finetune (default: the drawn world of the embedded base model)",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=2000,
        help="number of pictures to take from the drawn world, or to draw with the base model (default: 2000)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    overwrite_option(parser)
    add_recipe_options(parser, DISTILLED, DISTILLATION)
    base_option(parser)
    seed_option(parser)
    json_option(parser)


def run_distil(asked: argparse.Namespace) -> Figures:
    """`distil`: a base model becomes a few-step adapter for itself."""
    from engine.bases.base import BaseModel
    from engine.learning import distillation
    from engine.photos.captioned import read_captioned, square_pictures
    from engine.toon import samples

    check_new(asked, asked.out / FILE)
    base = BaseModel.load(base_source(asked))
    if asked.dataset:
        dataset = read_captioned(asked.dataset)
        for line in dataset.left_out:
            print(f"Left out: {line}")
        pictures, captions = square_pictures(dataset, base.side)
    elif not base.family.sample_captions:
        raise UserError("no_photos", folder="--dataset")
    elif asked.method == "endpoints":
        pictures, captions = [], samples.prompts(asked.pictures, asked.seed)
    else:
        pictures, captions = samples.world(base.side, asked.pictures, asked.seed)

    def show(step: int, steps: int, loss: float) -> None:
        if step == steps or step % 20 == 0:
            print(f"step {step} of {steps}, loss {loss:.5f}", file=sys.stderr, flush=True)

    path = asked.out / FILE
    recipe = replace(distillation.DEFAULTS[asked.method], **overrides(asked))
    done = distillation.distil(base, pictures, captions, recipe, path, seed=asked.seed, on_step=show)
    print(f"{path}: draws in {distillation.DRAW_STEPS} steps, learned in {done.steps} steps, {done.seconds:.0f} s")
    return {
        "adapter": str(path),
        "steps": done.steps,
        "seconds": round(done.seconds, 2),
        "first_loss": done.first_loss,
        "last_loss": done.last_loss,
        "draw_steps": distillation.DRAW_STEPS,
    }


COMMANDS = (
    Command("export", "write an avatar's LoRA for other programs", _export_options, run_export, single=True),
    Command(
        "import",
        "turn another program's LoRA into an avatar, a style or a few-step adapter",
        _import_options,
        run_import,
        single=True,
    ),
    Command("distil", "distil a base model into a few-step adapter", _distil_options, run_distil, single=True),
)
