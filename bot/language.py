"""The reader's language. The code has the sentences in English, `bot/catalog` a file of translations for each language.

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
"""The first is the language of the sentences in the code, and the default."""

_LOCALES = {ENGLISH: "en_GB"}
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


def spoken() -> str:
    """The language of this task's sentences."""
    return _spoken.get()


def speak(language: str) -> None:
    """Set the language of this task and of the tasks and timers that it starts later; English if it is unknown."""
    _spoken.set(language if language in LANGUAGES else ENGLISH)


@contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Use this language inside the `with` block; None keeps the task's language."""
    former = _spoken.set(language if language in LANGUAGES else _spoken.get() if language is None else ENGLISH)
    try:
        yield
    finally:
        _spoken.reset(former)


def closest(preferred: Iterable[str | None]) -> str:
    """The best of LANGUAGES for tags such as "de-AT", in order of preference; English if none fits."""
    tags = [tag.replace("-", "_").lower() for tag in preferred if tag]
    return negotiate_locale(tags, LANGUAGES, aliases={}) or ENGLISH


def say(sentence: str, /, **values: object) -> str:
    """The sentence in the reader's language, with its `{placeholders}` filled in."""
    return _catalogue(spoken()).gettext(sentence).format(**values)


def several(one: str, many: str, count: int, /, **values: object) -> str:
    """Like `say`, in the singular or plural form for `count`, which also fills in `{count}`."""
    return _catalogue(spoken()).ngettext(one, many, count).format(count=number(count), **values)


def marked(sentence: str) -> str:
    """Mark a sentence for the catalogue and return it unchanged; call `say` with it when it is shown."""
    return sentence


def number(value: float) -> str:
    """A number as people write it: 1,000 in English, 1.000 in German."""
    return format_decimal(value, locale=_locale(spoken()))


def listing(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return format_list(list(items), locale=_locale(spoken()))


@cache
def dictionary(language: str) -> Mapping[str, str | tuple[str, ...]]:
    """All translations of a language, for the chat page. The key of a plural is its singular, the value all forms."""
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
    # Compiled here, once a process, so that no .mo file has to be built and shipped.
    compiled = io.BytesIO()
    write_mo(compiled, _entries(language))
    compiled.seek(0)
    return Translations(compiled)


def _entries(language: str) -> Catalog:
    with (CATALOG / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)
