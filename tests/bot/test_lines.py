import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.lines import Line, line_of, parse, values_of
from bot.table import COMMANDS
from storage.errors import UserError
from storage.jobs import Imagine


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/train mia7 woman", Line("train", {"token": "mia7", "noun": "woman"})),
        ("/train --consent mia7 woman", Line("train", {"consent": True, "token": "mia7", "noun": "woman"})),
        ("/imagine mia7 in a suit", Line("imagine", {"prompt": "mia7 in a suit"})),
        (
            "/Imagine mia7, well-lit -- by a lake --count 2 --guidance 7.5 --negative a hat, glasses",
            Line(
                "imagine",
                {"prompt": "mia7, well-lit -- by a lake", "count": 2, "guidance": 7.5, "negative": "a hat, glasses"},
            ),
        ),
        ("/imagine --seed 7 --prompt mia7", Line("imagine", {"seed": 7, "prompt": "mia7"})),
        ("/cancel", Line("cancel")),
        ("/share mia7 Anna Berg", Line("share", {"token": "mia7", "person": "Anna Berg"})),
        (
            "/share mia7 --expires 7d --person Anna Berg",
            Line("share", {"token": "mia7", "person": "Anna Berg", "expires": "7d"}),
        ),
        ("/unshare mia7 Anna Berg", Line("unshare", {"token": "mia7", "person": "Anna Berg"})),
        ("  /delete   mia7 ", Line("delete", {"token": "mia7"})),
        ("/imagine\nmia7 in a suit\n--count 2", Line("imagine", {"prompt": "mia7 in a suit", "count": 2})),
        *(
            (f"/imagine mia7 {text}", Line("imagine", {"prompt": "mia7", **values}))
            for text, values in (
                ("--count=2", {"count": 2}),
                ("--count = 2", {"count": 2}),
                ("--count:2", {"count": 2}),
                ("--count2", {"count": 2}),
                ("--Count 2", {"count": 2}),
                ("--COUNT=2", {"count": 2}),
                ("—count 2", {"count": 2}),
                ("–Count=2", {"count": 2}),
                ("-count 2", {"count": 2}),
                ("-seed=7", {"seed": 7}),
                ("--count\t2", {"count": 2}),
                ("--count\u00a02", {"count": 2}),
                ("--count 2.0", {"count": 2}),
                ("--count 2,0", {"count": 2}),
                ('--count "2"', {"count": 2}),
                ("--seed 4,294,967,295", {"seed": 4294967295}),
                ("--seed 4.294.967.295", {"seed": 4294967295}),
                ("--seed 4 294 967 295", {"seed": 4294967295}),
                ("--guidance 7,5", {"guidance": 7.5}),
                ("--guidance=7,5 --count=3", {"guidance": 7.5, "count": 3}),
                ("--guidance 7", {"guidance": 7.0}),
                ("--guidance ,5", {"guidance": 0.5}),
                ("--negative=a hat, glasses", {"negative": "a hat, glasses"}),
                ("--negative “a hat”", {"negative": "a hat"}),
                ("--negative ratio 1=2", {"negative": "ratio 1=2"}),
                ("--size=512 x 768", {"size": "512 x 768"}),
                ("--style=inks:0.6", {"style": "inks:0.6"}),
                ("--style:inks:0,6", {"style": "inks:0,6"}),
            )
        ),
        (
            "/imagine mia7 well-lit – by a lake —smiling, anime -style, a -seed of doubt",
            Line("imagine", {"prompt": "mia7 well-lit – by a lake —smiling, anime -style, a -seed of doubt"}),
        ),
        ("/train mia7 woman --Consent", Line("train", {"token": "mia7", "noun": "woman", "consent": True})),
        ("/train mia7 woman --consent=yes", Line("train", {"token": "mia7", "noun": "woman", "consent": True})),
        ("/train mia7 woman --consent=no", Line("train", {"token": "mia7", "noun": "woman"})),
        ("/train --consent no mia7 woman", Line("train", {"token": "mia7", "noun": "woman"})),
        ("/avatars mia7 --Default", Line("avatars", {"token": "mia7", "default": True})),
        ("/share mia7 --expires=7d", Line("share", {"token": "mia7", "expires": "7d"})),
    ],
)
def test_lines(text: str, line: Line) -> None:
    assert parse(text) == line


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("/imagin mia7", "unknown_command"),
        ("/", "unknown_command"),
        ("/imagine mia7 --frames 4", "unknown_option"),
        ("/train mia7 woman --photos 4", "unknown_option"),
        ("/imagine mia7 --count four", "not_a_number"),
        ("/imagine mia7 --guidance inf", "not_a_number"),
        ("/imagine mia7 --guidance 1,2,3", "not_a_number"),
        ("/imagine mia7 --count 2,5", "not_a_number"),
        ("/imagine mia7 --count=", "not_a_number"),
        ("/imagine mia7 --counts=2", "unknown_option"),
        ("/imagine mia7 —cuont 2", "unknown_option"),
        ("/train mia7 young woman", "too_many_words"),
        ("/status all", "too_many_words"),
    ],
)
def test_refused_lines(text: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert caught.value.code == code


@given(st.text(max_size=60), st.sampled_from(["/", *(f"/{name} " for name in COMMANDS)]))
def test_any_line_is_read_or_refused(text: str, start: str) -> None:
    try:
        line = parse(start + text)
    except UserError:
        return
    options = {option.name for option in COMMANDS[line.command].options}
    assert line.values.keys() <= options


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Imagine("mia7 in a suit", count=1, seed=7), "/imagine mia7 in a suit --count 1 --seed 7"),
        (
            Imagine("mia7", ("a",), 2, 2**32 - 1, 20, 7.0, "a hat, glasses", 512, 768, style="inks", style_weight=0.6),
            "/imagine mia7 --style inks:0.6 --negative a hat, glasses --size 512x768 --guidance 7 --count 2"
            " --seed 4294967295 --steps 20",
        ),
    ],
)
def test_line_of_and_parse_are_inverse(asked: Imagine, line: str) -> None:
    assert line_of(asked) == line
    assert parse(line) == Line("imagine", values_of(asked))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_example_is_a_line_of_its_command(command: object) -> None:
    assert parse(command.example).command == command.name  # type: ignore[attr-defined]
