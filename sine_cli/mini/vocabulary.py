"""The words `mini` knows: nouns, styles, places and colours, and which combinations it never trains on.

A caption is "STYLE of NOUN PLACE": "a pencil sketch of a castle in the snow". Words are the everyday ones;
where an icon set has another name for the thing, `NOUNS` gives it.
"""

from dataclasses import dataclass
from zlib import crc32

_ANIMALS = """
ant bat bear beaver bird butterfly camel cat=cat-face chicken cow=cow-face crab crocodile deer dog=dog-face
dolphin dragon=dragon-face duck eagle elephant fish flamingo fox frog giraffe goat gorilla hedgehog
hippopotamus bee=honeybee horse=horse-face jellyfish kangaroo koala ladybug=lady-beetle leopard lion lizard
llama lobster monkey=monkey-face mouse=mouse-face octopus otter owl panda parrot peacock penguin pig=pig-face
poodle rabbit=rabbit-face rat rhinoceros rooster scorpion seal shark sheep=ewe shrimp skunk sloth snail snake
spider squid swan tiger=tiger-face turkey turtle unicorn whale=spouting-whale wolf zebra t-rex
chick=front-facing-baby-chick dinosaur=sauropod"""
_PEOPLE = """
girl boy man woman baby old-man old-woman princess prince santa=santa-claus robot ghost skull alien
snowman guard detective cook=man-cook clown=clown-face teddy-bear jack-o-lantern"""
_PLANTS = """
cactus tree=deciduous-tree pine-tree=evergreen-tree palm-tree rose sunflower tulip flower=hibiscus
cherry-blossom maple-leaf mushroom potted-plant four-leaf-clover bouquet daisy=blossom lotus"""
_FOOD = """
apple=red-apple avocado banana bread broccoli burrito birthday-cake candy carrot cheese=cheese-wedge
cherries cookie coconut corn=ear-of-corn croissant cucumber cupcake doughnut fried-egg=cooking
eggplant french-fries grapes hamburger hot-dog pepper=hot-pepper ice-cream=soft-ice-cream kiwi=kiwi-fruit
lemon lollipop mango melon onion orange=tangerine pancakes peach pear pineapple pizza popcorn potato pretzel
salad=green-salad sandwich strawberry sushi taco teapot tomato cup-of-coffee=hot-beverage waffle watermelon
wine-glass beer=beer-mug cocktail=cocktail-glass pie garlic"""
_TRAVEL = """
airplane ambulance anchor bicycle bus car=automobile castle church fire-engine ferris-wheel fountain
factory helicopter house hospital balloon hut tower=tokyo-tower locomotive motorcycle
mountain=mount-fuji police-car rocket sailboat school ship tent taxi tractor train=high-speed-train truck
umbrella volcano racing-car temple=classical-building mosque scooter=motor-scooter canoe flying-saucer tram
satellite parachute"""
_OBJECTS = """
alarm-clock axe backpack bed bell bomb book=closed-book books broom camera candle chair
couch=couch-and-lamp crown diamond=gem-stone door dress drum envelope fan=folding-hand-fan glasses
guitar hammer handbag hat=top-hat high-heeled-shoe key lamp=light-bulb laptop lipstick magnet microscope
money-bag mailbox=postbox newspaper paintbrush pencil piano=musical-keyboard radio ring running-shoe saxophone
scissors screwdriver shield shopping-cart socks sunglasses t-shirt telephone telescope television toilet
toothbrush trophy trumpet violin watch world=globe-showing-europe-africa basketball baseball soccer-ball
football=american-football kite christmas-tree gift=wrapped-gift puzzle-piece artist-palette skateboard
boxing-glove microphone snowflake sun star moon=crescent-moon cloud rainbow heart=red-heart fire
seashell=spiral-shell feather chess-pawn magic-wand"""


def _nouns() -> dict[str, str]:
    words = " ".join((_ANIMALS, _PEOPLE, _PLANTS, _FOOD, _TRAVEL, _OBJECTS)).split()
    pairs = (word.split("=") if "=" in word else (word, word) for word in words)
    return {
        noun if noun in ("t-rex", "t-shirt", "jack-o-lantern") else noun.replace("-", " "): icon
        for noun, icon in pairs
    }


