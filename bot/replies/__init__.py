"""Everything the bot says to people, by topic. Facts come in, a `Message` or a sentence goes out."""
