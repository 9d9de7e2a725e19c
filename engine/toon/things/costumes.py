"""Costumes and professions: what the person wears from head to shoulders, often with the thing that belongs to it."""

from types import MappingProxyType

from engine.toon.things.drawing import BALD_CLIP, FACE_CLIP, FLUENT, GLASS_CLIP, HAT_CLIP, OWN, Thing


def _costume(
    name: str,
    *wordings: str,
    hat: str = "",
    icon: bool = False,
    roles: tuple[str, ...] = (),
    **colours: tuple[str, ...],
) -> Thing:
    """A costume. `roles` are nouns that give two wordings each, the first one four; `hat` is the clip of the hair."""
    hides = (
        {"clothes"} | ({"hat"} if hat else set()) | ({"hair"} if hat in (FACE_CLIP, GLASS_CLIP, BALD_CLIP) else set())
    )
    named = [f"as {_article(role)}" for role in roles]
    named += [f"dressed as {_article(role)}" for role in roles]
    named += [f"in {_article(role, costume=True)} {suit}" for role in roles[:1] for suit in ("costume", "outfit")]
    source = FLUENT if icon else OWN
    return Thing(
        name, "costume", (*named, *wordings), "loose", frozenset(hides), MappingProxyType(colours), hat, source
    )


def _article(noun: str, *, costume: bool = False) -> str:
    """The noun with its article; a name has one only before "costume"."""
    return noun if noun == "santa claus" and not costume else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


