"""`sine init`: a project folder from a picture and a noun."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sine_cli.project.folder import Project, check_new_folder, create_project
from sine_cli.project.manifest import SCHEMA_VERSION, Manifest, Prompts, Source, load_manifest
from sine_cli.project.prompts import (
    check_class_noun,
    check_prompt,
    check_token,
    default_kind,
    source_prompt,
    with_token,
)
from sine_cli.project.source import Picture, read_picture
from sine_cli.workflow.bases import ChosenBase, choose_base


@dataclass(frozen=True)
class InitRequest:
    """What is asked for; None leaves a choice to sine.

    Args:
        prompt: the source prompt itself, instead of a sentence made from the class, kind and token; `[*]` in
            it stands for the token.
        folder: of the project; None names it after the picture.
    """

    picture: Path
    class_noun: str
    kind: str | None = None
    prompt: str | None = None
    base: str | None = None
    token: str = "sks"
    folder: Path | None = None


@dataclass(frozen=True)
class InitResult:
    project: Project
    manifest: Manifest
    picture: Picture
    base: ChosenBase


def init(request: InitRequest, on_notice: Callable[[str], None] = lambda _: None) -> InitResult:
    """Make the project folder, whole or not at all; `on_notice` is told what of the base is fetched.

    Raises:
        UserError: not a picture, unfit words, no such base, the folder exists.  SineError: disk or network.
    """
    # 1. The picture, upright and RGB, and a place for it
    picture = read_picture(request.picture)
    folder = request.folder or Path(request.picture.stem or "picture")
    check_new_folder(folder)

    # 2. The words that describe it
    noun, token = check_class_noun(request.class_noun), check_token(request.token)
    kind = request.kind or default_kind(noun)
    sentence = source_prompt(noun, kind, token)
    if request.prompt is not None:
        sentence = check_prompt(with_token(request.prompt, token))
    prompts = Prompts(class_noun=noun, kind=kind, token=token, source=sentence)

    # 3. The base, fixed to the very revision
    base = choose_base(request.base, on_notice)

    # 4. The manifest, with the values recommended for that base
    height, width = picture.image.height, picture.image.width
    source = Source(original=picture.original_name, sha256=picture.sha256, height=height, width=width)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=source,
        prompts=prompts,
        base=base.name,
        base_revision=base.revision,
        tune=base.tune,
        edit=base.edit,
    )

    # 5. The folder, whole or not at all
    project = create_project(folder, manifest, picture.image)
    return InitResult(project, load_manifest(project.manifest_path), picture, base)
