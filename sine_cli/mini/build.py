"""The recipe of `mini`, whole: from package registries to the shipped files. Every step goes on where it
stopped.

work/plan.json      how much of everything
work/packages/      archives of the registries, unpacked
work/icons.npy ...  drawn icons and photographs
work/pictures/      the training set, in shards, and its latents
work/checkpoints/   of the five trainings
out/weights/        a diffusers folder in half precision
out/scorer/         a CLIP in half precision
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from sine_cli.mini import autoencoder, clip, dataset, latents, recognition, sources, text, unet
from sine_cli.mini.dataset import Shard
from sine_cli.mini.training import DEVICE, Length, Report

_PLAN = "plan.json"
PHOTOGRAPH_LIST = Path(__file__).with_name("photographs.tsv")


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    pictures: int
    autoencoder: Length
    text: Length
    recognition: Length
    scorer: Length
    unet: Length
    shard: int = dataset.SHARD


ON_A_CPU = Plan(
    pictures=84_000,
    autoencoder=Length(9000, batch=24),
    text=Length(300, batch=256),
    recognition=Length(2600, batch=64),
    scorer=Length(3000, batch=64),
    unet=Length(12_000, batch=64),
)
"""Some four hours on two cores."""

ON_A_GPU = Plan(
    pictures=126_000,
    autoencoder=Length(2500, batch=256),
    text=Length(400, batch=256),
    recognition=Length(1700, batch=256),
    scorer=Length(1500, batch=256),
    unet=Length(17_000, batch=512),
)
"""Eleven minutes on an H200; the shipped files are of these lengths, the U-Net's in two pieces (CARD.md)."""


def plan_of(work: Path) -> Plan:
    """The plan that the build in `work` was begun with, on whatever device; of a new one, the device's.

    Another plan would have other captions and shards, of which those that stand say nothing.
    """
    kept = work / _PLAN
    if kept.is_file():
        return TypeAdapter(Plan).validate_json(kept.read_bytes())
    return ON_A_GPU if DEVICE.type == "cuda" else ON_A_CPU


def _keep_plan(work: Path, plan: Plan) -> None:
    text, kept = json.dumps(asdict(plan), indent=2) + "\n", work / _PLAN
    if not kept.is_file() or kept.read_text("utf-8") != text:
        work.mkdir(parents=True, exist_ok=True)
        kept.write_text(text, "utf-8")


def build(work: Path, out: Path, plan: Plan, report: Report) -> None:
    """Make the shipped files in `out`; what stands in `work` is not made again.

    Raises:
        SineError: a package cannot be fetched.
    """
    # 1. The plan; icons and photographs
    _keep_plan(work, plan)
    gather(work, report)

    # 2. The training set
    shards = dataset.shards(work / "pictures", plan.pictures, plan.shard)
    dataset.make(work, shards, plan.shard, lambda done, total: report(f"pictures: shard {done} of {total}"))
    photographs = np.load(work / "photographs.npy", mmap_mode="r")

    # 3. The autoencoder, and every picture through it
    checkpoints = work / "checkpoints"
    vae, _ = autoencoder.train(
        shards,
        photographs,
        checkpoints / "autoencoder",
        plan.autoencoder,
        _named("autoencoder", report),
    )
    latents.encode(vae, shards, lambda done, total: report(f"latents: shard {done} of {total}"))
    vae.register_to_config(scaling_factor=latents.scaling_factor(shards))

    # 4. Words, then every caption through the text tower
    texts = [text_ for shard in shards for text_ in shard.texts]
    captions = sorted({text_["caption"] for text_ in texts})
    tokenizer = text.new_tokenizer(captions)
    tower, _ = text.train(tokenizer, texts, checkpoints / "text", plan.text, _named("text", report))
    encoded, pooled = encode_captions_once(work / "captions.safetensors", tower, tokenizer, captions)
    null, _ = encode_captions(tower, tokenizer, [""])

    # 5. The scorer
    number = {caption: i for i, caption in enumerate(captions)}
    numbers = [torch.tensor([number[text_["caption"]] for text_ in shard.texts]) for shard in shards]
    squares = recognition.squares(shards, numbers)
    namer, _ = recognition.train(
        squares, checkpoints / "recognition", plan.recognition, _named("recognition", report)
    )
    model_clip, _ = clip.train(
        tower,
        len(tokenizer),
        namer,
        squares,
        pooled,
        checkpoints / "scorer",
        plan.scorer,
        _named("scorer", report),
    )
    save_scorer(out / "scorer", model_clip, tokenizer)

    # 6. The U-Net
    sets = load_latents(shards, numbers, vae.config.scaling_factor)
    model, _ = unet.train(sets, encoded, null[0], checkpoints / "unet", plan.unet, _named("unet", report))
    save_weights(out / "weights", model, vae, tower, tokenizer)


