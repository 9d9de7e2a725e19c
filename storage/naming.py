"""What an avatar may be called: the rules for its token and its class noun, for the chats and the command line."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from storage.errors import UserError

NOUNS = ("person", "man", "woman", "dog", "cat")
"""Class nouns that are offered first; any other single word is fine too."""

MINORS = frozenset(
    [
        "baby",
        "babies",
        "infant",
        "infants",
        "toddler",
        "toddlers",
        "child",
        "children",
        "kid",
        "kids",
        "boy",
        "boys",
        "girl",
        "girls",
        "schoolboy",
        "schoolgirl",
        "teen",
        "teens",
        "teenager",
        "teenagers",
        "minor",
        "minors",
        "son",
        "daughter",
    ]
)
"""Class nouns of minors, of whom no avatar can be trained."""

MEN = frozenset(
    """
    man guy gentleman male boy father dad grandfather grandpa uncle brother son husband groom actor king prince
    """.split()
)
"""Class nouns of men and boys."""

WOMEN = frozenset(
    """
    woman lady female girl mother mom mum grandmother grandma aunt sister daughter wife bride actress queen princess
    """.split()
)
"""Class nouns of women and girls."""

PEOPLE = (
    MEN
    | WOMEN
    | frozenset("person human adult child kid baby toddler teenager face people singer dancer athlete model".split())
)
"""Class nouns of people. Any other noun is taken for a thing or an animal."""

COMMON_WORDS = frozenset(
    """
    about above across act add after again air all almost along also always am among an and angry animal answer any
    apple are arm armchair around art as ask at away back bad bag ball bank bar bath beach bear beard beautiful because
    bed bee before begin behind bell best better big bike bird black blond blonde blue board boat body bold book boot
    both bottle bow box boy bread bright bring brother brown brush build bus but butter by cake call camera can candle
    cap captain car card cat chair cheese chest chicken child church circle city clean clear close cloth cloud coat
    coffee cold color colour come cook cool corner could cow crown cup curly cut dad dance dark day deep desk detail do
    dog door down draw dream dress drink drive drop dry duck each ear early earth east easy eat egg end eye face fall
    family far farm fast fat father field film fine fire first fish flat floor flower fly food foot for forest form
    free fresh friend frog from front fruit full fun game garden gentleman girl give glass glasses go goat gold good
    gray great green grey ground group grow guitar guy hair half hand happy hard hat have he head hear heart heavy held
    helmet hello help her here hero high hill him his hold home hood hoodie horse hot hour house how human ice idea if
    image in into is island it jacket jeans job jump just keep key kid king kitchen lady lake lamp land large last late
    laugh lead leaf left leg less let letter life light like line lion lip list little live long look love low lunch
    machine mad magic make male female man many map mark me meet men metal middle milk mind mirror model mom money moon
    more morning most mother mountain mouse mouth move much music must my name near neck need new news next nice night
    no noise none north nose not note nothing now number of off office oil old on once one only open or orange order
    other our out over own page paint painting pair paper park part party pattern pen pencil people person phone photo
    picture piece pig pilot pink place plain plane plant plate play player please point poor portrait pretty prince
    princess purple put queen quick quiet rabbit rain read red rest rich ride right ring river road rock room rose
    round run sad safe sail same sand say scene school sea season seat see seed serious set shadow shape sharp she
    sheep ship shirt shoe shop short shoulder show side sign silver sing sister sit size skin skirt sky sleep slow small
    smile smiling smoke snow so soft some son song soon sound south space spring square stage stand star start station
    stay step still stone stop store storm story street strong style suit summer sun sunglasses sweater sweet swim
    table tail take talk tall tea team teeth tell ten than that the their them then there they thick thin thing think
    this three tie tiger time to today toe together tongue too tool top toward town toy train tree trip truck true try
    turban turn two ugly under up us use very view village violet visit voice wait walk wall war warm was wash watch
    water wave way we wear weather week well west wet what wheel when where which white who wide wife wild will wind
    window wine wing winter wish with woman women wonder wood wool word work world worm would write year yellow yes you
    young your zebra zero zoo
    actor actress adult artist astronaut avatar baby boss bride bunny chef child clown cowboy dad daughter doctor
    dragon driver elf fairy farmer fox groom guard hamster hipster husband infant judge kitten knight mum nurse officer
    parrot pet pirate pony priest puppy robot sailor singer soldier student teacher teenager toddler turtle uncle aunt
    vampire warrior witch wizard wolf worker
    """.split()
)
"""Common English words. A token that is one of them would put the person into every picture with that word."""

_TOKEN = re.compile(r"[a-z][a-z0-9]{1,15}")
_NOUN = re.compile(r"[a-z]{2,20}")


def token(text: str) -> str:
    """The avatar's made-up word: 2 to 16 lower-case letters and digits, a letter first, no English word."""
    if not _TOKEN.fullmatch(text):
        raise UserError("token_shape", token=_excerpt(text), suggestion=suggest_token(text))
    if text in COMMON_WORDS or text in MINORS or text in NOUNS:
        raise UserError("token_word", token=text, suggestion=suggest_token(text))
    return text


def check_token(text: str, noun: str) -> str:
    """As `token`, and it does not hold the class noun: man7 is read as man and 7, and would draw every man as one.

    Raises:
        UserError: `token_noun`.
    """
    if noun in token(text):
        rest = text.replace(noun, "")
        raise UserError("token_noun", token=text, noun=noun, suggestion=suggest_token(rest or "zk"))
    return text


def suggest_token(text: str, taken: Collection[str] = ()) -> str:
    """A free token near what the person typed; it always satisfies `token`."""
    plain = unicodedata.normalize("NFKD", text[:200]).lower()
    root = "".join(re.findall(r"[a-z0-9]", plain)).lstrip("0123456789")[:14] or "me"
    if _TOKEN.fullmatch(root) and re.search(r"\d", root) and root not in taken:
        return root
    # Seven first: it is the digit least like a letter.
    numbers = ("7", *(str(number) for number in range(1, 100) if number != 7))
    root = root.rstrip("0123456789")
    return next(root + number for number in numbers if root + number not in taken)


def noun(text: str) -> str:
    """The class noun, what the avatar is a kind of: one word of 2 to 20 letters, returned in lower case."""
    word = text.strip().lower()
    if not _NOUN.fullmatch(word):
        raise UserError("noun_shape", noun=_excerpt(text))
    if word in MINORS:
        raise UserError("minor", noun=word)
    return word


def mentions(text: str, token: str) -> bool:
    """Whether the token is a word of the text; within another word, as cr7d in xcr7d, it is not."""
    return re.search(rf"\b{re.escape(token)}\b", text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class AdapterTag:
    """What the Stable Diffusion WebUI reads in a prompt as the name of an adapter, such as <lora:inks:0.8>."""

    text: str
    name: str
    weight: float


_TAG = re.compile(r"<(?:lora|lyco|hypernet)\s*:([^:<>]*)(?::([^<>]*))?>", re.IGNORECASE)


def adapter_tag(prompt: str) -> AdapterTag | None:
    """The first of the prompt's adapter tags."""
    found = _TAG.search(prompt)
    if found is None:
        return None
    weight = re.match(r"(?:\w+\s*=\s*)?([+-]?\d*\.?\d+)", (found[2] or "").strip())
    return AdapterTag(found[0], found[1].strip(), float(weight[1]) if weight else 1.0)


def _excerpt(text: str) -> str:
    """The start of a wrong word, for an error message."""
    shown = "".join(character if character.isprintable() else "?" for character in text.strip())
    return shown if len(shown) <= 24 else shown[:23] + "…"
