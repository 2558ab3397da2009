"""Prior preservation: pictures of the class, which the base makes before a tuning and the tuning also sees.

They stay in `tuning/prior/`, and one is made again only where base, prompt, seed or settings changed.

References:
    DreamBooth, Ruiz et al., CVPR 2023, Sec. 3.3.  SINE, Appendix B, which decides against it.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base
from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest
from sine_cli.project.prompts import without_token
from sine_cli.project.runs import find_recipe, save_picture
from sine_cli.workflow.render import Recipe, Renderer, embed, recipe_of
from sine_cli.workflow.size import Size


def class_prompt(manifest: Manifest) -> str:
    """The source prompt without the token, "a photo of a castle"."""
    prompts = manifest.prompts
    return without_token(prompts.source, prompts.token) or prompts.class_noun


def class_pictures(
    project: Project,
    manifest: Manifest,
    base: Base,
    revision: str,
    count: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> list[Image.Image]:
    """`count` pictures of the class at the base's native size, RGB; the i-th has seed i.

    Args:
        base: as yet without adapters.
        on_progress: called with the pictures there are and `count`.

    Raises:
        KeyboardInterrupt: `should_stop` said so; what is made stays.
        SineError: a picture came out with NaN, or the disk.
    """
    first, made = _recipe(manifest, base), list[Image.Image]()
    renderer = Renderer(base, UNetBackbone(base.unet, factor=base.autoencoder.factor), {})
    for seed in range(count):
        if should_stop():
            raise KeyboardInterrupt
        recipe, file = replace(first, seed=seed), project.tuning_dir / "prior" / f"{seed + 1:04d}.png"
        record = {**recipe.as_dict(), "base_revision": revision}
        if not _is_there(file, record):
            renderer.embeddings = renderer.embeddings or embed(base, recipe.readings)
            save_picture(file, renderer.picture(recipe), record)
        with Image.open(file) as picture:
            made.append(picture.convert("RGB"))
        on_progress(seed + 1, count)
    return made


def _recipe(manifest: Manifest, base: Base) -> Recipe:
    """The base alone, by the manifest's way of sampling."""
    native = base.native_latent_size * base.autoencoder.factor
    settings = manifest.edit.model_copy(update={"switch_step": 1000, "base_weight": 1.0, "negative": ""})
    return recipe_of(manifest, settings, prompt=class_prompt(manifest), size=Size(native, native))


def _is_there(file: Path, record: dict[str, Any]) -> bool:
    return file.is_file() and find_recipe(file) == json.loads(json.dumps(record))
