import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import limits
from bot.frontends.chat.sessions import Session
from storage import naming
from storage.errors import UserError

TOKENS = st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True)


def refused(rule: object, *values: object) -> UserError:
    assert callable(rule)
    with pytest.raises(UserError) as caught:
        rule(*values)
    return caught.value


@given(TOKENS.filter(lambda text: text not in naming.COMMON_WORDS | naming.MINORS | set(naming.NOUNS)))
def test_a_token_is_returned_as_it_is(text: str) -> None:
    assert naming.token(text) == text


@given(st.text(max_size=40) | TOKENS)
def test_a_token_is_kept_or_refused_with_a_suggestion_that_works(text: str) -> None:
    try:
        assert re.fullmatch(r"[a-z][a-z0-9]{1,15}", naming.token(text))
    except UserError as error:
        assert naming.token(str(error.facts["suggestion"]))


@pytest.mark.parametrize("word", ["woman", "red", "suit", "person", "hat", "king", "dog"])
def test_an_english_word_is_no_token(word: str) -> None:
    error = refused(naming.token, word)
    assert (error.code, error.facts["suggestion"]) == ("token_word", f"{word}7")


@pytest.mark.parametrize("token", ["anna", "mia7", "cr7d", "sks", "suar", "zo"])
def test_names_and_made_up_words_are_tokens(token: str) -> None:
    assert naming.token(token) == token


@given(st.text(max_size=40), st.sets(TOKENS, max_size=8))
def test_a_suggestion_is_a_free_token(text: str, taken: set[str]) -> None:
    suggestion = naming.suggest_token(text, taken)
    assert naming.token(suggestion) == suggestion
    assert suggestion not in taken


@given(st.text(max_size=40))
def test_a_noun_is_one_word_of_letters(text: str) -> None:
    try:
        assert re.fullmatch("[a-z]{2,20}", naming.noun(text))
    except UserError as error:
        assert error.code in ("noun_shape", "minor")


def test_minors_are_refused() -> None:
    assert refused(naming.noun, "Child").code == "minor"


@pytest.mark.parametrize(
    ("rule", "most", "over"),
    [
        (limits.photo_count, 10, 11),
        (lambda size: limits.photo_size(size, 1), 20 * 1024 * 1024, 20 * 1024 * 1024 + 1),
        (limits.prompt, "x" * 1000, "x" * 1001),
        (limits.negative_prompt, "x" * 1000, "x" * 1001),
        (limits.count, 4, 5),
        (limits.steps, 150, 151),
        (limits.guidance, 30.0, 30.01),
        (limits.seed, 2**32 - 1, 2**32),
        (limits.size, "1536", "1537"),
        (limits.size, "64x1536", "64x1537"),
        (limits.lifetime, "365d", "366d"),
        (limits.quota, "100000", "100001"),
        (limits.notice, "x" * 1000, "x" * 1001),
        (limits.person_name, "x" * 32, "x" * 33),
        (limits.room_name, "x" * 32, "x" * 33),
    ],
)
def test_each_limit_is_taken_and_one_over_it_refused(
    rule: Callable[[object], object], most: object, over: object
) -> None:
    rule(most)
    refused(rule, over)


def test_of_31_rooms_the_one_entered_first_is_left() -> None:
    session = Session("Anna")
    for number in range(31):
        session = session.joined(f"room-{number}")
    assert (len(session.rooms), session.rooms[0], session.rooms[-1]) == (30, "room-30", "room-1")


@given(st.integers(-5, 40))
def test_five_to_ten_photos(count: int) -> None:
    if 5 <= count <= 10:
        assert limits.photo_count(count) == count
    else:
        assert refused(limits.photo_count, count).code in ("photos_few", "photos_many")


@given(st.integers(0, 2 * limits.PHOTO_BYTES))
def test_photo_sizes(size: int) -> None:
    if 1 <= size <= 20 * 1024 * 1024:
        assert limits.photo_size(size, 1) == size
    else:
        assert refused(limits.photo_size, size, 3).facts["number"] == 3


@given(st.text(max_size=1200))
def test_prompts(text: str) -> None:
    try:
        prompt = limits.prompt(text)
    except UserError as error:
        assert error.code.startswith("prompt_")
    else:
        assert 1 <= len(prompt) <= 1000
        assert prompt.encode()


def test_a_prompt_of_ten_thousand_characters() -> None:
    assert refused(limits.prompt, "a" * 10_000).facts["length"] == 10_000


@given(st.integers() | st.floats())
def test_numbers_stay_in_their_ranges(number: float) -> None:
    for rule, least, most in ((limits.count, 1, 4), (limits.steps, 1, 150), (limits.guidance, 0, 30)):
        if least <= number <= most:
            assert rule(number) is not None  # type: ignore[operator]
        else:
            assert refused(rule, number).code == "out_of_range"


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_sizes(width: int, height: int) -> None:
    if 64 <= width <= 1536 and 64 <= height <= 1536:
        assert limits.size(f" {width} x {height} ") == (width, height)
    else:
        assert refused(limits.size, f"{width}x{height}").code == "out_of_range"


@given(st.text(max_size=12), st.sampled_from([limits.size, limits.lifetime, limits.quota, limits.style]))
def test_any_text_is_read_or_refused(text: str, rule: object) -> None:
    assert callable(rule)
    try:
        rule(text)
    except UserError as error:
        assert error.code in ("size_shape", "lifetime_shape", "quota_shape", "style_shape", "out_of_range")


@given(st.integers(0, 10**6 - 1), st.sampled_from("mhdw"))
def test_lifetimes(number: int, unit: str) -> None:
    span = number * {"m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    if 60 <= span <= 365 * 86400:
        found = limits.lifetime(f"{number}{unit}")
        assert found is not None and found.total_seconds() == span
    else:
        assert refused(limits.lifetime, f"{number}{unit}").code == "lifetime_shape"


@given(st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True), st.integers(0, 300))
def test_a_style_has_a_weight_from_0_to_2(name: str, hundredths: int) -> None:
    weight = hundredths / 100
    if weight <= 2:
        assert limits.style(limits.style_word(name, weight)) == (name, weight)
    else:
        assert refused(limits.style, f"{name}:{weight}").code == "style_shape"


@pytest.mark.parametrize("text", ["inks:", "inks:much", "inks:-1", "inks:nan", "inks:1e0", ":0.6", "inks:0.6:0.6"])
def test_a_wrong_style_weight_is_refused(text: str) -> None:
    assert refused(limits.style, text).code == "style_shape"


def test_an_empty_text_means_the_default() -> None:
    assert (limits.size(" "), limits.lifetime(""), limits.quota("none")) == (None, None, None)


@given(st.text(max_size=80))
def test_names_of_people_and_rooms(text: str) -> None:
    for rule, code in ((limits.person_name, "name_shape"), (limits.room_name, "room_shape")):
        try:
            name = rule(text)
            assert 1 <= len(name) <= 32
            assert rule(name) == name
        except UserError as error:
            assert error.code == code
