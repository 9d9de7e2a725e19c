"""People talk to the avatar service here: commands, wording, delivery and the frontends."""
