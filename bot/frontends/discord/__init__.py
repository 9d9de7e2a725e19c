"""Discord: slash commands, a form for photos, buttons, and messages that follow a job.

All input arrives as interactions; the bot reads no messages and needs no intent for that. Who sees what:

- in the private chat with the bot, ordinary messages;
- elsewhere, answers that only the person who asked sees, through the interaction's token while it is valid. A job that
  may outlast the token is followed in an ordinary message without pictures or prompt. An answer that is too late for
  the token is opened by a [Show me] button. [Post here] shows private pictures to everybody;
- where the bot cannot write, the private chat is used instead of the channel.
"""

from bot.frontends.discord.bot import serve

__all__ = ["serve"]
