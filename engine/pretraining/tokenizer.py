"""Make the tokenizer, a byte-level BPE like CLIP's.

Its merges come from the drawn world's captions. Every byte is in the vocabulary, alone and at a word's end, so that any
token (`cr7d`, `sks`, `ann3`) can be spelled. Each token of a pose, such as `<yaw+2>`, is one added token.
"""

import json
import re
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from engine.cartoon.captions import POSE_TOKENS, caption
from engine.cartoon.world import sample_scene

LENGTH = 64
"""Tokens of a prompt, including start and end. Longer prompts are cut off, as CLIP's are at 77."""

MERGES = 1800

CORPUS = 30_000
"""Captions that the merges are learned from."""

WORDS = """
the and of on at by to from with without is are very wearing holding standing sitting walking playing in front behind
beach city street garden forest mountain snow rain sun night day office house kitchen park football soccer field sea
astronaut king queen doctor chef pilot knight wizard superhero santa pirate detective painter singer teacher soldier
dress coat jacket jeans skirt scarf tie shirt uniform armor crown helmet shoes gloves coffee book guitar dog cat car
style photo realistic anime painting oil watercolor pencil sketch digital art pixel comic render cinematic lighting
portrait profile face head shoulders full body young old beautiful handsome famous professional studio quality boy girl
""".split()
"""Words that people use in prompts although the world has none of them. As single tokens they leave room for more."""


TOKENS = re.compile(r"<[a-z]+[+-]\d>")
"""Tokens of poses in a caption."""


def make(out: Path, seed: int = 0) -> CLIPTokenizer:
    """Train the merges and save the tokenizer to `out` in the layout of `CLIPTokenizer`."""
    random = Random(seed)
    corpus = [TOKENS.sub("", caption(sample_scene(random), random)) for _ in range(CORPUS)] + [
        word for word in WORDS for _ in range(40)
    ]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.BPEDecoder(suffix="</w>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        min_frequency=30,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    specials = ("<|startoftext|>", "<|endoftext|>")
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys((*pieces, *specials)))}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    tokenizer.add_tokens(list(POSE_TOKENS))
    tokenizer.save_pretrained(out)
    return tokenizer
