"""Choose colours: a mood found in the prompt's words, else one that the seed picks."""

import colorsys
import random
from dataclasses import dataclass
from typing import Self

Colour = tuple[int, int, int]


def parse(text: str) -> tuple[Colour, ...]:
    """Read colours written as ``2b3a67 7d6b91``."""
    return tuple(
        (int(word[:2], 16), int(word[2:4], 16), int(word[4:], 16)) for word in text.split()
    )


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Go from ``first`` (0) to ``second`` (1)."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def turned(colour: Colour, hue: float, saturation: float = 1.0) -> Colour:
    """Turn the hue by a share of the circle and scale the saturation."""
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    red, green, blue = colorsys.hsv_to_rgb((h + hue) % 1, min(1.0, s * saturation), v)
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class Palette:
    """Hold the colours of one mood."""

    sky: tuple[Colour, ...]
    """From the zenith to the horizon."""
    far: Colour
    near: Colour
    light: Colour
    accents: tuple[Colour, ...]

    @classmethod
    def of(cls, sky: str, far: str, near: str, light: str, accents: str) -> Self:
        """Read a palette from hexadecimal colours."""
        return cls(parse(sky), parse(far)[0], parse(near)[0], parse(light)[0], parse(accents))

    def turned(self, hue: float, saturation: float) -> Self:
        """Shift every colour a little, so that equal moods differ."""

        def shift(colour: Colour) -> Colour:
            return turned(colour, hue, saturation)

        return type(self)(
            tuple(shift(colour) for colour in self.sky),
            shift(self.far),
            shift(self.near),
            shift(self.light),
            tuple(shift(colour) for colour in self.accents),
        )


MOODS = {
    "dawn": Palette.of(
        "35477d 8d7ba5 f0a98a fde6c0",
        "b294ad",
        "232c4a",
        "fff4dc",
        "e8735a f2b880 5f7fa8 f7e7ce 7d4f7a",
    ),
    "dusk": Palette.of(
        "1c1d42 5d2c70 c94f6d f9a66c",
        "8f4d80",
        "150f2e",
        "ffdca6",
        "f25c54 f7b267 7f5a9c 2e1f4d f9dcc4",
    ),
    "day": Palette.of(
        "3a86c8 7fbbe3 cbe7f5 fdf7e6",
        "9fbfcf",
        "1d4a4a",
        "fffbe8",
        "f4a259 5b8e7d bc4b51 8cb369 f4e285",
    ),
    "night": Palette.of(
        "050818 0e1738 1d3260 3f5e8c",
        "2b4170",
        "05070f",
        "f6f2dc",
        "6dd3ce c8e9a0 f7a278 a13d63 351e29",
    ),
    "autumn": Palette.of(
        "6b7a8f c9a27e f0c987 fbe9c6",
        "b9855a",
        "3a1f1a",
        "fff0cf",
        "c8553d f28f3b 8f2d1d ffd5a5 588157",
    ),
    "winter": Palette.of(
        "7f9fbf b6cde0 e3edf5 fbf6f2",
        "a9bfd3",
        "2f4158",
        "fffaf0",
        "5d8aa8 dfe9f2 8fb0cb c86b5e f3f7fb",
    ),
    "spring": Palette.of(
        "6fb1d6 aedbea f6dfe6 fff3ea",
        "a8c8b4",
        "2c5545",
        "fff8ea",
        "f28ab2 ffc6d9 7dbf8e fff0b3 b58bd6",
    ),
    "neon": Palette.of(
        "0b0220 2a0a5e 7a1fa2 ff4fa3",
        "5a2a9c",
        "08021a",
        "7df9ff",
        "ff2e88 00e5ff ffe14d 7c4dff 19ffa0",
    ),
    "ember": Palette.of(
        "1a0f14 4a1a1f a8382b f6933f",
        "7d2f2c",
        "12090c",
        "ffe3ad",
        "ef5b2b f9a03f 6f1d1b ffe6a7 99582a",
    ),
    "ocean": Palette.of(
        "0b2e4f 146c94 3fb3b8 d7f2e3",
        "4c97a6",
        "07233b",
        "fdfce5",
        "f2c14e 19a7ce f78154 b4e4d8 0f4c75",
    ),
}

_WORDS = {
    "dawn": "dawn sunrise morning pastel soft dreamy",
    "dusk": "dusk sunset evening twilight golden romantic",
    "day": "day noon sunny bright clear summer blue",
    "night": "night midnight dark moon moonlit stars starry aurora",
    "autumn": "autumn fall october orange rust harvest desert",
    "winter": "winter snow ice snowy frozen cold arctic",
    "spring": "spring blossom flowers flower cherry pink fresh",
    "neon": "neon cyberpunk vaporwave synthwave electric futuristic",
    "ember": "fire lava volcano ember red warm dragon",
    "ocean": "ocean sea underwater teal lagoon tropical turquoise",
}


def choose(words: list[str], rng: random.Random, fitting: tuple[str, ...]) -> Palette:
    """Take the mood that the prompt names first; else one of the moods that fit the style."""
    named = [mood for word in words for mood, known in _WORDS.items() if word in known.split()]
    mood = rng.choice(fitting)
    palette = MOODS[named[0] if named else mood]
    return palette.turned(rng.uniform(-0.025, 0.025), rng.uniform(0.9, 1.1))
