"""Pictures depend on prompt, seed and model alone, have the asked size, and differ."""

import io
import json
import time

import pytest
from PIL import Image

from genonaut.local.comfy.painting import artist
from genonaut.local.comfy.values import Latent, Model, Recipe
from tests.local.test_comfy_sockets import history, post
from tests.support.simulator import text_to_image

MODEL = Model("aurelia-xl.safetensors")
PROMPTS = {
    "a lighthouse at dusk": "sea",
    "misty mountains": "mountains",
    "aurora over a frozen lake": "aurora",
    "abstract ink": "flow",
    "bauhaus poster": "mosaic",
    "cherry blossom": "blossom",
    "deep forest": "forest",
    "city skyline": "city",
    "a ringed planet": "space",
}


def recipe(prompt="a lighthouse", seed=1, model=MODEL, negative="", steps=20):
    return Recipe(prompt, negative, seed, model, steps, 7.0)


@pytest.mark.parametrize(("prompt", "style"), PROMPTS.items())
def test_words_choose_the_style_and_512_pixels_are_cheap(prompt, style):
    assert artist.style_of(recipe(prompt)) == style
    began = time.process_time()
    picture = artist.draw(recipe(prompt), 0, (512, 512))
    assert time.process_time() - began < 1.0  # a third of it here; the rest is for slow machines
    assert picture.size == (512, 512)
    assert len(picture.quantize(16).getcolors()) > 4


def test_the_same_recipe_gives_the_same_pixels():
    draw = [artist.draw(recipe(), 0, (96, 64)).tobytes() for _ in range(2)]
    assert draw[0] == draw[1]


@pytest.mark.parametrize(
    "other",
    [
        recipe(seed=2),
        recipe(prompt="a lighthouse, calm"),
        recipe(negative="blurry"),
        recipe(model=Model("nocturne-xl.safetensors")),
        recipe(model=MODEL.with_lora("riso-ink.safetensors", 0.8)),
        recipe(steps=2),
    ],
)
def test_every_part_of_the_recipe_shows(other):
    assert artist.draw(other, 0, (64, 64)).tobytes() != artist.draw(recipe(), 0, (64, 64)).tobytes()


def test_the_pictures_of_a_batch_differ():
    batch = artist.decode(Latent(64, 64, 3, recipe()))
    assert len({picture.tobytes() for picture in batch}) == 3


def test_prompts_without_known_words_are_spread_over_the_styles():
    styles = {artist.style_of(recipe("qwerty", seed)) for seed in range(60)}
    assert len(styles) >= 7


@pytest.mark.parametrize("size", [(8, 8), (64, 512), (512, 64)])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_style_survives_odd_sizes(prompt, size):
    assert artist.draw(recipe(prompt), 0, size).size == size


def test_noise_becomes_the_picture_step_by_step():
    unveiling = artist.Unveiling(Latent(64, 64, 1, recipe()), 128)
    last = unveiling.at(1.0)

    def distance(share):
        pairs = zip(unveiling.at(share).tobytes(), last.tobytes(), strict=True)
        return sum(abs(a - b) for a, b in pairs)

    assert distance(0.1) > distance(0.5) > distance(0.9) > 0


def test_a_width_of_100_is_accepted_and_gives_96(sim):
    entry = history(sim, post(sim, text_to_image(size=(100, 64), batch=2)))["outputs"]["9"][
        "images"
    ]
    assert len(entry) == 2
    picture = Image.open(io.BytesIO(sim.http.get("/view", params=entry[0]).content))
    assert picture.size == (96, 64)


def test_a_saved_picture_carries_graph_and_extra_pnginfo_and_takes_the_highest_number(sim):
    folder = sim.directory / "output" / "numbers"
    folder.mkdir(exist_ok=True)
    (folder / "x_00041_.png").write_bytes(b"")
    graph = text_to_image(seed=8, prefix="numbers/x")
    extra = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    entry = history(sim, post(sim, graph, extra_data=extra))["outputs"]["9"]["images"][0]
    assert entry == {"filename": "x_00042_.png", "subfolder": "numbers", "type": "output"}
    with Image.open(folder / "x_00042_.png") as picture:
        assert json.loads(picture.text["prompt"]) == graph
        assert json.loads(picture.text["workflow"]) == {"nodes": []}


def test_an_encoded_picture_shows_through_as_far_as_denoise_allows(sim):
    graph = text_to_image(seed=4)
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    graph["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    graph["3"]["inputs"] |= {"latent_image": ["11", 0], "denoise": 0.0}
    graph["12"] = {
        "class_type": "LatentUpscaleBy",
        "inputs": {"samples": ["3", 0], "upscale_method": "bilinear", "scale_by": 0.5},
    }
    graph["8"]["inputs"]["samples"] = ["12", 0]
    entry = history(sim, post(sim, graph))["outputs"]["9"]["images"][0]
    with Image.open(sim.directory / "output" / "test" / entry["filename"]) as picture:
        assert picture.size == (128, 128)
        assert picture.getpixel((64, 64)) == (214, 120, 72)
