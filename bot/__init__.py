"""The chat bot: commands, replies, delivery and a frontend for each platform. Never loads torch."""
