"""Draw the pictures that thumbnails are measured on, and compare what was made of them."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from genonaut.core.thumbnails import ThumbSpec
from genonaut.local.comfy.painting import artist
from genonaut.local.comfy.values import Model, Recipe

SIZES = ThumbSpec().sizes
SUBJECTS = ("mountain", "lighthouse", "abstract flow", "blossom", "forest", "city", "galaxy")
SHAPES = ((832, 1216), (1024, 1024))
Way = Callable[[bytes], dict[int, bytes]]
"""A picture's bytes in, WebP by edge out."""

Plane = npt.NDArray[np.float64]


def gallery() -> list[bytes]:
    """Draw PNGs as ComfyUI saves them, every subject in both shapes, and some JPEG and WebP."""
    files = []
    for seed, subject in enumerate(SUBJECTS):
        for shape in SHAPES:
            recipe = Recipe(subject, "", seed, Model("bench.safetensors"), steps=20, cfg=7.0)
            drawn = artist.draw(recipe, 0, shape).convert("RGB")
            files.append(_encoded(drawn, "PNG", compress_level=4))
            if seed % 3 == 0:
                other = ("JPEG", 92) if shape == SHAPES[0] else ("WEBP", 90)
                files.append(_encoded(drawn, other[0], quality=other[1]))
    return files


def per_cpu_second(way: Way, files: list[bytes]) -> float:
    """Give how many pictures a way does per second of processor, its children's included."""
    began = cpu_s()
    for data in files:
        way(data)
    return len(files) / (cpu_s() - began)


def cpu_s() -> float:
    """Give the processor time of this process and of its living children."""
    me = Path("/proc/self").resolve().name
    children = Path(f"/proc/self/task/{me}/children").read_text().split()
    threads = [one for pid in children for one in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return time.process_time() + sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def judged(way: Way, files: list[bytes]) -> str:
    """Say how close to the originals, shrunk with Lanczos, a way's thumbnails are, and how large.

    SSIM as Wang et al. (2004): luma, Gaussian window of 11 pixels, sigma 1.5; mean over pictures.
    """
    likeness: dict[int, list[float]] = {edge: [] for edge in SIZES}
    sizes: dict[int, list[int]] = {edge: [] for edge in SIZES}
    for data in files:
        with Image.open(io.BytesIO(data)) as original:
            whole = original.convert("RGB")
        for edge, thumb in way(data).items():
            with Image.open(io.BytesIO(thumb)) as made:
                small = made.convert("L")
            reference = whole.resize(small.size, Image.Resampling.LANCZOS).convert("L")
            likeness[edge].append(ssim(small, reference))
            sizes[edge].append(len(thumb))
    return ", ".join(
        f"{edge} px: SSIM {np.mean(likeness[edge]):.4f}, {np.mean(sizes[edge]) / 1000:.1f} kB"
        for edge in SIZES
    )


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Give the structural similarity of two grey pictures, 1 for the same."""
    x, y = np.asarray(one, np.float64), np.asarray(other, np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    both = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(above / below))


def _blurred(plane: Plane) -> Plane:
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    rows = np.lib.stride_tricks.sliding_window_view(plane, 11, axis=0) @ weights
    blurred: Plane = np.lib.stride_tricks.sliding_window_view(rows, 11, axis=1) @ weights
    return blurred


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
