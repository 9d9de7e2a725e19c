"""A job's progress as one line of text."""

from bot.messages import Progress

_CELLS = 12


def with_progress_bar(text: str, progress: Progress | None) -> str:
    """`text`, and below it a bar with a percentage such as "▰▰▰▱▱▱▱▱▱▱▱▱ 25%" where the progress is measured."""
    if progress is None or progress.fraction is None:
        return text
    fraction = max(0.0, min(1.0, progress.fraction))
    full = round(_CELLS * fraction)
    return f"{text}\n{'▰' * full}{'▱' * (_CELLS - full)} {fraction:.0%}"
