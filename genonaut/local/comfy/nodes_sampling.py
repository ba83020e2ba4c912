"""Implement the nodes that load models, encode text and sample."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL import Image

from genonaut.local.comfy import catalog
from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.node import InputSpec, NodeClass, NodeContext, NodeResult
from genonaut.local.comfy.painting import artist
from genonaut.local.comfy.values import Conditioning, Latent, Model, Recipe

MAX_SIZE = 16384
PREVIEW_EDGE = 512

RESIZE_METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bislerp": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LATENT_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
CROPS = ["disabled", "center"]


def given(**inputs: InputSpec) -> Any:
    """Declare required inputs that do not depend on the folders."""

    def required(folders: Folders) -> Mapping[str, InputSpec]:
        return inputs

    return required


def int_input(default: int, low: int, high: int, **more: Any) -> InputSpec:
    """Declare an INT with its range."""
    return ["INT", {"default": default, "min": low, "max": high, **more}]


def float_input(default: float, low: float, high: float, step: float) -> InputSpec:
    """Declare a FLOAT with its range."""
    return ["FLOAT", {"default": default, "min": low, "max": high, "step": step}]


def link(kind: str, tooltip: str = "") -> InputSpec:
    """Declare an input that only a link can give."""
    return [kind, {"tooltip": tooltip}] if tooltip else [kind]


def choice(values: tuple[str, ...] | list[str], tooltip: str = "") -> InputSpec:
    """Declare a list to choose from."""
    return [list(values), {"tooltip": tooltip}] if tooltip else [list(values)]


SEED = int_input(0, 0, 2**64 - 1, control_after_generate=True, tooltip="Decides the noise.")
STRENGTH = float_input(1.0, -100.0, 100.0, 0.01)


def _load_checkpoint(context: NodeContext, ckpt_name: str) -> NodeResult:
    time.sleep(context.load_delay_s)
    model = Model(ckpt_name)
    return NodeResult((model, model, ckpt_name))


def _load_vae(context: NodeContext, vae_name: str) -> NodeResult:
    return NodeResult((vae_name,))


def _lora(
    context: NodeContext,
    model: Model,
    clip: Model,
    lora_name: str,
    strength_model: float,
    strength_clip: float,
) -> NodeResult:
    return NodeResult(
        (model.with_lora(lora_name, strength_model), clip.with_lora(lora_name, strength_clip))
    )


def _lora_model_only(
    context: NodeContext, model: Model, lora_name: str, strength_model: float
) -> NodeResult:
    return NodeResult((model.with_lora(lora_name, strength_model),))


def _clip_last_layer(context: NodeContext, clip: Model, stop_at_clip_layer: int) -> NodeResult:
    return NodeResult((clip,))


def _encode(context: NodeContext, text: str, clip: Model) -> NodeResult:
    return NodeResult((Conditioning((text,)),))


def _combine(
    context: NodeContext, conditioning_1: Conditioning, conditioning_2: Conditioning
) -> NodeResult:
    return NodeResult((Conditioning(conditioning_1.texts + conditioning_2.texts),))


def _empty_latent(context: NodeContext, width: int, height: int, batch_size: int) -> NodeResult:
    return NodeResult((Latent(width // 8 * 8, height // 8 * 8, batch_size),))


def _resized(latent: Latent, width: int, height: int) -> Latent:
    return Latent(
        max(8, width // 8 * 8),
        max(8, height // 8 * 8),
        latent.batch,
        latent.recipe,
        latent.source,
        latent.denoise,
    )


def _upscale_latent(
    context: NodeContext,
    samples: Latent,
    upscale_method: str,
    width: int,
    height: int,
    crop: str,
) -> NodeResult:
    if not width and not height:
        return NodeResult((samples,))
    width = width or round(samples.width * height / samples.height)
    height = height or round(samples.height * width / samples.width)
    return NodeResult((_resized(samples, width, height),))


def _upscale_latent_by(
    context: NodeContext, samples: Latent, upscale_method: str, scale_by: float
) -> NodeResult:
    return NodeResult(
        (_resized(samples, round(samples.width * scale_by), round(samples.height * scale_by)),)
    )


def _sample(
    context: NodeContext,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    cfg: float,
    steps: range,
    total: int,
    denoise: float,
) -> NodeResult:
    recipe = Recipe(positive.text, negative.text, seed, model, total, cfg)
    if latent_image.recipe is not None and denoise < 1:
        # A second pass over what is already drawn refines it instead of starting anew.
        recipe = latent_image.recipe
    source = latent_image.source if denoise < 1 else ()
    result = Latent(
        latent_image.width, latent_image.height, latent_image.batch, recipe, source, denoise
    )
    noise_to_picture = artist.Unveiling(result, PREVIEW_EDGE)
    for done in range(1, len(steps) + 1):
        time.sleep(context.step_delay_s)
        share = (steps.start + done) / total
        context.step(done, len(steps), partial(noise_to_picture.at, share))
    return NodeResult((result,))


def _ksampler(
    context: NodeContext,
    *,
    steps: int,
    denoise: float,
    sampler_name: str,
    scheduler: str,
    **inputs: Any,
) -> NodeResult:
    return _sample(context, steps=range(steps), total=steps, denoise=denoise, **inputs)


def _ksampler_advanced(
    context: NodeContext,
    *,
    add_noise: str,
    noise_seed: int,
    steps: int,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
    sampler_name: str,
    scheduler: str,
    **inputs: Any,
) -> NodeResult:
    part = range(min(start_at_step, steps), max(start_at_step, min(end_at_step, steps)))
    fresh = add_noise == "enable" and not part.start
    denoise = 1.0 if fresh else 1.0 - part.start / steps - 1e-6
    return _sample(context, seed=noise_seed, steps=part, total=steps, denoise=denoise, **inputs)


_SAMPLER_CHOICES = {
    "sampler_name": choice(catalog.SAMPLERS, "The algorithm."),
    "scheduler": choice(catalog.SCHEDULERS, "How the noise is taken away."),
}
_STEPS = int_input(20, 1, 10000, tooltip="Few steps leave noise in the picture.")
_CFG: InputSpec = ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}]
_UPSCALED = int_input(512, 0, MAX_SIZE, step=8)

NODES = (
    NodeClass(
        "CheckpointLoaderSimple",
        "Load Checkpoint",
        "loaders",
        given(ckpt_name=choice(catalog.CHECKPOINTS, "The model to load.")),
        ("MODEL", "CLIP", "VAE"),
        _load_checkpoint,
    ),
    NodeClass(
        "VAELoader",
        "Load VAE",
        "loaders",
        given(vae_name=choice(catalog.VAES)),
        ("VAE",),
        _load_vae,
    ),
    NodeClass(
        "LoraLoader",
        "Load LoRA",
        "loaders",
        given(
            model=link("MODEL", "The model the LoRA is laid over."),
            clip=link("CLIP", "The text model the LoRA is laid over."),
            lora_name=choice(catalog.LORAS, "The LoRA."),
            strength_model=STRENGTH,
            strength_clip=STRENGTH,
        ),
        ("MODEL", "CLIP"),
        _lora,
    ),
    NodeClass(
        "LoraLoaderModelOnly",
        "LoraLoaderModelOnly",
        "loaders",
        given(model=link("MODEL"), lora_name=choice(catalog.LORAS), strength_model=STRENGTH),
        ("MODEL",),
        _lora_model_only,
    ),
    NodeClass(
        "CLIPSetLastLayer",
        "CLIP Set Last Layer",
        "conditioning",
        given(clip=link("CLIP"), stop_at_clip_layer=int_input(-1, -24, -1, step=1)),
        ("CLIP",),
        _clip_last_layer,
    ),
    NodeClass(
        "CLIPTextEncode",
        "CLIP Text Encode (Prompt)",
        "conditioning",
        given(
            text=["STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The prompt."}],
            clip=link("CLIP", "Encodes the text."),
        ),
        ("CONDITIONING",),
        _encode,
    ),
    NodeClass(
        "ConditioningCombine",
        "Conditioning (Combine)",
        "conditioning",
        given(conditioning_1=link("CONDITIONING"), conditioning_2=link("CONDITIONING")),
        ("CONDITIONING",),
        _combine,
    ),
    NodeClass(
        "EmptyLatentImage",
        "Empty Latent Image",
        "latent",
        given(
            width=int_input(512, 16, MAX_SIZE, step=8, tooltip="Pixels."),
            height=int_input(512, 16, MAX_SIZE, step=8, tooltip="Pixels."),
            batch_size=int_input(1, 1, 4096, tooltip="Pictures in the batch."),
        ),
        ("LATENT",),
        _empty_latent,
    ),
    NodeClass(
        "LatentUpscale",
        "Upscale Latent",
        "latent",
        given(
            samples=link("LATENT"),
            upscale_method=choice(LATENT_METHODS),
            width=_UPSCALED,
            height=_UPSCALED,
            crop=choice(CROPS),
        ),
        ("LATENT",),
        _upscale_latent,
    ),
    NodeClass(
        "LatentUpscaleBy",
        "Upscale Latent By",
        "latent",
        given(
            samples=link("LATENT"),
            upscale_method=choice(LATENT_METHODS),
            scale_by=float_input(1.5, 0.01, 8.0, 0.01),
        ),
        ("LATENT",),
        _upscale_latent_by,
    ),
    NodeClass(
        "KSampler",
        "KSampler",
        "sampling",
        given(
            model=link("MODEL", "Takes the noise away."),
            seed=SEED,
            steps=_STEPS,
            cfg=_CFG,
            **_SAMPLER_CHOICES,
            positive=link("CONDITIONING", "What to show."),
            negative=link("CONDITIONING", "What to leave out."),
            latent_image=link("LATENT", "What to start from."),
            denoise=float_input(1.0, 0.0, 1.0, 0.01),
        ),
        ("LATENT",),
        _ksampler,
    ),
    NodeClass(
        "KSamplerAdvanced",
        "KSampler (Advanced)",
        "sampling",
        given(
            model=link("MODEL"),
            add_noise=choice(["enable", "disable"]),
            noise_seed=SEED,
            steps=_STEPS,
            cfg=_CFG,
            **_SAMPLER_CHOICES,
            positive=link("CONDITIONING"),
            negative=link("CONDITIONING"),
            latent_image=link("LATENT"),
            start_at_step=int_input(0, 0, 10000),
            end_at_step=int_input(10000, 0, 10000),
            return_with_leftover_noise=choice(["disable", "enable"]),
        ),
        ("LATENT",),
        _ksampler_advanced,
    ),
)
