"""All texts for users, by topic. The functions turn facts into a `Message` or a sentence."""
