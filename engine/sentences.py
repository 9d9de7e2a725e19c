"""What the command line says about an error: for each code what is wrong, and what to do next.

The chats word the same codes in `bot/replies/refusals.py`.
"""

from collections.abc import Mapping

from storage.errors import UserError

SENTENCES: Mapping[str, str] = {
    "base_unusable": "The base model {base} cannot be used: {reason}. Give a diffusers folder, or leave out --base.",
    "no_photos": "There are no photos in {folder}. Put 5 to 10 photos of the person there.",
    "no_good_photos": "Only {good} of {of} photos can be used; {needed} are needed. {verdicts}",
    "missing_avatar": "There is no avatar in {folder}. Train one: python -m engine train --out {folder}",
    "wrong_base": "This avatar was trained on another base model ({trained}); the one in use is {used}.",
    "bad_adapter": "The adapter in {folder} was not written by this engine: {reason}.",
    "not_a_lora": "The adapter in {folder} is a full DreamBooth, which no other program's LoRA format can hold.",
    "quantised_base": "This base model fits into memory in eight bits only, and then learns by plain LoRA alone. "
    "Take --method lora without --dora.",
    "bad_setting": "{problem}",
    "token_word": "'{token}' is an English word. Take one that means nothing else, such as {suggestion}.",
    "token_shape": "A token is a letter and up to 15 lower-case letters or digits, such as {suggestion}. Not: {token}",
    "noun_shape": "A class noun is one word, such as man, woman or dog. Not: {noun}",
    "minor": "A {noun} cannot give consent, so nobody can be trained under that class noun.",
    "prompt_too_long": "The prompt has {length} characters; at most {limit} are read. Shorten it.",
    "empty_prompt": "The prompt is empty. Say what to draw, such as: cr7d man in a suit",
    "out_of_range": "{what} must be between {low} and {high}, not {value}.",
    "bad_size": "Width and height must be multiples of {multiple} between {low} and {high}, not {value}.",
    "bad_original": "The picture {file} cannot be read. Take a PNG or JPEG.",
    "no_judge": "The judge has no weights in {folder}. Train them: python -m engine.pretraining.judge",
    "token_and_noun": "A person needs both, such as --token cr7d --class man. A style has neither.",
    "no_file": "There is no file {file}.",
    "no_captions": "There is no metadata.jsonl in {folder}. Each of its lines names a picture: "
    '{{"file_name": "1.png", "text": "what it shows"}}',
    "bad_captions": "{file}, line {line}: {reason}.",
    "optimiser_unusable": "The optimiser {optimiser} cannot be used here: {reason}. Take --optimiser adamw.",
    "tracker_missing": "Reports to {tracker} need a package that is not installed: pip install {package}",
    "seed_is_dreambooth": "The seed's recipe is full DreamBooth. Leave out --method, or take another --recipe.",
    "lora_only": "Full DreamBooth has no {what}. Take --method lora, or leave that out.",
    "prior_album_at_noise": "This recipe learns class pictures as they are, so that photos among them would turn "
    "the whole class into the person. Leave out --prior-album, or take --recipe auto.",
    "no_min_snr": "Min-SNR weighting is for base models that predict noise or velocity; this one matches a flow. "
    "Leave out --min-snr.",
    "text_is_fixed": "This base model's text encoder takes no adapters. Leave out {what}.",
    "word_stays": "The avatar in {folder} has a learned token embedding, which kohya's format cannot hold. "
    "Take --format diffusers.",
    "no_rank": "The launcher started {size} processes and gave them no numbers ({name} is not set). Use torchrun.",
    "no_master": "Training on several machines: set MASTER_ADDR to the first one's address on all of them.",
    "no_team": "{size} processes were started, but {found} found each other. Use torchrun.",
    "alone": "{command} runs as one process. Only train, finetune and study run as several.",
    "out_of_memory": "Not even one picture at a time fits into memory. Take a smaller --size or --method lora.",
}

NOTICES: Mapping[str, str] = {
    "cartoon": "The embedded base model draws cartoons: the pictures will look drawn, whatever the photos are.",
}
"""What the command line says about a base model's pictures, by `Family.notice`; for the chats: `bot/replies`."""


def sentence(error: UserError) -> str:
    """The error in one line. Raises KeyError for a code that only the chats know."""
    return SENTENCES[error.code].format(**error.facts)
