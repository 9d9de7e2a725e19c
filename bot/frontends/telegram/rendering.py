"""Renders a `Message` for Telegram: plain text with entities, never markup, so that no prompt can break it."""

from collections.abc import Sequence

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from bot.frontends.progress import with_progress_bar
from bot.messages import Button, Message

TEXT_MOST = 4096
CAPTION_MOST = 1024
ALBUM_MOST = 10
ALERT_MOST = 200
ACTION_BYTES = 64
_ROW_UNITS = 28
"""Most characters of all labels in a row of buttons."""


def units(text: str) -> int:
    """The length as Telegram counts it, in UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


def clipped(text: str, most: int) -> str:
    """The text, cut to `most` code units with an ellipsis if it is longer."""
    if units(text) <= most:
        return text
    return text.encode("utf-16-le")[: 2 * (most - 1)].decode("utf-16-le", "ignore") + "…"


def pieces(text: str, most: int = TEXT_MOST) -> list[str]:
    """The text in parts that each fit into a message, cut at line ends where possible."""
    parts = [""]
    for line in text.splitlines(keepends=True):
        rest = line
        while units(parts[-1] + rest) > most:
            if parts[-1]:
                parts.append("")
                continue
            head = rest.encode("utf-16-le")[: 2 * most].decode("utf-16-le", "ignore")
            parts[-1], rest = head, rest[len(head) :]
            parts.append("")
        parts[-1] += rest
    return [part.rstrip() for part in parts if part.strip()]


def text_of(message: Message) -> str:
    """The message's text, with a progress bar below it if the progress is measured, and the remark."""
    text = with_progress_bar(message.text, message.progress)
    return f"{text}\n{message.remark}" if message.remark else text


def keyboard(buttons: Sequence[Button], own: Sequence[InlineKeyboardButton] = ()) -> InlineKeyboardMarkup | None:
    """The buttons in rows that fit a phone's screen. Raises ValueError for an action that Telegram would refuse."""
    for button in buttons:
        if not 1 <= len(button.action.encode()) <= ACTION_BYTES:
            raise ValueError(f"a button's action has 1 to {ACTION_BYTES} bytes: {button.action.partition(':')[0]}")
    rows: list[list[InlineKeyboardButton]] = []
    for shown in (*(InlineKeyboardButton(button.label, callback_data=button.action) for button in buttons), *own):
        if rows and sum(units(other.text) for other in (*rows[-1], shown)) <= _ROW_UNITS:
            rows[-1].append(shown)
        else:
            rows.append([shown])
    return InlineKeyboardMarkup(rows) if rows else None
