"""The Telegram frontend: commands by scope, albums gathered in private chats, answers that come once."""

from bot.frontends.telegram.bot import TelegramFailure, serve

__all__ = ["TelegramFailure", "serve"]
