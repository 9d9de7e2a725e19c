"""Everything people read comes in their language: the catalogues are whole, and no sentence goes past them."""

import ast
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from babel.messages import Message as Entry
from babel.messages.pofile import read_po

from bot import language
from bot.commands.commands import COMMANDS
from bot.delivery import Delivery
from bot.language import LANGUAGES, closest, listing, number, say, several, speak, speaking, spoken
from bot.messages import Message
from bot.replies import discord as on_discord
from bot.replies import jobs, refusals
from bot.replies import telegram as on_telegram
from storage.errors import UserError
from storage.looks import unknown

ROOT = Path(__file__).parents[2]
OTHERS = LANGUAGES[1:]


def _words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("catalog", ROOT / ".ci/words.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


words = _words()


def entries(tag: str) -> list[Entry]:
    with (language.CATALOG / f"{tag}.po").open("rb") as file:
        return [entry for entry in read_po(file, locale=tag) if entry.id]


def forms(said: Any) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said or ())


def placeholders(sentence: str) -> list[str]:
    return sorted(set(re.findall(r"\{\w*\}", sentence)))


# The catalogues


@pytest.mark.parametrize("tag", OTHERS)
def test_a_catalogue_has_each_sentence_of_the_code_and_no_other(tag: str) -> None:
    asked = {entry.id for entry in words.template() if entry.id}
    found = {entry.id for entry in entries(tag)}
    assert (asked - found, found - asked) == (set(), set()), "run make words"


@pytest.mark.parametrize("tag", OTHERS)
def test_each_sentence_is_translated_with_its_placeholders(tag: str) -> None:
    wanting = []
    for entry in entries(tag):
        said = forms(entry.string)
        wanted = placeholders(forms(entry.id)[-1])
        # A form for one may write its number out.
        agree = placeholders(said[-1]) == wanted and all(set(placeholders(form)) <= set(wanted) for form in said)
        if not all(said) or len(said) != len(forms(entry.id)) or not agree or "fuzzy" in entry.flags:
            wanting.append(entry.id)
    assert wanting == []


@pytest.mark.parametrize("tag", OTHERS)
def test_commands_are_named_alike_in_every_language(tag: str) -> None:
    """A translator must not translate what people have to type."""
    for entry in entries(tag):
        for english, other in zip(forms(entry.id), forms(entry.string), strict=True):
            typed = [re.findall(r"(?<![\w/])/[a-z]+|--[a-z]+\b", text) for text in (english, other)]
            assert sorted(set(typed[0])) == sorted(set(typed[1])), entry.id


@pytest.mark.parametrize("tag", LANGUAGES)
def test_descriptions_fit_on_the_platforms(tag: str) -> None:
    with speaking(tag):
        for command in COMMANDS.values():
            assert 1 <= len(say(command.description)) <= 100
            assert all(1 <= len(say(option.description)) <= 100 for option in command.options)
            assert len(on_discord.form_title(command.name)) <= 45
            assert all(len(on_discord.label(option.name)) <= 45 for option in command.options)
        assert len(say(refusals.CONSENT)) <= 200


def test_no_sentence_is_an_f_string() -> None:
    """No catalogue can know a sentence with its values filled in; it has {placeholders}."""
    calls = [
        (path, node)
        for path in (ROOT / "bot").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in words.CALLS
    ]
    assert len(calls) > 400
    assert [
        f"{path}:{node.lineno}" for path, node in calls if any(isinstance(one, ast.JoinedStr) for one in node.args)
    ] == []


@pytest.mark.parametrize("path", sorted((ROOT / "bot/replies").glob("*.py")), ids=lambda path: path.name)
def test_no_sentence_goes_past_the_catalogue(path: Path) -> None:
    """Whatever has several words in it is a docstring, an argument of `say`, or a line that somebody has to type."""
    tree = ast.parse(path.read_text("utf-8"))
    said: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in words.CALLS:
            said |= {id(one) for argument in node.args for one in ast.walk(argument)}
        elif isinstance(node, ast.Expr):
            said.add(id(node.value))
        elif isinstance(node, ast.JoinedStr) and ast.unparse(node).removeprefix("f").strip("'\"").startswith("/"):
            said |= {id(one) for one in ast.walk(node)}
    loose = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
        if re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", node.value)
    ]
    assert loose == []


