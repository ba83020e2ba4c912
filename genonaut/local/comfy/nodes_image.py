"""Implement the nodes that decode, load, scale, save and show pictures."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageColor, ImageOps
from PIL.PngImagePlugin import PngInfo

from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.node import InputSpec, NodeClass, NodeContext, NodeResult
from genonaut.local.comfy.nodes_sampling import (
    CROPS,
    MAX_SIZE,
    RESIZE_METHODS,
    choice,
    float_input,
    given,
    int_input,
    link,
)
from genonaut.local.comfy.painting import artist
from genonaut.local.comfy.values import Latent, Pictures

_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def _decode(context: NodeContext, samples: Latent, vae: str) -> NodeResult:
    return NodeResult((Pictures(artist.decode(samples)),))


def _vae_encode(context: NodeContext, pixels: Pictures, vae: str) -> NodeResult:
    width, height = (edge // 8 * 8 for edge in pixels.size)
    return NodeResult((Latent(width, height, len(pixels.items), source=pixels.items),))


def _empty_image(
    context: NodeContext, width: int, height: int, batch_size: int, color: int
) -> NodeResult:
    rgb = ImageColor.getrgb(f"#{color:06x}")
    return NodeResult((Pictures((Image.new("RGB", (width, height), rgb),) * batch_size),))


def _input_files(folders: Folders) -> Mapping[str, InputSpec]:
    return {"image": [folders.inputs(), {"image_upload": True}]}


def _input_exists(folders: Folders, inputs: Mapping[str, Any]) -> str | None:
    name = str(inputs.get("image"))
    return None if folders.input_file(name) else f"Invalid image file: {name}"


def _input_hash(folders: Folders, inputs: Mapping[str, Any]) -> str:
    path = folders.input_file(str(inputs.get("image")))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


def _load_image(context: NodeContext, image: str) -> NodeResult:
    path = context.folders.input_file(image)
    if path is None:
        raise FileNotFoundError(image)
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        mask = picture.convert("RGBA").getchannel("A")
        return NodeResult((Pictures((picture.convert("RGB"),)), mask))


def _scaled(pictures: Pictures, method: str, size: tuple[int, int], crop: str) -> NodeResult:
    resampling = RESIZE_METHODS[method]
    fit = ImageOps.fit if crop == "center" else Image.Image.resize
    return NodeResult((Pictures(tuple(fit(item, size, resampling) for item in pictures.items)),))


def _scale(
    context: NodeContext,
    image: Pictures,
    upscale_method: str,
    width: int,
    height: int,
    crop: str,
) -> NodeResult:
    if not width and not height:
        return NodeResult((image,))
    own_width, own_height = image.size
    width = width or max(1, round(own_width * height / own_height))
    height = height or max(1, round(own_height * width / own_width))
    return _scaled(image, upscale_method, (width, height), crop)


def _scale_by(
    context: NodeContext, image: Pictures, upscale_method: str, scale_by: float
) -> NodeResult:
    width, height = (max(1, round(edge * scale_by)) for edge in image.size)
    return _scaled(image, upscale_method, (width, height), "disabled")


def _text_chunks(context: NodeContext) -> PngInfo:
    """Give the PNG text chunks: the whole graph, and one per key of ``extra_pnginfo``."""
    chunks = PngInfo()
    chunks.add_text("prompt", json.dumps(context.graph))
    for key, value in (context.extra_data.get("extra_pnginfo") or {}).items():
        chunks.add_text(key, json.dumps(value))
    return chunks


def _write(
    context: NodeContext, images: Pictures, prefix: str, kind: str, compress_level: int
) -> NodeResult:
    plan = context.folders.plan(prefix, kind, images.size)
    chunks = _text_chunks(context)
    entries = []
    for offset, picture in enumerate(images.items):
        name = plan.name(offset)
        picture.save(plan.folder / name, pnginfo=chunks, compress_level=compress_level)
        entries.append({"filename": name, "subfolder": plan.subfolder, "type": kind})
    return NodeResult(ui={"images": entries})


def _save_image(context: NodeContext, images: Pictures, filename_prefix: str) -> NodeResult:
    return _write(context, images, filename_prefix, "output", compress_level=4)


def _preview_image(context: NodeContext, images: Pictures) -> NodeResult:
    return _write(context, images, context.temp_prefix, "temp", compress_level=1)


def _preview_any(context: NodeContext, source: Any) -> NodeResult:
    return NodeResult(ui={"text": [str(source)]})


_EDGE = int_input(512, 1, MAX_SIZE, step=1)
_SCALED_EDGE = int_input(512, 0, MAX_SIZE, step=1)

NODES = (
    NodeClass(
        "VAEDecode",
        "VAE Decode",
        "latent",
        given(samples=link("LATENT", "What to decode."), vae=link("VAE", "Decodes.")),
        ("IMAGE",),
        _decode,
    ),
    NodeClass(
        "VAEEncode",
        "VAE Encode",
        "latent",
        given(pixels=link("IMAGE"), vae=link("VAE")),
        ("LATENT",),
        _vae_encode,
    ),
    NodeClass(
        "EmptyImage",
        "EmptyImage",
        "image",
        given(
            width=_EDGE,
            height=_EDGE,
            batch_size=int_input(1, 1, 4096),
            color=int_input(0, 0, 0xFFFFFF, step=1, display="color"),
        ),
        ("IMAGE",),
        _empty_image,
    ),
    NodeClass(
        "LoadImage",
        "Load Image",
        "image",
        _input_files,
        ("IMAGE", "MASK"),
        _load_image,
        changed=_input_hash,
        check=_input_exists,
        checks=frozenset({"image"}),
    ),
    NodeClass(
        "ImageScale",
        "Upscale Image",
        "image/upscaling",
        given(
            image=link("IMAGE"),
            upscale_method=choice(_METHODS),
            width=_SCALED_EDGE,
            height=_SCALED_EDGE,
            crop=choice(CROPS),
        ),
        ("IMAGE",),
        _scale,
    ),
    NodeClass(
        "ImageScaleBy",
        "Upscale Image By",
        "image/upscaling",
        given(
            image=link("IMAGE"),
            upscale_method=choice(_METHODS),
            scale_by=float_input(1.0, 0.01, 8.0, 0.01),
        ),
        ("IMAGE",),
        _scale_by,
    ),
    NodeClass(
        "SaveImage",
        "Save Image",
        "image",
        given(
            images=link("IMAGE", "What to save."),
            filename_prefix=["STRING", {"default": "ComfyUI", "tooltip": "May name folders."}],
        ),
        (),
        _save_image,
        output_node=True,
        hidden=_HIDDEN,
        description="Saves the input images to your ComfyUI output directory.",
    ),
    NodeClass(
        "PreviewImage",
        "Preview Image",
        "image",
        given(images=link("IMAGE")),
        (),
        _preview_image,
        output_node=True,
        hidden=_HIDDEN,
        description="Saves the input images to your ComfyUI output directory.",
    ),
    NodeClass(
        "PreviewAny",
        "Preview Any",
        "utils",
        given(source=link("*")),
        (),
        _preview_any,
        output_node=True,
    ),
)
