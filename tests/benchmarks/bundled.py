"""What the bundled base and scorer know, on combinations that neither was trained on: the figures of the
card.

    python -m tests.benchmarks.bundled --work DIR [--count 200] [--sheet FILE]

DIR is the recipe's (`python -m sine_cli.mini build --work DIR`); its icons make the real composites. Noun
with style and noun with place are both held out (`sine_cli.mini.vocabulary.held_out`). For real composites
and for pictures that the base makes of the same prompts (its defaults of steps and guidance):

    retrieval            how often the scorer finds the right prompt among 20 held-out ones
    style, noun, place   how often it picks the right word of all there are, the other two given

And of the autoencoder, how near photographs that it never saw and these composites come back.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from sine_cli.mini import pictures
from sine_cli.mini.pictures import Labels, prompt
from sine_cli.mini.sources import read_photographs
from sine_cli.mini.vocabulary import PLACES, STYLES
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import load_base
from sine_cli.models.device import best_device, best_dtype
from sine_cli.models.locate import in_folder, in_package
from sine_cli.models.rows import BASE, TUNED
from sine_cli.project.presets import load_preset
from sine_cli.scoring.clip import Clip
from sine_cli.workflow.render import Recipe, Renderer, embed
from sine_cli.workflow.scorers import open_scorer
from sine_cli.workflow.size import Size

HERE = Path(__file__).parent
AMONG = 20
SIDE = 128


def generated(prompts: list[str]) -> list[Image.Image]:
    """A picture of each prompt, by the base alone, with its defaults; the i-th has seed i."""
    location = in_folder(in_package("sine_cli.mini", "weights"))
    device = best_device()
    base = load_base(location.path, None, device, best_dtype(device))
    backbone = UNetBackbone(base.unet, factor=base.autoencoder.factor)
    renderer = Renderer(
        base, backbone, embed(base, [(name, text) for name in (BASE, TUNED) for text in ["", *prompts]])
    )
    settings = load_preset("mini").edit.model_copy(update={"switch_step": 1000, "base_weight": 1.0})
    recipes = (
        Recipe(
            prompt=text,
            source_prompt=text,
            seed=seed,
            size=Size(SIDE, SIDE),
            position=False,
            **settings.model_dump(),
        )
        for seed, text in enumerate(prompts)
    )
    return [renderer.picture(recipe) for recipe in recipes]


def retrieval(clip: Clip, images: list[Image.Image], labels: list[Labels], rng: np.random.Generator) -> float:
    """Share of pictures whose own prompt is the likeliest among `AMONG`, the others drawn at random."""
    similarity = clip.similarity(images, [prompt(each) for each in labels]).cpu().numpy()
    hits = 0
    for i, own in enumerate(labels):
        others = [j for j in rng.permutation(len(labels)) if labels[j] != own][: AMONG - 1]
        hits += similarity[i, i] > similarity[i, others].max()
    return hits / len(labels)


def accuracy(
    clip: Clip, images: list[Image.Image], labels: list[Labels], key: str, words: list[str]
) -> float:
    """Share of pictures whose own word is the likeliest of all `words` in its place in the prompt."""
    hits = 0
    for image, own in zip(images, labels, strict=True):
        prompts = [prompt(Labels(**{**vars(own), key: word})) for word in words]
        hits += words[int(clip.similarity([image], prompts).argmax())] == getattr(own, key)
    return hits / len(labels)


def on_photographs(clip: Clip, packages: Path) -> None:
    """What the scorer makes of photographs it was not trained on: the place of each one's caption."""
    images, labels = read_photographs(packages, HERE / "photographs.tsv")
    captions = sorted({caption for _, caption in labels if caption})
    prompts = [f"a photo of {caption}" for caption in captions]
    similarity = clip.similarity([Image.fromarray(image) for image in images], prompts)
    print(f"\n| photograph of | place of its caption among {len(captions)} | taken for |")
    print("| --- | --- | --- |")
    for (_, own), scores in zip(labels, similarity.tolist(), strict=True):
        if own:
            order = sorted(range(len(captions)), key=lambda i: -scores[i])
            print(f"| {own} | {order.index(captions.index(own)) + 1} | {captions[order[0]]} |")


def given_back(images: list[Image.Image]) -> str:
    """How near pictures at 128x128 come back from the autoencoder: the mean PSNR, and absolute error in
    [0, 1]."""
    location = in_folder(in_package("sine_cli.mini", "weights"))
    device = best_device()
    autoencoder = load_base(location.path, None, device, best_dtype(device)).autoencoder
    small = [image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in images]
    errors = [
        np.asarray(autoencoder.decode(autoencoder.encode([image]))[0], np.float32) / 255
        - np.asarray(image, np.float32) / 255
        for image in small
    ]
    psnr = np.mean([-10 * np.log10(np.square(error).mean()) for error in errors])
    return f"{psnr:.1f} dB, mean absolute error {np.mean([np.abs(error).mean() for error in errors]):.3f}"


def sheet(real: list[Image.Image], made: list[Image.Image]) -> Image.Image:
    """Real composites above the pictures made of the same prompts, the first forty."""
    out = Image.new("RGB", (10 * SIDE, 8 * SIDE))
    for i in range(min(40, len(real))):
        x, y = i % 10 * SIDE, i // 10 * 2 * SIDE
        out.paste(real[i], (x, y))
        out.paste(made[i], (x, y + SIDE))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()

    painter = pictures.load(options.work)
    rng = np.random.default_rng(7)
    labels = [painter.held_out_labels(rng) for _ in range(options.count)]
    real = [Image.fromarray(painter.compose(rng, SIDE, SIDE, each).picture) for each in labels]
    made = generated([prompt(each) for each in labels])
    if options.sheet:
        sheet(real, made).save(options.sheet)

    clip = open_scorer("mini").clip
    print(f"| {options.count} held-out combinations | real composites | generated | ratio |")
    print("| --- | --- | --- | --- |")
    rows = {
        f"right prompt among {AMONG}": [
            retrieval(clip, each, labels, np.random.default_rng(8)) for each in (real, made)
        ]
    }
    for key, words in (("style", list(STYLES)), ("noun", painter.nouns), ("place", list(PLACES))):
        rows[f"{key}, of {len(words)}"] = [accuracy(clip, each, labels, key, words) for each in (real, made)]
    for name, (of_real, of_made) in rows.items():
        print(f"| {name} | {of_real:.2f} | {of_made:.2f} | {of_made / of_real:.2f} |", flush=True)
    packages = options.work / "packages"
    photographs = [
        Image.fromarray(image) for image in read_photographs(packages, HERE / "photographs.tsv")[0]
    ]
    print(f"\nautoencoder: photographs {given_back(photographs)}; composites {given_back(real)}")
    on_photographs(clip, packages)


if __name__ == "__main__":
    main()
