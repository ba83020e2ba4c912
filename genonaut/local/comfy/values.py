"""Define what travels along the links of a graph: models, conditioning, latents, pictures."""

from dataclasses import dataclass, replace
from typing import Self

from PIL import Image


@dataclass(frozen=True)
class Model:
    """Be a checkpoint with the LoRAs laid over it, as (name, strength)."""

    checkpoint: str
    loras: tuple[tuple[str, float], ...] = ()

    def with_lora(self, name: str, strength: float) -> Self:
        """Lay one more LoRA over the model; a strength of 0 changes nothing."""
        return replace(self, loras=(*self.loras, (name, strength))) if strength else self


@dataclass(frozen=True)
class Conditioning:
    """Be the encoded text of one or more prompts."""

    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        """Give all texts as one."""
        return ", ".join(self.texts)


@dataclass(frozen=True)
class Recipe:
    """Be everything that decides a picture, except its size."""

    prompt: str
    negative: str
    seed: int
    model: Model
    steps: int
    cfg: float


@dataclass(frozen=True)
class Latent:
    """Be a batch of pictures that are not decoded yet.

    An empty one has neither ``recipe`` nor ``source``; ``source`` comes from encoded pictures and
    shows through as far as ``denoise`` is below 1.
    """

    width: int
    height: int
    batch: int
    recipe: Recipe | None = None
    source: tuple[Image.Image, ...] = ()
    denoise: float = 1.0

    def __str__(self) -> str:
        shape = f"[{self.batch}, 4, {self.height // 8}, {self.width // 8}]"
        return f"{{'samples': tensor(shape={shape}, seed={self.recipe and self.recipe.seed})}}"


@dataclass(frozen=True)
class Pictures:
    """Be a batch of decoded pictures, all of one size."""

    items: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Give width and height."""
        return self.items[0].size

    def __str__(self) -> str:
        width, height = self.size
        return f"tensor(shape=[{len(self.items)}, {height}, {width}, 3])"
