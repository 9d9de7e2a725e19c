"""What a drawing could not do as it was asked: a prompt that the base model does not read or know in full, a size that
it cannot draw."""

from collections.abc import Sequence

from bot.language import listing, say
from bot.replies.phrases import Facts

NAMED_MOST = 3
"""Most phrases of a prompt, or examples, that one sentence names."""
PHRASE_MOST = 40
"""Most characters of a phrase: without punctuation, a whole prompt in another language is one."""


UNREAD_MOST = 100
"""Characters that are shown of the end of a prompt that was not read."""


def on_prompt(result: Facts) -> str | None:
    """What of the prompt the base model could not make use of; None if it was all of it. It quotes the prompt."""
    return " ".join(filter(None, (unread(result), weights(result), unknown_words(result)))) or None


def unread(result: Facts) -> str | None:
    """The end of the prompt that was not read."""
    end = str(result.get("unread") or "")
    if not end:
        return None
    shown = end if len(end) <= UNREAD_MOST else f"… {end[-UNREAD_MOST:]}"
    return say("The prompt is too long for me. I did not read its end: “{end}”", end=shown)


def weights(result: Facts) -> str | None:
    """That weights of words had no effect."""
    if not result.get("weights_ignored"):
        return None
    return say("I know no weights such as (word:1.3) here, and read the words as they are.")


def unknown_words(result: Facts) -> str | None:
    """Which words of the prompt could not be drawn, and what could be; None if there are none. It quotes the prompt."""
    unknown = result.get("unknown") or ()
    if not unknown:
        return None
    phrases = [_quoted(_shortened(one["phrase"])) for one in unknown]
    more = [say("{count} more", count=len(phrases) - NAMED_MOST)] if len(phrases) > NAMED_MOST else []
    said = [say("I can't draw {phrases} yet; I drew the rest.", phrases=listing([*phrases[:NAMED_MOST], *more]))]
    similar = list(dict.fromkeys(word for one in unknown for word in one["similar"][:1]))[:NAMED_MOST]
    examples = [names[0] for names in (result.get("known") or {}).values() if names][:NAMED_MOST]
    if similar:
        said.append(say("Did you mean {words}?", words=listing([_quoted(word) for word in similar])))
    elif examples:
        said.append(say("I know {examples}, for example.", examples=listing([_quoted(one) for one in examples])))
    return " ".join(said)


def other_size(result: Facts) -> str | None:
    """The size that was drawn in place of the one that was asked for; None if that was drawn."""
    size = result.get("size")
    if not size or [*size["asked"]] == [*size["drawn"]]:
        return None
    asked, drawn = size_text(size["asked"]), size_text(size["drawn"])
    return say("I can't draw {asked} yet, so I drew {drawn}.", asked=asked, drawn=drawn)


def size_text(sides: Sequence[int]) -> str:
    """A size as --size takes it."""
    width, height = sides
    return f"{width}x{height}"


def _quoted(text: str) -> str:
    return say("“{text}”", text=text)


def _shortened(phrase: str) -> str:
    return phrase if len(phrase) <= PHRASE_MOST else phrase[: PHRASE_MOST - 1].rstrip() + "…"