THINGS = (
    _costume("astronaut", "in a space suit", "in a spacesuit", "wearing a space suit", "with a space helmet",
             "in an astronaut suit", roles=("astronaut", "cosmonaut", "spaceman"), hat=GLASS_CLIP),
    _costume("pirate", "wearing a pirate hat", "as a pirate captain", roles=("pirate",), hat=HAT_CLIP),
    _costume("chef", "wearing a chef hat", "in a chef's hat", "in a chef uniform", roles=("chef", "cook", "baker"),
             hat=HAT_CLIP),
    _costume("doctor", "with a stethoscope", "wearing a white coat", "in a doctor's coat", "wearing a stethoscope",
             roles=("doctor", "physician", "surgeon")),
    _costume("nurse", "in a nurse uniform", "in scrubs", "wearing scrubs", roles=("nurse",), hat=HAT_CLIP),
    _costume("police", "in a police uniform", "wearing a police uniform", "as a policeman",
             "as a policewoman", roles=("police officer", "cop"), hat=HAT_CLIP),
    _costume("firefighter", "as a fireman", "in a firefighter uniform", "in a fire helmet", "wearing a fire helmet",
             roles=("firefighter",), hat=HAT_CLIP),
    _costume("knight", "in armor", "in armour", "wearing armor", "in a suit of armor", "in shining armor",
             roles=("knight", "medieval knight"), hat=FACE_CLIP),
    _costume("king", "in royal robes", "as a medieval king", "as royalty", roles=("king",), hat=HAT_CLIP),
    _costume("queen", "as a medieval queen", "in a royal gown", "with a tiara", "wearing a tiara", roles=("queen",)),
    _costume("princess", "in a princess dress", "wearing a princess dress", "in a pink princess dress",
             roles=("princess",)),
    _costume("wizard", "wearing a wizard hat", "in a wizard hat", "as a sorcerer", "in a wizard robe",
             roles=("wizard", "mage"), hat=HAT_CLIP),
    _costume("witch", "wearing a witch hat", "in a witch hat", "for halloween", roles=("witch",), hat=HAT_CLIP),
    _costume("cowboy", "wearing a cowboy hat", "in a cowboy hat", "with a cowboy hat", "as a cowgirl",
             "in the wild west", "as a sheriff", roles=("cowboy",), hat=HAT_CLIP),
    _costume("superhero", "with a cape", "wearing a cape", "in a superhero cape", "in a superhero suit", "as a hero",
             roles=("superhero", "super hero"), suit=("#2f5fc0", "#23272f", "#2f8f5a"),
             main=("#d92f2f", "#8a3fbf", "#e0742a")),
    _costume("ninja", "as a ninja warrior", "wearing a ninja hood", roles=("ninja",), hat=FACE_CLIP),
    _costume("builder", "with a hard hat", "wearing a hard hat", "in a hard hat", "in a safety vest",
             "at a construction site", "as an engineer", roles=("builder", "construction worker"), hat=HAT_CLIP),
    _costume("santa", "as father christmas", "in a santa suit", "dressed as santa", "at christmas", "for christmas",
             "as santa", roles=("santa claus",), hat=HAT_CLIP),
    _costume("farmer", "wearing a straw hat", "in a straw hat", "with a straw hat", roles=("farmer",), hat=HAT_CLIP),
    _costume("graduate", "in a graduation gown", "wearing a graduation cap", "at graduation", "in a graduation cap",
             "as a student at graduation", roles=("graduate",), hat=HAT_CLIP,
             main=("#d92f2f", "#3a6fd8", "#ffc52e", "#2f8f5a")),
    _costume("viking", "wearing a viking helmet", "in a viking helmet", "with a horned helmet",
             roles=("viking", "viking warrior"), hat=HAT_CLIP),
    _costume("detective", "as sherlock holmes", "with a magnifying glass", "in a trench coat", "as a spy",
             roles=("detective",), hat=HAT_CLIP),
    _costume("clown", "with a red nose", "with a clown nose", "in a clown wig", "at the circus", roles=("clown",),
             hat=BALD_CLIP),
    _costume("soldier", "in the army", "in camouflage", "in an army uniform", "in a military uniform",
             roles=("soldier",), hat=HAT_CLIP),
    _costume("pilot", "in a pilot uniform", "wearing aviator goggles", "in a leather flying helmet",
             roles=("pilot", "aviator", "fighter pilot"), hat=FACE_CLIP),
    _costume("samurai", "in samurai armor", "as a japanese warrior", roles=("samurai", "samurai warrior"),
             hat=HAT_CLIP),
    _costume("vampire", "as dracula", "as count dracula", "dressed as dracula", roles=("vampire",)),
    _costume("footballer", "in a football jersey", "in a soccer jersey", "playing football", "playing soccer",
             "in a football shirt", roles=("football player", "soccer player", "footballer"), icon=True,
             main=("#d92f2f", "#2f5fc0", "#2f8f5a", "#f0a52a")),
    _costume("scientist", "in a lab coat", "in a laboratory", "doing an experiment", "in a lab",
             roles=("scientist", "chemist", "mad scientist")),
    _costume("painter", "painting a picture", "with a paint palette", "with a palette", "painting",
             roles=("painter", "artist"), hat=HAT_CLIP, icon=True),
    _costume("angel", "with angel wings", "with wings", "with white wings", roles=("angel",)),
    _costume("devil", "with devil horns", "with horns", "as satan", "with a pitchfork", roles=("devil", "demon")),
    _costume("boxer", "with boxing gloves", "wearing boxing gloves", "boxing", "in a boxing ring", roles=("boxer",),
             main=("#2f5fc0", "#23272f", "#2f8f5a")),
    _costume("karate", "doing karate", "in a karate suit", "in a karate gi", "with a black belt", "doing martial arts",
             roles=("karate fighter", "martial artist")),
    _costume("tuxedo", "in a tuxedo", "wearing a tuxedo", "in a tux", "as a groom", "as james bond", "as a waiter",
             "in a black tuxedo"),
    _costume("sailor", "in a sailor suit", "wearing a sailor hat", "in a sailor hat", "in the navy", roles=("sailor",),
             hat=HAT_CLIP),
    _costume("bride", "in a wedding dress", "wearing a wedding dress", "at a wedding", "with a veil", roles=("bride",)),
    _costume("quarterback", "playing american football", "in a football helmet", "in shoulder pads", "as a linebacker",
             roles=("quarterback", "american football player"), hat=FACE_CLIP, icon=True,
             main=("#b8262f", "#2f5fc0", "#2f7f4f", "#5b3fa0")),
    _costume("racing-driver", "in a racing suit", "in a racing helmet", "in a motorcycle helmet",
             "with a racing helmet",
             roles=("racing driver", "race car driver", "formula one driver", "biker"), hat=FACE_CLIP,
             main=("#d92f2f", "#2f5fc0", "#f0a52a", "#2f8f5a")),
    _costume("pharaoh", "as an egyptian king", "as cleopatra", "as tutankhamun", "as an ancient egyptian",
             roles=("pharaoh",), hat=HAT_CLIP),
)  # fmt: skip
