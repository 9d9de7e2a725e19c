"""The command line's error messages: for each code what is wrong, and what to do next.

The chats have their own messages for these codes in `bot/replies/refusals.py`.
"""

from collections.abc import Mapping

from storage.errors import UserError

SENTENCES: Mapping[str, str] = {
    "base_unusable": "The base model {base} cannot be used: {reason}. Use a diffusers folder, or leave out --base.",
    "no_photos": "There are no photos in {folder}. Put 5 to 10 photos of the person there.",
    "no_good_photos": "Only {good} of {of} photos can be used. The minimum is {needed}. {verdicts}",
    "missing_avatar": "There is no avatar in {folder}. Train one: python -m engine train --out {folder}",
    "wrong_base": "This avatar was trained on another base model ({trained}). The base model in use is {used}.",
    "bad_adapter": "The adapter in {folder} cannot be used: {reason}.",
    "not_a_lora": "The adapter in {folder} is full DreamBooth. Other programs' LoRA formats cannot hold it.",
    "quantised_base": "This base model fits into memory only in eight bits, and then only plain LoRA can be trained. "
    "Use --method lora without --dora.",
    "bad_setting": "{problem}",
    "token_word": "'{token}' is an English word. Use a made-up word, such as {suggestion}.",
    "token_noun": "'{token}' holds the class noun {noun}, which the base model knows. Use a made-up word without it, "
    "such as {suggestion}.",
    "token_shape": "'{token}' cannot be a token. A token is a letter and up to 15 lower-case letters or digits, "
    "such as {suggestion}.",
    "noun_shape": "'{noun}' cannot be a class noun. A class noun is one word, such as man, woman or dog.",
    "minor": "A {noun} cannot give consent, so no avatar can be trained with that class noun.",
    "prompt_too_long": "The prompt has {length} characters. At most {limit} are allowed.",
    "lora_in_prompt": "{tag} is not read in prompts. Leave it out, and draw with --style {name} --weight {weight}; "
    "import the file first: python -m engine import {name}.safetensors --out {name}",
    "empty_prompt": "The prompt is empty. Say what to draw, such as: cr7d man in a suit",
    "out_of_range": "{what} must be between {low} and {high}, not {value}.",
    "bad_size": "Width and height must be multiples of {multiple} between {low} and {high}, not {value}.",
    "bad_original": "The picture {file} cannot be varied: {reason}. Use another one, or a smaller copy in PNG or JPEG.",
    "no_judge": "There are no weights of the judge in {folder}. Train them: python -m engine.pretraining.judge",
    "token_and_noun": "A person needs a token and a class noun, such as --token cr7d --class man. A style has neither.",
    "no_file": "There is no file {file}.",
    "no_captions": "There are no captions in {folder}. Write a metadata.jsonl, each line of which names a picture: "
    '{{"file_name": "1.png", "text": "what it shows"}}. Or put a 1.txt beside each 1.png.',
    "no_good_pictures": "None of the {of} pictures in {folder} can be used. {reasons}",
    "uncaptioned": "There is no caption for {photo} in {folder}. Write one, or leave out --captions.",
    "bad_captions": "{file}, line {line}: {reason}.",
    "optimiser_unusable": "The optimiser {optimiser} cannot be used here: {reason}. Use --optimiser adamw.",
    "tracker_missing": "Reports to {tracker} need a package that is not installed: pip install {package}",
    "seed_is_dreambooth": "--recipe seed is full DreamBooth. Leave out --method, or use another --recipe.",
    "lora_only": "Full DreamBooth has no {what}. Use --method lora, or leave that option out.",
    "not_for_lokr": "A LoKr has no {what}. Leave out --{what}, or use --adapter lora.",
    "factor_is_lokr": "--factor is a LoKr's. Use it with --adapter lokr, or leave it out.",
    "prior_album_at_noise": "This recipe trains on class pictures with the noise as target, so photos among them would "
    "turn the class into the person. Leave out --prior-album, or use --recipe auto.",
    "no_min_snr": "Min-SNR weighting is for base models that predict noise or velocity; this one uses flow matching. "
    "Leave out --min-snr.",
    "text_is_fixed": "The text encoder of this base model cannot have adapters. Leave out {what}.",
    "word_stays": "The avatar in {folder} has a learned token embedding, which kohya's format cannot hold. "
    "Use --format diffusers.",
    "magnitudes_stay": "The avatar in {folder} has DoRA magnitudes of inputs, which {format} cannot hold for this base "
    "model. The folder itself can be used here.",
    "rank_too_large": "As a LoRA this file would take {gigabytes} GB, and {most} GB is the most. Import its nearest "
    "approximation with --rank {rank}, which misses {percent} % of the change.",
    "no_rank": "The launcher started {size} processes without ranks ({name} is not set). Use torchrun.",
    "no_master": "For training on several machines, set MASTER_ADDR on all of them to the address of the first.",
    "no_team": "{size} processes were started, but only {found} found each other. Use torchrun.",
    "alone": "{command} runs as a single process. Only train, finetune and study can run as several.",
    "looks_unseen": "No photo shows a face that can be read. Use sharper photos, or say all of --hair-length, "
    "--hair-colour, --facial-hair, --skin and --glasses.",
    "looks_unused": "{option} is for photos of people that the base model draws as cartoons, and here the pictures are "
    "learned as they are. Leave out {option}.",
    "captions_unused": "The person in these photos is drawn, and the drawings have captions of their own. "
    "Leave out --captions.",
    "disk_full": "The disk is full: {folder} cannot be written. Free some space, and run the command again.",
    "loss_not_finite": "The training broke down at step {step}: the loss is {loss}. Use a learning rate below {rate} "
    "(--learning-rate), or --precision float32.",
    "would_overwrite": "{file} exists already. Use another --out, or --overwrite to replace it. A LoRA can also go on "
    "from its last step: give the options of its training again, with more --steps.",
    "file_exists": "{file} exists already. Use another --out, or --overwrite to replace it.",
    "out_of_memory": "Not even one picture at a time fits into memory. Use a smaller --size or --method lora.",
}

