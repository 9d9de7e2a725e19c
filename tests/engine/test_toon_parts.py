"""The embedded base's own parts compute what the libraries' classes compute of the same files."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from subprocess import run

import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

from engine.bases.base import BaseModel, fingerprint_of
from engine.bases.embedded import EmbeddedPipeline, PromptTokenizer
from engine.toon import WEIGHTS

PROMPTS = ["a photo of cr7d man in a suit", "", "x " * 200, "Ünïcode \u200b <|endoftext|> it's  7 💃", "a\u0301 b\n\tc"]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedPipeline, DiffusionPipeline]]:
    own = EmbeddedPipeline()
    for name in ("unet", "vae", "text_encoder"):
        own.components[name].float().eval()
    yield own, DiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, use_safetensors=True)


def weights(part: torch.nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(parameter.shape)) for name, parameter in part.named_parameters()]


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder"])
def test_names_order_and_configuration_are_the_libraries(pair, name) -> None:
    own, theirs = (pipeline.components[name] for pipeline in pair)
    assert weights(own) == weights(theirs)
    for field in fields(own.config):
        assert getattr(own.config, field.name) == getattr(theirs.config, field.name), field.name


def test_a_base_of_either_is_the_same_base(pair) -> None:
    own, theirs = ([p.components["unet"], p.components["text_encoder"]] for p in pair)
    assert fingerprint_of(own) == fingerprint_of(theirs) == BaseModel.load().fingerprint


@pytest.mark.parametrize("side", [16, 24])
def test_the_unet_answers_and_learns_alike(pair, side) -> None:
    own, theirs = (pipeline.components["unet"] for pipeline in pair)
    noisy, words, times = torch.randn(3, 16, side, 16), torch.randn(3, 48, 192), torch.tensor([0, 500, 999])
    answers, gradients = [], []
    for unet in (own, theirs):
        answer = unet(noisy, times, words).sample
        answer.square().mean().backward()
        answers.append(answer.detach())
        gradients.append({name: parameter.grad for name, parameter in unet.named_parameters()})
        unet.zero_grad(set_to_none=True)
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() <= 1e-3 * gradients[1][name].norm(), name


def test_gradient_checkpointing_changes_no_number(pair) -> None:
    unet, noisy, words = pair[0].components["unet"], torch.randn(1, 16, 16, 16), torch.randn(1, 48, 192)
    found = []
    for switch in (unet.enable_gradient_checkpointing, unet.disable_gradient_checkpointing):
        switch()
        unet(noisy, torch.tensor([7]), words).sample.square().mean().backward()
        found.append([parameter.grad for parameter in unet.parameters()])
        unet.zero_grad(set_to_none=True)
    assert all(map(torch.equal, *found))


@torch.no_grad()
def test_the_autoencoder_sees_and_draws_alike(pair) -> None:
    own, theirs = (pipeline.components["vae"] for pipeline in pair)
    pictures, latents = torch.rand(2, 3, 128, 64) * 2 - 1, torch.randn(2, 16, 8, 16)
    seen, expected = own.encode(pictures).latent_dist, theirs.encode(pictures).latent_dist
    torch.testing.assert_close(seen.mean, expected.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.std, expected.std)
    torch.testing.assert_close(own.decode(latents).sample, theirs.decode(latents).sample, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_text_encoder_reads_alike(pair) -> None:
    own, theirs = (pipeline.components["text_encoder"] for pipeline in pair)
    tokens = torch.randint(0, 1299, (3, 48))
    torch.testing.assert_close(own(tokens).last_hidden_state, theirs(tokens).last_hidden_state, rtol=1e-4, atol=1e-5)
    assert own.get_input_embeddings().weight.shape == theirs.get_input_embeddings().weight.shape


@given(st.lists(st.text(max_size=80) | st.sampled_from(PROMPTS), min_size=1, max_size=3))
def test_the_tokenizer_cuts_alike(prompts) -> None:
    own, theirs = TOKENIZERS
    whole = {"padding": "max_length", "truncation": True, "max_length": own.model_max_length, "return_tensors": "pt"}
    assert torch.equal(own(prompts, **whole).input_ids, theirs(prompts, **whole).input_ids)
    for settings in ({"add_special_tokens": False}, {"verbose": False}):
        assert own(prompts[0], **settings).input_ids == theirs(prompts[0], **settings).input_ids


TOKENIZERS = (
    PromptTokenizer(WEIGHTS / "tokenizer"),
    DiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32).tokenizer,
)


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_learning_on_the_embedded_base_imports_no_large_library(tmp_path: Path, method: str) -> None:
    program = f"""
import sys
from engine.__main__ import main
main("train --photos bot/demo_album --token zk1 --class woman --method {method} --steps 2 --out {tmp_path}".split()
     + "--recipe reference --size 128".split())
print(sorted({{"diffusers", "transformers", "peft", "accelerate", "torch._dynamo"}} & set(sys.modules)))
"""
    said = run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