# Which language


@pytest.mark.parametrize(
    ("wishes", "found"),
    [
        (["de"], "de"),
        (["de-AT"], "de"),
        (["DE_ch"], "de"),
        (["fr", "de"], "de"),
        (["en-US", "de"], "en"),
        (["fr"], "en"),
        ([None], "en"),
        (["../x"], "en"),
        ([], "en"),
    ],
)
def test_the_closest_language_is_found(wishes: list[str | None], found: str) -> None:
    assert closest(wishes) == found


def test_speaking_restores_the_language_and_ignores_unknown_ones() -> None:
    with speaking("de"):
        assert spoken() == "de"
        with speaking(None):
            assert spoken() == "de"
        with speaking("xx"):
            assert spoken() == "en"
        assert say("Cancel") == "Abbrechen"
    assert (spoken(), say("Cancel")) == ("en", "Cancel")


@pytest.mark.parametrize(
    ("tag", "one", "many", "amount", "list_of"),
    [("en", "1 photo", "2 photos", "1,234.5", "a, b and c"), ("de", "1 Foto", "2 Fotos", "1.234,5", "a, b und c")],
)
def test_plurals_numbers_and_lists(tag: str, one: str, many: str, amount: str, list_of: str) -> None:
    with speaking(tag):
        assert [several("{count} photo", "{count} photos", count) for count in (1, 2)] == [one, many]
        assert number(1234.5) == amount
        assert listing(["a", "b", "c"]) == list_of


# A conversation in German

ENGLISH = re.compile(
    r"\b(the|and|you|your|is|are|was|not|of|it|this|that|with|here|have|has|for|to|can|will|photos?|pictures?|avatars?"
    r"|drawing|cancel|delete|share|step|left|again|job|ready|by|from|line|until|what|who|any|all)\b"
)
TYPED = re.compile(r"/[a-z]+[^.!?\n“”„]*|--[a-z]+|\(folder, weight_name=name\)|pipeline\S+")


def texts_of(message: Message) -> Iterator[str]:
    yield message.text
    yield from (button.label for button in message.buttons)
    yield from (verdict.text for verdict in message.verdicts)
    yield from (file.text for file in message.files)
    yield from (shown.text for shown in message.pictures if shown.text != message.prompt)
    if message.progress:
        yield message.progress.label


def assert_german(message: Message) -> None:
    for text in texts_of(message):
        left = ENGLISH.findall(TYPED.sub("", text.replace(message.prompt or "\0", "")))
        # "was" is German too, and "all" in "all dem".
        assert [word for word in left if word not in ("was", "all")] == [], text


async def test_a_conversation_in_german_has_no_english(bot: Any) -> None:
    speak("de")
    bot.engine.verdicts = {
        2: {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}},
        3: {"ok": True, "codes": ["soft", "near_duplicate"], "facts": {"of": 1}},
    }
    bot.engine.album = {"looks": unknown(), "left_out": {"drawings": 1}}
    said = []
    asked = await bot.say("/train mia7 woman", 7)
    said += [asked.message, checked := await bot.answer(asked)]
    assert checked.text.startswith(
        "7 Fotos: 6 gut, #2 zeigt zwei Gesichter. Die Zeichnung unter den Fotos lasse ich weg"
    )
    for button in checked.buttons[1:-1]:
        said += [(question := await bot.press(button.action)).message]
        said += [(await bot.press(question.message.buttons[0].action)).message]
    training = await bot.press(checked.buttons[0].action)
    said += [training.message, trained := await bot.answer(training)]
    said += [(await bot.press(button.action)).message for button in trained.buttons]
    drawing = await bot.say("/imagine mia7 woman in a red hoodie --count 2")
    said += [drawing.message, await bot.answer(drawing)]
    queued = await bot.say("/imagine mia7 at night")
    for line in (
        "/avatars", "/avatars mia7", "/avatars mia7 --rename mia8", "/avatars mia8 --default", "/status", "/cancel",
        "/share mia8 --expires 7d", "/share mia8 Ben", "/unshare mia8", "/export mia8", "/link", "/link wrong",
        "/mydata", "/privacy", "/help", "/delete mia8", "/forget", "/nonsense", "/imagine", "/imagine --count 9 mia8",
        "/imagine mai8 in a suit", "/train x", "/train man man", "/operator stats", "/cancel nothing",
        "/imagine mia8 --size big", "/imagine mia8 --steps many",
    ):  # fmt: skip
        reply = await bot.say(line)
        said.append(reply.message)
    said.append(await bot.answer(queued))
    said.append(
        (await bot.press("forget-not:" + (await bot.records.users.get_or_create("chat", "anna", "Anna")).id)).message
    )
    for message in said:
        assert_german(message)