WARNINGS: Mapping[str, str] = {
    "checkpoint_damaged": "The checkpoint {file} is damaged, and is {aside} now. The training begins anew.",
    "checkpoint_of_another_run": "The checkpoint {file} is of another training, with other photos, options or seed, "
    "and is {aside} now. This training begins anew.",
    "checkpoint_unwritten": "The checkpoint {file} could not be written, and the training goes on without it. {reason}",
    "captions_unread": "{count} of {of} captions are longer than this base model reads. Their ends are left out.",
    "class_pictures_damaged": "The class pictures in {file} are damaged, and the file is {aside} now. They are drawn "
    "anew.",
    "class_pictures_unwritten": "The class pictures could not be kept in {file}, and the training goes on with them. "
    "{reason}",
}
"""What `Listener.on_warning` tells, for the command line and for the engine's log."""

NOTICES: Mapping[str, str] = {
    "cartoon": "The embedded base model draws cartoons: the pictures look drawn, and so does a person in photos.",
}
"""The command line's notices about a base model's pictures, by `Family.notice`. The chats' are in `bot/replies`."""


OPERATOR_NOTICES: Mapping[str, str] = {
    "cartoon": "This base model draws cartoons of people. For pictures like photos set AVATAR_BASE_MODEL "
    "(docs/base-models.md).",
}
"""What an engine tells its operators when it starts, by `Family.notice`."""

DRAWN_FROM_PHOTOS = (
    "I'll draw you as a cartoon: {drawings} drawings are learned in the photos' place. "
    "Options such as --hair-length long correct what I see."
)
NOT_SURE = "I'm not sure about all of it. Correct it with {options}."
LEARNED_AS_THEY_ARE = (
    "This base model draws cartoon people and knows no {noun}: the pictures are learned as they are, "
    "and will hardly look like them."
)
TOKEN_KNOWN = "The base model reads '{token}' with words that it knows ({words}), and mixes them into the person."
TOKEN_PROPOSED = "A better --token is {proposal}."
UNKNOWN_WORDS = "The base model knows no {phrases}; the rest is drawn."
MISSPELLED = "Did you mean {similar}?"
KNOWN_WORDS = "It knows {examples}, for example."
OTHER_SIZE = "The base model draws no {asked} pixels; the pictures have {drawn}."
PHOTOS_LEFT_OUT = "Photos among the drawings are left out: {count}."
DRAWINGS_LEFT_OUT = "Drawings among the photos are left out: {count}."


def sentence(error: UserError) -> str:
    """The error message, on one line. Raises KeyError for a code that only the chats have."""
    return SENTENCES[error.code].format(**error.facts)


def warning(code: str, facts: Mapping[str, object]) -> str:
    """The text of a warning, on one line."""
    return WARNINGS[code].format(**facts)
