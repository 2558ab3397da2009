"""Prior preservation: pictures of the class, which the base makes before a tuning and the tuning also sees.

They stay in `tuning/prior/`, and one is made again only where base, prompt, seed or settings changed.

References:
    DreamBooth, Ruiz et al., CVPR 2023, Sec. 3.3.  SINE, Appendix C, which decides against it.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.errors import Interrupted
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.project.runs import find_recipe, load_picture, save_picture
from sine_cli.project.source import is_made
from sine_cli.workflow.checkpoint import LOOSE
from sine_cli.workflow.render import Renderer, embed, recipe_of
from sine_cli.workflow.size import Size


def class_pictures(
    project: Project,
    manifest: Manifest,
    base: Base,
    about: dict[str, Any],
    count: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> list[Image.Image]:
    """`count` pictures of the class at the base's native size, RGB; the i-th has seed i.

    Args:
        base: as yet without adapters.
        about: what they are made with, besides their recipes.
        on_progress: called with the pictures there are and `count`.

    Raises:
        Interrupted: `should_stop` said so; what is made stays.
        SineError: a picture came out with NaN, or the disk.
    """
    native = base.native_latent_size * base.autoencoder.factor
    settings, prompt = class_settings(manifest), manifest.prompts.of_class
    first = recipe_of(manifest, settings, prompt=prompt, size=Size(native, native))
    made: list[Image.Image] = []
    renderer = Renderer(base, UNetBackbone(base.unet, factor=base.autoencoder.factor), {})
    for seed in range(count):
        if should_stop():
            raise Interrupted(f"{seed} of {count} pictures of the class are kept; the same command goes on")
        recipe, file = replace(first, seed=seed), project.tuning_dir / "prior" / f"{seed + 1:04d}.png"
        record = {**recipe.as_dict(), **about}
        if not (is_made(file, native, native) and _has_recipe(file, record)):
            renderer.embeddings = renderer.embeddings or embed(base, recipe.readings)
            save_picture(file, renderer.picture(recipe), record)
        made.append(load_picture(file))
        on_progress(seed + 1, count)
    return made


def class_settings(manifest: Manifest) -> EditSettings:
    """The base alone, by the manifest's way of sampling."""
    return manifest.edit.model_copy(update={"switch_step": 1000, "base_weight": 1.0, "negative": ""})


def _has_recipe(file: Path, record: dict[str, Any]) -> bool:
    """Whether the picture is of that record, but for what a tuning may go on without."""
    there = find_recipe(file) or {}
    return {key: each for key, each in there.items() if key not in LOOSE} == json.loads(
        json.dumps({key: each for key, each in record.items() if key not in LOOSE})
    )