def gather(work: Path, report: Report) -> None:
    """Fetch the packages and draw the icons, once."""
    if (work / "sources.json").is_file():
        return
    work.mkdir(parents=True, exist_ok=True)
    report("fetching icon sets and photographs")
    icons, icon_labels = sources.draw_icons(work / "packages")
    np.save(work / "icons.npy", icons)
    photographs, photograph_labels = sources.read_photographs(work / "packages", PHOTOGRAPH_LIST)
    np.save(work / "photographs.npy", photographs)
    (work / "sources.json").write_text(json.dumps({"icons": icon_labels, "photographs": photograph_labels}))
    report(f"{len(icons)} icons and {len(photographs)} photographs")


def encode_captions_once(
    file: Path, tower: Any, tokenizer: Any, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """As `encode_captions`, kept in a file."""
    if not file.is_file():
        hidden, pooled = encode_captions(tower, tokenizer, captions)
        save_file({"hidden": hidden, "pooled": pooled}, file.with_name(f".{file.name}"))
        file.with_name(f".{file.name}").rename(file)
    kept = load_file(file)
    return kept["hidden"], kept["pooled"]


@torch.no_grad()
def encode_captions(tower: Any, tokenizer: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """The tower's hidden states, (N, L, D), and pooled outputs, (N, D), float16."""
    hidden, pooled = [], []
    for start in range(0, len(captions), 500):
        out = tower(text.tokens(tokenizer, captions[start : start + 500]).to(DEVICE))
        hidden.append(out.last_hidden_state.half().cpu())
        pooled.append(out.pooler_output.half().cpu())
    return torch.cat(hidden), torch.cat(pooled)


def load_latents(shards: list[Shard], numbers: list[Tensor], scale: float) -> list[unet.Latents]:
    """All latents in memory, normalised, a set for each shape."""
    sets = []
    for shape in dict.fromkeys((shard.height, shard.width) for shard in shards):
        own = [i for i, shard in enumerate(shards) if (shard.height, shard.width) == shape]
        z = np.concatenate([np.load(latents.latents_path(shards[i])) for i in own]).astype(np.float32) * scale
        sets.append(
            unet.Latents(torch.from_numpy(z.astype(np.float16)), torch.cat([numbers[i] for i in own]))
        )
    return sets


def save_weights(folder: Path, model: Any, vae: Any, tower: Any, tokenizer: Any) -> None:
    """A diffusers folder in half precision, as any Stable Diffusion's."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderDC"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    model.half().save_pretrained(folder / "unet")
    vae.half().save_pretrained(folder / "vae")
    tower.half().save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    DDIMScheduler(
        beta_start=unet.BETAS[0],
        beta_end=unet.BETAS[1],
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_scorer(folder: Path, model: Any, tokenizer: Any) -> None:
    """A CLIP folder in half precision, as any of the hub's."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": clip.SIDE},
        "do_center_crop": True,
        "crop_size": {"height": clip.SIDE, "width": clip.SIDE},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": clip.MEAN,
        "image_std": clip.STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")


def _named(what: str, report: Report) -> Report:
    return lambda line: report(f"{what}: {line}")
