"""Long prompts are read in windows, and brackets weigh, as people know it from the WebUI."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from engine.adapters.adapters import FILE, Attached
from engine.adapters.learned_token import LearnedToken, apply_learned_tokens
from engine.bases.base import BaseModel
from engine.bases.families import Conditioning
from engine.bases.names import known_words, propose
from engine.bases.prompts import MOST_WINDOWS, Phrase, Prompt, read
from engine.drawing.drawing import draw, heard, make_plan
from engine.recipe import Recipe
from engine.toon import WEIGHTS
from storage import naming
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import LORA, asked, assert_same, load, together

ROOM = 46
"""Tokens of a window of the small models, without start and end."""

WORD = "man "


def long(words: int, end: str = "") -> str:
    """A prompt of so many tokens, and the words at its end."""
    return WORD * words + end


@pytest.mark.parametrize(
    ("written", "phrases"),
    [
        ("a man", [("a man", 1)]),
        ("a (big) man", [("a ", 1), ("big", 1.1), (" man", 1)]),
        ("a ((big)) man", [("a ", 1), ("big", 1.21), (" man", 1)]),
        ("a [big] man", [("a ", 1), ("big", 1 / 1.1), (" man", 1)]),
        ("a (big:1.3) man", [("a ", 1), ("big", 1.3), (" man", 1)]),
        ("a (big: 1.3 ) man", [("a ", 1), ("big", 1.3), (" man", 1)]),
        ("(a (big:1.5) man:0.5)", [("a ", 0.5), ("big", 0.75), (" man", 0.5)]),
        ("a man \\(big\\)", [("a man (big)", 1)]),
        ("a man \\[x\\] \\\\", [("a man [x] \\", 1)]),
        ("(big", [("big", 1.1)]),
        ("big) man]", [("big) man]", 1)]),
        ("a man: tall", [("a man: tall", 1)]),
        ("a man:1.3) tall", [("a man:1.3) tall", 1)]),
        ("(big:1.2.3)", [("big:1.2.3", 1.1)]),
        ("(big:-0.5)", [("big", -0.5)]),
        ("(big:1e9)", [("big:1e9", 1.1)]),
        ("(big:9999)", [("big", 10.0)]),
        ("", [("", 1)]),
        ("()", [("", 1)]),
    ],
)
def test_brackets_weigh(written: str, phrases: Sequence[tuple[str, float]]) -> None:
    parsed = Prompt.parse(written).phrases
    assert [phrase.text for phrase in parsed] == [text for text, _ in phrases]
    assert [phrase.weight for phrase in parsed] == pytest.approx([weight for _, weight in phrases])


def test_a_caption_keeps_its_brackets() -> None:
    assert Prompt.literal("a (big) man").phrases == (Phrase("a (big) man"),)


def words() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def test_a_prompt_that_fits_is_read_as_by_the_tokenizer_itself(tiny: BaseModel) -> None:
    tokenizer = tiny.tokenizer("text_encoder")
    for text in ("", "a photo of zk1 man, don't", long(ROOM), "Ünïcode 🙂 (a)"):
        (window,) = read(tokenizer, Prompt.literal(text)).windows
        own = tokenizer([text], padding="max_length", truncation=True, max_length=48, return_tensors="pt").input_ids
        assert window.ids == tuple(own[0].tolist()) and set(window.weights) == {1.0}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_long_prompt_is_its_windows_one_after_another(folders, family: str) -> None:
    base = load(folders(family))
    text = long(ROOM, "a woman in a suit")
    whole, first, second = (base.encode_prompts([one]) for one in (text, long(ROOM), "a woman in a suit"))
    apart = torch.cat((first.prompt_embeds, second.prompt_embeds), dim=1)
    assert torch.allclose(whole.prompt_embeds, apart, atol=1e-5)
    if family == "sdxl":  # the pooled embedding is the first window's
        assert torch.allclose(whole.pooled_prompt_embeds, first.pooled_prompt_embeds, atol=1e-5)


def test_no_word_is_cut_in_two_and_a_break_ends_a_window(tiny: BaseModel) -> None:
    tokenizer = tiny.tokenizer("text_encoder")
    pieces = tuple(tokenizer("cr7d", add_special_tokens=False).input_ids)
    assert len(pieces) > 2
    first, second = read(tokenizer, Prompt.literal(long(ROOM - 1, "cr7d man"))).windows
    assert second.ids[1 : 1 + len(pieces)] == pieces and first.ids[ROOM] == first.ids[ROOM + 1]
    assert len(read(tokenizer, Prompt.literal("a man, BREAK, a BREAKER")).windows) == 2
    one, other = read(tokenizer, Prompt.literal("a man BREAK a suit")).windows
    assert one == read(tokenizer, Prompt.literal("a man")).windows[0]
    assert other == read(tokenizer, Prompt.literal("a suit")).windows[0]
    # A word without an end fills windows all the same.
    assert len(read(tokenizer, Prompt.literal("x" * 3 * ROOM)).windows) > 1


def test_weights_multiply_hidden_states_and_keep_their_mean(tiny: BaseModel) -> None:
    with torch.no_grad():
        tiny.text_encoder.get_parameter("final_layer_norm.bias").fill_(0.3)
    plain = tiny.encode_prompts(["a big man"]).prompt_embeds[0]
    weighed = tiny.encode_weighted(["a (big:1.5) man"]).prompt_embeds[0]
    expected = plain.clone()
    expected[2] *= 1.5
    expected *= plain.mean() / expected.mean()
    assert torch.allclose(weighed, expected, atol=1e-5) and not torch.allclose(weighed, plain, atol=1e-2)
    assert torch.equal(tiny.encode_weighted(["a big man"]).prompt_embeds[0], plain)
    # Each row is what it is alone.
    both = tiny.encode_weighted(["a big man", "a (big:1.5) man"]).prompt_embeds
    assert torch.allclose(both[0], plain, atol=1e-6) and torch.allclose(both[1], weighed, atol=1e-6)


def test_weights_of_states_without_a_mean_spoil_nothing(tiny: BaseModel) -> None:
    """After a layer norm without bias the mean is only rounding, and its quotient could be anything."""
    with torch.no_grad():
        tiny.text_encoder.get_parameter("final_layer_norm.bias").zero_()
    plain, weighed = (tiny.encode_weighted([one]).prompt_embeds[0] for one in ("a big man", "a (big:1.5) man"))
    assert torch.allclose(weighed[1], plain[1]) and torch.allclose(weighed[2], 1.5 * plain[2])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_drawings_of_any_length_share_a_batch(folders, family: str, exact) -> None:
    """Each is what it is alone, and the end of a long prompt is heard."""
    base = load(folders(family))
    attached = Attached(base)
    prompts = ["a man", long(ROOM, "a woman in a suit"), long(2 * ROOM, "a dog"), long(ROOM)]
    drawings = [asked(prompt=prompt, seed=number, negative_prompt=long(ROOM, "ugly") if number == 1 else "")
                for number, prompt in enumerate(prompts)]  # fmt: skip
    for drawing, (picture,) in zip(drawings, together(base, attached, drawings), strict=True):
        assert_same(picture.image, draw(base, attached, drawing)[0].image)
    ends = [draw(base, attached, replace(drawings[1], prompt=long(ROOM, end)))[0].image for end in ("a dog", "a king")]
    assert ends[0].tobytes() != ends[1].tobytes()


def test_repeated_windows_are_heard_as_one(tiny: BaseModel) -> None:
    short, long_one = (tiny.encode_prompts([text]) for text in ("a man", long(2 * ROOM, "a dog")))
    joined = Conditioning.join([short, long_one, short])
    assert joined.tokens == (48, 3 * 48, 48) and joined[[0, 2]].prompt_embeds.shape[1] == 48
    assert torch.equal(joined[[0, 2]].prompt_embeds, short.repeat([2]).prompt_embeds)
    assert torch.equal(joined[torch.tensor([1])].prompt_embeds, long_one.prompt_embeds)
    aligned = joined[0:2].aligned()
    assert torch.equal(aligned.prompt_embeds[0], short.prompt_embeds[0].repeat(3, 1))
    latents, times = torch.randn(2, 4, 16, 16), torch.tensor([500, 20])
    both = tiny.predict(tiny.unet, latents, times, joined[0:2])
    alone = tiny.predict(tiny.unet, latents[:1], times[:1], short)
    assert torch.allclose(both[:1], alone, atol=1e-4)


def test_long_captions_are_learned_to_their_end(tiny, pictures, tmp_path: Path) -> None:
    for text_encoder in (False, True):
        recipe = replace(LORA, steps=2, captions=True, prior_batch=0, prior_weight=0.0, text_encoder=text_encoder)
        learned = []
        for number, end in enumerate(("a dog", "a king")):
            captions = [long(ROOM, f"{end} {text}") for text in ("red", "blue", "green", "black", "white")]
            captions[2] = "a short one"
            out = tmp_path / f"{text_encoder}{number}" / FILE
            learn(tiny, pictures[:5], recipe, out, captions=captions)
            learned.append(out.read_bytes())
        assert learned[0] != learned[1]


def test_captions_that_are_too_long_even_so_are_told(tiny, pictures, tmp_path: Path) -> None:
    said = list[tuple[str, object]]()
    recipe = replace(LORA, steps=1, captions=True, prior_batch=0, prior_weight=0.0)
    captions = ["a man (tall)", long(3 * ROOM), long(9 * ROOM), "a man", "a dog"]
    learn(
        tiny,
        pictures[:5],
        recipe,
        tmp_path / FILE,
        captions=captions,
        on_warning=lambda code, **facts: said.append((code, facts)),
    )
    assert said == [("captions_unread", {"count": 1, "of": 5})]


def test_adapters_of_the_text_encoder_stay_with_their_rows(tiny, pictures, tmp_path: Path, exact) -> None:
    recipe = Recipe("lora", 3, 2e-2, 2, 0, 0.0, rank=4, alpha=4, text_encoder=True, pivotal=True)
    learn(tiny, pictures, recipe, tmp_path / "one" / FILE)
    learn(tiny, pictures, recipe, tmp_path / "other" / FILE, seed=4)
    attached = Attached(tiny)
    drawings = [
        asked(tmp_path / "one" / FILE, prompt="zk1 man"),
        asked(tmp_path / "other" / FILE, prompt=long(ROOM, "zk1 man in a suit")),
        asked(prompt="zk1 man", seed=2),
    ]
    for drawing, (picture,) in zip(drawings, together(tiny, attached, drawings), strict=True):
        assert_same(picture.image, draw(tiny, attached, drawing)[0].image)


def test_a_token_at_the_end_is_heard_and_the_rest_is_named(tiny, folders, pictures, tmp_path: Path) -> None:
    text = "zk1 " + long(MOST_WINDOWS * ROOM, "a dog")
    assert tiny.unread("a man") == "" and tiny.unread(long(MOST_WINDOWS * ROOM)) == ""
    assert tiny.unread(text).endswith("a dog")
    late = long(MOST_WINDOWS * ROOM, "zk1 man with xzk2")
    assert heard(late, tiny, ["zk1 man", "zk2 man"]) == f"zk1 man, {late}"
    assert heard(text, tiny, ["zk1 man"]) == text
    # A language model is not read in windows.
    klein = load(folders("klein"))
    assert klein.unread("a man") == "" and not klein.weights_ignored("a man")
    assert klein.weights_ignored("a (big) man")
    unread = klein.unread(long(600, "zk1 man"))
    assert unread.endswith("zk1 man") and 0 < len(unread.split()) < 600
    assert heard(long(600, "zk1 man"), klein, ["zk1 man"]).startswith("zk1 man, man")
    for prompt in (long(510, "a dog"), "a (big) man"):
        klein.encode_weighted([prompt])


def test_what_a_language_model_reads_ends_where_it_is_said_to(folders) -> None:
    """The last word that is read changes the embeddings, and the first that is not does not."""
    klein = load(folders("klein"))
    text = long(600)
    read_words = 600 - len(klein.unread(text).split())
    encoded = klein.encode_prompts([text]).prompt_embeds

    def changed(position: int) -> bool:
        several = text.split()
        several[position] = "dog"
        return not torch.equal(klein.encode_prompts([" ".join(several)]).prompt_embeds, encoded)

    assert changed(read_words - 1) and not changed(read_words)


@pytest.mark.parametrize(
    ("tag", "name", "weight"),
    [("<lora:inks:0.8>", "inks", "0.8"), ("<lora:inks>", "inks", "1"), ("<LyCO: Inks:te=0.5:unet=1>", "Inks", "0.5"),
     ("<lyco:Inks v2:0.5>", "Inks v2", "0.5"), ("<hypernet:x:1>", "x", "1")],
)  # fmt: skip
def test_an_adapter_tag_is_answered_with_what_to_do(tiny, tag: str, name: str, weight: str) -> None:
    for changed in ({"prompt": f"a man {tag}"}, {"negative_prompt": tag}):
        with pytest.raises(UserError) as refused:
            make_plan(asked(**changed), tiny, Attached(tiny))
        assert refused.value.code == "lora_in_prompt"
        assert (refused.value.facts["name"], refused.value.facts["weight"]) == (name, weight)


def test_other_pointed_brackets_stay() -> None:
    for text in ("a man <3", "a <b> man", "x < y: z > w"):
        assert naming.adapter_tag(text) is None


# Tokens


def named(base: BaseModel, merges: Sequence[str]) -> BaseModel:
    """The base with a tokenizer whose vocabulary has these merges, and letters."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    pairs = [tuple(merge.split("+")) for merge in merges]
    pieces = [*letters, *(f"{one}</w>" for one in letters), *("".join(pair) for pair in pairs),
              "<|startoftext|>", "<|endoftext|>"]  # fmt: skip
    tokenizer = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=pairs, model_max_length=48
    )
    base.parts = {**base.parts, "tokenizer": tokenizer}
    return base


