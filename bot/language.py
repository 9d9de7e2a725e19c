"""The reader's language. Sentences stand in the code in English, their translations in `bot/catalog`, a file for each.

To add a sentence: write `say("Hello {name}.", name=name)`, run `make words`, and fill in the new entry of each file
in `bot/catalog`. A test names what is missing.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from babel import Locale, negotiate_locale
from babel.lists import format_list
from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import NullTranslations, Translations

CATALOG = Path(__file__).parent / "catalog"
ENGLISH = "en"
LANGUAGES = (ENGLISH, "de")
"""The first is what the code is written in, and what is said where nobody's language is known."""

_LOCALES = {ENGLISH: "en_GB"}
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


def spoken() -> str:
    """The language that this task says everything in."""
    return _spoken.get()


def speak(language: str) -> None:
    """From now on this task says everything in one of LANGUAGES. Tasks and timers that it starts do as it does."""
    _spoken.set(language if language in LANGUAGES else ENGLISH)


@contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Say what is said inside in this language; None leaves the task's own."""
    former = _spoken.set(language if language in LANGUAGES else _spoken.get() if language is None else ENGLISH)
    try:
        yield
    finally:
        _spoken.reset(former)


def closest(wishes: Iterable[str | None]) -> str:
    """The best of LANGUAGES for tags such as "de-AT", the dearest first; English if there is none."""
    tags = [wish.replace("-", "_").lower() for wish in wishes if wish]
    return negotiate_locale(tags, LANGUAGES, aliases={}) or ENGLISH


def say(sentence: str, /, **values: object) -> str:
    """The sentence in the reader's language, with its `{placeholders}` filled in."""
    return _catalogue(spoken()).gettext(sentence).format(**values)


def several(one: str, many: str, count: int, /, **values: object) -> str:
    """As `say`, with the form that goes with `count`, which fills in `{count}`."""
    return _catalogue(spoken()).ngettext(one, many, count).format(count=number(count), **values)


def marked(sentence: str) -> str:
    """The sentence as it is, for the catalogue to find; `say` it when somebody reads it."""
    return sentence


def number(value: float) -> str:
    """A number as people write it: 1,000 in English, 1.000 in German."""
    return format_decimal(value, locale=_locale(spoken()))


def listing(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return format_list(list(words), locale=_locale(spoken()))


@cache
def dictionary(language: str) -> Mapping[str, str | tuple[str, ...]]:
    """All sentences of a language for somebody who looks them up elsewhere; in plural, all forms by the first one."""
    if language == ENGLISH:
        return {}
    return {
        message.id if isinstance(message.id, str) else message.id[0]: (
            message.string if isinstance(message.string, str) else tuple(message.string or ())
        )
        for message in _entries(language)
        if message.id
    }


@cache
def _locale(language: str) -> Locale:
    return Locale.parse(_LOCALES.get(language, language))


@cache
def _catalogue(language: str) -> NullTranslations:
    if language == ENGLISH:
        return NullTranslations()
    # Compiled here, once for each process: a file less to build, to ship and to forget.
    compiled = io.BytesIO()
    write_mo(compiled, _entries(language))
    compiled.seek(0)
    return Translations(compiled)


def _entries(language: str) -> Catalog:
    with (CATALOG / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)