NOUNS = _nouns()
"""Noun -> the name of its icon in the sets."""

UNCOUNTED = {
    "bread",
    "broccoli",
    "cheese",
    "corn",
    "french fries",
    "popcorn",
    "salad",
    "sushi",
    "garlic",
    "fire",
}
PLURAL = {"cherries", "grapes", "pancakes", "books", "glasses", "socks", "scissors", "sunglasses"}
UNIQUE = {"sun", "moon", "world"}


@dataclass(frozen=True)
class Style:
    """How a picture is made: the words for it, most usual first, and where it comes from."""

    words: tuple[str, ...]
    icon_sets: tuple[str, ...] = ()
    share: float = 1.0


DRAWN = {
    "cartoon": Style(("a cartoon", "a drawing", "a cartoon drawing"), ("noto", "noto-v1", "emojione"), 1.6),
    "flat icon": Style(
        ("a flat icon", "a sticker", "a flat illustration"), ("twemoji", "fluent-emoji-flat", "fxemoji"), 1.3
    ),
    "3d render": Style(
        ("a 3d render", "a 3d model", "a glossy 3d render"), ("fluent-emoji-3d", "fluent-emoji"), 1.4
    ),
    "black and white icon": Style(
        ("a black and white icon", "a stencil"), ("fluent-emoji-high-contrast",), 0.5
    ),
}
"""Styles that an icon set has of itself."""

RESTYLED = {
    "photo": Style(("a photo", "a photograph"), share=1.2),
    "pencil sketch": Style(("a pencil sketch", "a sketch", "a pencil drawing")),
    "watercolor painting": Style(("a watercolor painting", "a watercolor", "a painting")),
    "oil painting": Style(("an oil painting", "a painting", "an oil painting")),
    "stone sculpture": Style(
        ("a stone sculpture", "a sculpture", "a marble sculpture", "a statue"), share=1.2
    ),
    "golden statue": Style(("a golden statue", "a golden sculpture", "a gold statue"), share=0.8),
    "wooden carving": Style(("a wooden carving", "a wooden sculpture"), share=0.7),
    "neon sign": Style(("a neon sign", "a neon light"), share=0.8),
    "pixel art": Style(("a pixel art", "pixel art"), share=0.8),
    "mosaic": Style(("a mosaic", "a tile mosaic"), share=0.7),
    "blueprint": Style(("a blueprint", "a technical drawing"), share=0.5),
}
"""Styles made of a drawn one by `media`."""

STYLES = DRAWN | RESTYLED

PLACES = {
    "grass": ("on grass", "in a meadow", "on the grass"),
    "snow": ("in the snow", "in winter", "in the snow"),
    "beach": ("on the beach", "at the beach"),
    "night": ("at night", "under the stars"),
    "sky": ("in the sky", "among clouds"),
    "forest": ("in a forest", "in the woods"),
    "water": ("under water", "in the sea"),
    "desert": ("in the desert",),
    "city": ("in a city", "on a street"),
    "sunset": ("at sunset",),
    "autumn": ("in autumn", "among autumn leaves"),
    "fire": ("in flames", "on fire"),
    "space": ("in space",),
    "rain": ("in the rain",),
}
"""Place -> the words for it, most usual first."""

COLOURS = {
    "white": (255, 255, 255), "black": (18, 18, 18), "red": (214, 42, 42), "orange": (244, 142, 34),
    "yellow": (250, 214, 62), "green": (52, 160, 72), "blue": (50, 100, 220), "light blue": (162, 212, 250),
    "purple": (130, 62, 180), "pink": (250, 162, 200), "brown": (122, 78, 42), "gray": (132, 132, 132),
}  # fmt: skip

_ONE_IN = 10


def held_out(noun: str, other: str) -> bool:
    """Whether the noun with this style or place is kept from all training: one pair in ten, by its CRC-32."""
    return crc32(f"{noun}|{other}".encode()) % _ONE_IN == 0


def phrase(noun: str) -> str:
    """The noun as it stands in a caption: "a dog", "an apple", "the sun", "socks"."""
    if noun in UNCOUNTED or noun in PLURAL:
        return noun
    if noun in UNIQUE:
        return f"the {noun}"
    return f"{'an' if noun[0] in 'aeio' or noun == 'umbrella' else 'a'} {noun}"