@pytest.fixture
def clip(folders) -> BaseModel:
    """A vocabulary that has what CLIP's has of these words."""
    return named(
        load(folders("sd1")),
        [
            "c+r</w>",
            "m+a",
            "ma+n</w>",
            "a+n",
            "an+n</w>",
            "m+ia</w>",
            "i+a</w>",
            "mi+a</w>",
            "m+i",
            "e+m",
            "m+a</w>",
            "m+ma</w>",
            "a+r</w>",
        ],
    )


@pytest.mark.parametrize(
    ("token", "known"),
    [
        ("cr7d", ["cr"]),
        ("man7", ["man"]),
        ("ann3", ["ann"]),
        ("zk7", []),
        ("zk1x", []),
        ("crzq", []),
        ("suar", []),
        ("xcr7d", []),
    ],
)
def test_words_that_the_base_knows_are_found_in_a_token(clip: BaseModel, token: str, known: list[str]) -> None:
    assert known_words(clip, token) == known
    proposal = propose(clip, token, "man", taken=["zkzz"])
    assert proposal and known_words(clip, proposal) == [] and naming.check_token(proposal, "man") == proposal
    assert proposal[0] == token[0] and proposal != "zkzz"


def test_a_token_with_the_class_noun_is_refused_with_a_better_one() -> None:
    for token in ("man7", "7man", "xman1", "aman"):
        if not re.match(r"[a-z]", token):
            continue
        with pytest.raises(UserError) as refused:
            naming.check_token(token, "man")
        assert refused.value.code == "token_noun"
        assert naming.check_token(refused.value.facts["suggestion"], "man")
    assert naming.check_token("cr7d", "man") == "cr7d" and naming.check_token("man7", "dog") == "man7"


def test_a_learned_token_within_another_word_is_not_taken_for_it(clip: BaseModel) -> None:
    learned = LearnedToken(clip, "cr7d")
    learned.vectors.data += 1
    for text, heard_it in (("cr7d man", True), ("a cr7d man", True), ("xcr7d man", False), ("a xcr7d man", False)):
        before = clip.encode_prompts([text]).prompt_embeds
        with apply_learned_tokens(clip, [[(learned, 1.0)]]):
            assert torch.equal(clip.encode_prompts([text]).prompt_embeds, before) != heard_it, text


def test_mentions_are_whole_words() -> None:
    for text in ("cr7d man", "(CR7D:1.3)", "like cr7d."):
        assert naming.mentions(text, "cr7d")
    for text in ("xcr7d", "cr7dx", "écr7d", "cr7d_2", "cr7"):
        assert not naming.mentions(text, "cr7d")
