"""The word of Textual Inversion: tuned once for a project and its picture, then kept."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sine_cli.errors import SineError, UserError
from sine_cli.method.textual_inversion import LEARNING_RATE, textual_inversion
from sine_cli.models.text import TextEncoder
from sine_cli.models.word import NewWord
from sine_cli.project.files import make_folder, sha256, storage_errors
from sine_cli.project.manifest import Manifest
from sine_cli.project.prompts import naming
from sine_cli.workflow.open import Studio
from sine_cli.workflow.record import versions
from sine_cli.workflow.tensors import write_tensors
from sine_cli.workflow.tune import plan_of

WORD = "<picture>"
FILE = "textual-inversion.safetensors"


def can_learn_word(studio: Studio) -> bool:
    """Whether the base has one text encoder, not two as SDXL."""
    return isinstance(studio.base.text, TextEncoder)


def learn_word(studio: Studio, z_0: Tensor, on_step: Callable[[int, int], None]) -> str:
    """Teach the text encoder the word that means the picture, from a sentence like the source prompt.

    Args:
        z_0: latents of the whole picture, (1, C, h, w).
        on_step: called with the steps taken and all of them, and never where the word is known already.

    Returns:
        The hash of the file that keeps the word.

    Raises:
        UserError: a base with two text encoders (SDXL).
        SineError: the loss is not a number, or the disk.
    """
    manifest, base, text = studio.manifest, studio.base, studio.base.text
    if not isinstance(text, TextEncoder):
        raise UserError(
            f"Textual Inversion learns a word of one text encoder, and the base `{manifest.base}` has two",
            "leave it out: `--methods sine,dreambooth,sdedit,ilvr,prompt-to-prompt`",
        )
    word = NewWord(text, WORD, like=manifest.prompts.class_noun)
    sentence, plan = _sentence(manifest), plan_of(manifest.tune)
    identity = {
        "base_revision": studio.location.revision,
        "source_sha256": sha256(studio.project.source(manifest)),
        "sentence": sentence,
        "like": manifest.prompts.class_noun,
        "shape": [*z_0.shape],
        "learning_rate": LEARNING_RATE,
        "plan": asdict(plan),
        "dtype": str(base.dtype),
        "versions": versions(),
    }
    about = {"identity": json.dumps(identity, sort_keys=True)}
    file = studio.project.comparisons_dir / FILE
    vector = _kept(file, about)
    if vector is not None:
        word.vector.data.copy_(vector)
        return sha256(file)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return studio.backbone.base(x_t, t, text.encode_for_learning([sentence])[0].to(base.device))

    tuning = textual_inversion(plan, base.schedule, z_0, predict, word.vector)
    while not tuning.done:
        loss = tuning.step()
        if loss != loss:
            raise SineError(
                "the loss of Textual Inversion is not a number (NaN)", "leave it out: `--methods`"
            )
        on_step(tuning.taken, tuning.plan.steps)
    word.vector.requires_grad_(False)
    with storage_errors(file):
        make_folder(file.parent)
    write_tensors(file, {"vector": word.vector.detach().cpu()}, about)
    return sha256(file)


def _sentence(manifest: Manifest) -> str:
    """The source prompt with the word in place of token and noun: "a photo of a <picture>"."""
    prompts = manifest.prompts
    for name in (f"{prompts.token} {prompts.class_noun}", prompts.token, prompts.class_noun):
        sentence = naming(prompts.source, name, WORD)
        if sentence:
            return sentence
    return f"{prompts.source}, {WORD}"


def _kept(file: Path, about: dict[str, str]) -> Tensor | None:
    """The embedding in the file; None where it is not there, or was made from something else."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor("vector") if opened.metadata() == about else None
    except (SafetensorError, OSError):
        return None