FACTS = {
    "suggestion": "mia8", "token": "mia7", "noun": "woman", "tokens": ["mia7", "cr7d"], "count": 3, "fewest": 5,
    "most": 10, "number": 2, "megabytes": 20, "option": "seed", "command": "imagine", "name": "x", "near": None,
    "word": "xyz", "example": "/imagine", "length": 1200, "least": 1, "active": 20, "platform": "discord",
    "program": "webui", "programs": "webui, comfyui",
    "person": "Ben", "account": "discord:1", "what": "pictures", "limit": 5, "used": 5, "asked": 4,
    "free": "2030-01-01T00:00:00+00:00", "style": "oils", "styles": ["inks"], "tag": "<lora:inks:1>",
    "weight": "1",
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(refusals.REFUSALS))
def test_every_refusal_is_german(code: str) -> None:
    facts = {**FACTS, "option": "prompt"} if code == "missing_option" else FACTS
    with speaking("de"):
        assert_german(refusals.refusal(UserError(code, **facts)))


@pytest.mark.parametrize(
    "compose",
    [
        lambda: on_discord.waiting_for_you("j"),
        on_discord.followed_below,
        on_discord.followed_in_private,
        on_discord.followed_nowhere,
        on_discord.posted,
        on_discord.posted_before,
        on_discord.pictures_gone,
        lambda: on_telegram.welcome("Mia"),
        lambda: on_telegram.how_to("train"),
        lambda: on_telegram.in_private("train"),
        on_telegram.start_first,
        lambda: on_telegram.waiting(3, "t", album=False),
        lambda: on_telegram.waiting(3, "t", album=True),
        lambda: on_telegram.collecting("/train mia7 woman", 3, "t"),
        lambda: on_telegram.consent("/train mia7 woman", 12, "t"),
        lambda: on_telegram.kept(Message(""), 2),
        lambda: Message(on_telegram.needs_more(1)),
        lambda: Message(on_telegram.needs_line(6)),
        on_telegram.which,
        on_telegram.too_late,
        on_telegram.no_picture,
        on_telegram.not_fetched,
        on_telegram.dropped,
        lambda: on_telegram.expired(3),
        on_telegram.no_command,
        jobs.forgotten,
        lambda: refusals.apology("a1b2"),
    ],
)
def test_texts_of_one_platform_are_translated(compose: Callable[[], Message]) -> None:
    with speaking("de"):
        assert_german(compose())


# What comes later


async def test_an_answer_comes_in_the_language_of_its_question(bot: Any) -> None:
    """Also in a process that never heard the person, and with another one asking beside."""
    await bot.avatar("mia7")
    with speaking("de"):
        german = await bot.say("/imagine mia7 in a suit", room="berlin")
    english = await bot.say("/imagine mia7 in a suit", room="london")
    posted: dict[str, list[str]] = {}

    class Rooms:
        name = "chat"

        async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
            posted.setdefault(room, []).append(message.text)
            return f"{room}#{len(posted[room])}"

        async def edit(self, ref: str, message: Message) -> None:
            posted.setdefault(ref.partition("#")[0], []).append(message.text)

    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    delivery = Delivery(bot.records, bot.events, Rooms(), bot.commands.answer)
    for reply, room in ((german, "berlin"), (english, "london")):
        await delivery.follow(reply.job_id, f"{room}#0", reply.message)
    await delivery.sweep()
    await delivery.flush()
    await bot.engine.work_off()
    await delivery.sweep()
    assert german.message.text == "Zeichne 4 Bilder: als Nächstes dran."
    assert posted["berlin"] == ["Zeichnung: fertig.", "Bitte schön (Seeds 7, 8, 9 und 10)."]
    assert posted["london"] == ["Drawing: done.", "Here you are (seeds 7, 8, 9 and 10)."]
