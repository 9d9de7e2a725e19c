"""Discord: slash commands, a form for photos, buttons, and messages that follow a job.

Everything comes in as an interaction; the bot reads no messages and asks for no intent to. Who sees what:

- in the private chat with the bot, ordinary messages;
- elsewhere, answers that only the asking person sees, through the interaction's token while it is fresh. Work that may
  outlast the token is followed in an ordinary message without pictures or prompt; what becomes ready too late for
  the token waits behind a [Show me] button, and [Post here] shows private pictures to everybody;
- where the bot cannot write, the private chat takes the place of the channel.
"""

from bot.frontends.discord.bot import serve

__all__ = ["serve"]
