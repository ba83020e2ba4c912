"""What a picture of ComfyUI tells of its making, and what hostile ones do not do."""

import io
import json

import pytest
from PIL import Image, PngImagePlugin

from genonaut.core.embedded_graph import MAX_PROMPT, Made, read
from genonaut.core.workflow import Lora, TextToImage, build_text_to_image


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for keyword, words in texts.items():
        info.add_text(keyword, words)
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def graph(**sampler):
    inputs = {
        "seed": 7,
        "steps": 20,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "karras",
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        **sampler,
    }
    return {
        "3": {"class_type": "KSampler", "inputs": inputs},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
        "5": {"class_type": "LoraLoader", "inputs": {"model": ["4", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
        "8": {"class_type": "Text", "inputs": {"text": "blurry"}},
    }


def test_prompts_settings_and_model_are_followed_through_the_graph():
    found = read(png(prompt=json.dumps(graph(model=["5", 0])), workflow="{}"))
    assert found == Made(
        "a fox",
        "blurry",
        {
            "seed": 7,
            "steps": 20,
            "cfg": 6.5,
            "sampler_name": "euler",
            "scheduler": "karras",
            "model": "x.safetensors",
        },
    )


def test_our_own_graphs_are_understood():
    spec = TextToImage(
        prompt="żółw 🐢",
        negative_prompt="",
        checkpoint="m.ckpt",
        loras=(Lora("l.safetensors", 1, 1),),
        width=64,
        height=64,
        batch_size=1,
        seed=3,
        steps=4,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    ours = build_text_to_image(spec, "x")
    found = read(png(prompt=json.dumps(ours, ensure_ascii=False)))
    assert (found.prompt, found.settings["model"]) == ("żółw 🐢", "m.ckpt")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "no json",
        "[" * 100_000,
        "[1, 2]",
        "null",
        '{"3": 5}',
        '{"3": {"inputs": []}}',
        '{"3": {"inputs": {"positive": 1, "seed": {}}}}',
        json.dumps(graph(positive=["3", 0], negative=["nowhere", 0], model=[[], 0], seed=True)),
        json.dumps({str(n): {"inputs": {}} for n in range(6000)}),
    ],
)
def test_what_makes_no_sense_tells_nothing_and_does_no_harm(prompt):
    found = read(png(prompt=prompt))
    assert (found.prompt, found.negative_prompt) == (None, None)
    assert "seed" not in found.settings


def test_a_circle_ends():
    circle = graph(positive=["9", 0])
    circle["9"] = {"inputs": {"text": ["10", 0]}}
    circle["10"] = {"inputs": {"text": ["9", 0]}}
    assert read(png(prompt=json.dumps(circle))).prompt is None


def test_what_is_said_is_cut_and_cleaned():
    wild = graph(positive=["6", 0], sampler_name="x" * 9999, steps=10**40, cfg=float("nan"))
    wild["6"]["inputs"]["text"] = "a\0" + "b" * 50_000
    found = read(png(prompt=json.dumps(wild)))
    assert len(found.prompt) == MAX_PROMPT
    assert "\0" not in found.prompt
    assert len(found.settings["sampler_name"]) == 255
    assert set(found.settings) <= {"seed", "sampler_name", "scheduler", "model"}


def webp_or_jpeg(kind, tag, words, **options):
    tags = Image.Exif()
    tags[0x010F], tags[tag] = "workflow:{}", words
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, kind, exif=tags, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize(("tag", "name"), [(0x0110, "prompt"), (0x010F, "Prompt")])
def test_graphs_are_found_where_nodes_leave_them_in_exif(kind, tag, name):
    found = read(webp_or_jpeg(kind, tag, f"{name}:{json.dumps(graph())}"))
    assert (found.prompt, found.settings["seed"]) == ("a fox", 7)


def test_animations_of_comfyui_tell_of_their_making():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    many = {"save_all": True, "append_images": frames[1:]}
    info = PngImagePlugin.PngInfo()
    info.add(b"comf", b"prompt\0" + json.dumps(graph()).encode(), after_idat=True)
    out = io.BytesIO()
    frames[0].save(out, "PNG", pnginfo=info, **many)
    moving = webp_or_jpeg("WEBP", 0x0110, f"prompt:{json.dumps(graph())}", **many)
    for data in (out.getvalue(), moving):
        assert read(data).prompt == "a fox"


def test_other_files_tell_nothing():
    assert read(b"") == read(b"GIF89a") == read(b"\x89PNG\r\n\x1a\n") == Made()
    assert read(webp_or_jpeg("JPEG", 0x0110, "EOS 5D")) == Made()
