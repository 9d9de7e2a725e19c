"""Importing a LoRA file of 200 MB against diffusers' loading of it: `python -m tests.benchmarks.importing`.

Both have the same base in memory: a U-Net as wide as Stable Diffusion 1.5's with one layer for each block, random
weights. The file is a LoRA of kohya's on its transformers. Ours reads it, checks every number, writes an adapter and
predicts once with it; diffusers' `load_lora_weights` reads it and puts its layers into the U-Net. They take turns, and
the ratio is that of the medians.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from engine.adapters.adapters import FILE
from engine.adapters.exchange import import_lora, imported_facts
from engine.adapters.names import foreign_names, layers_of
from engine.bases.base import BaseModel
from tests.benchmarks.comparison import Ratio
from tests.engine import tiny

GOAL = 0.5
MEGABYTES = 200


def wide_base(folder: Path) -> None:
    torch.manual_seed(0)
    words = tiny.tokenizer()
    unet = tiny.unet(
        block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, norm_num_groups=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    encoder = tiny.CLIPTextModel(tiny.text_config(words, hidden_size=768, intermediate_size=1024))
    StableDiffusionPipeline(
        tiny.vae(), encoder, words, unet, tiny.DDIMScheduler(**tiny.BETAS), None, None, None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def write_lora(base: BaseModel, file: Path) -> None:
    """A LoRA of about `MEGABYTES` on all layers in the U-Net's blocks, in half precision."""
    names = foreign_names(base)
    layers = {layer: module for layer, module in layers_of(base).items() if layer[1].startswith(("up", "down", "mid"))}
    shapes = {layer: module.weight.shape for layer, module in layers.items() if layer[0] == "unet"}
    rank = MEGABYTES * 10**6 // (2 * sum(shape[0] + shape[1:].numel() for shape in shapes.values()))
    tensors = {}
    for layer, (out, *into) in shapes.items():
        ones = [1] * (len(into) - 1)
        tensors |= {
            f"{names[layer]}.lora_down.weight": torch.randn(rank, *into).half() / into[0],
            f"{names[layer]}.lora_up.weight": 0.01 * torch.randn(out, rank, *ones).half(),
            f"{names[layer]}.alpha": torch.tensor(rank / 2),
        }
    save_file(tensors, file)
    print(f"{file.stat().st_size / 1e6:.0f} MB, {len(shapes)} layers of rank {rank}")


def timed(call: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wide_base(folder / "base")
        base, file = BaseModel.load(str(folder / "base")), folder / "lora.safetensors"
        write_lora(base, file)
        pipeline = StableDiffusionPipeline.from_pretrained(folder / "base", dtype=torch.float32)
        facts = imported_facts(base, "style")
        ours, theirs = [], []
        for number in range(rounds + 1):
            out = folder / f"ours-{number}" / FILE
            taken = timed(partial(import_lora, base, file, facts, out))
            out.unlink()
            loaded = timed(lambda: pipeline.load_lora_weights(folder, weight_name=file.name))
            pipeline.unload_lora_weights()
            if number:  # the first round warms both up
                ours.append(taken)
                theirs.append(loaded)
        row = Ratio("import of a 200 MB LoRA (s)", median(ours), median(theirs), GOAL)
        print("| what | ours | reference | ratio | goal | kept |\n|---|---|---|---|---|---|")
        print(row.row())
        print(json.dumps({"ours": ours, "diffusers": theirs, "ratio": row.value, "goal": GOAL}))


if __name__ == "__main__":
    main()
