"""What `edit` (`edit --from` too), `grid`, `compare` and `export` are asked for, and what is wrong with it.
Knows no torch: a mistake is told at once, and not after the seconds that torch takes to be imported.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from sine_cli.errors import UserError
from sine_cli.project.files import shown, typed
from sine_cli.project.folder import Project
from sine_cli.project.manifest import EditSettings, Manifest
from sine_cli.project.prompts import check_target_prompts
from sine_cli.project.runs import read_recipe, read_run
from sine_cli.workflow.adapter_record import AdapterRecord, check_record, guide_record, read_record
from sine_cli.workflow.guides import (
    GuideRecipe,
    GuideRequest,
    guide_recipes,
    guides_in_use,
    has_weight,
    uses_tuned,
)
from sine_cli.workflow.size import Box, Size
from sine_cli.workflow.user_lora import UserLora

MOST_PICTURES = 1000
"""Of one prompt; more is a slip of the finger."""

MOST_CELLS = 400
"""Of one grid."""

MOST_COMPARED = 100
"""Pictures of one method."""

COMPARED = ("sine", "dreambooth", "textual-inversion", "sdedit", "ilvr", "prompt-to-prompt")
"""The methods that there are to compare; `methods.METHODS` makes their pictures."""

TUNED_METHODS = {"sine", "dreambooth"}

STRENGTH = 0.4
"""Of SDEdit: as in the paper's Fig. 12, where noise is added up to t = 400."""

MERGED = "merged"
LORAS = ("diffusers", "kohya")
"""The forms of an exported adapter: a whole base, tuned, or a LoRA."""

Guided: TypeAlias = tuple[EditSettings, tuple[GuideRecipe, ...]]
"""A picture's settings and the guides it has."""


@dataclass(frozen=True)
class EditRequest:
    """What is asked for; None takes the manifest's or the source's.

    Args:
        prompts: target prompts; each gets a run folder of its own. Empty where they are asked for later.
        settings: K, v, w, steps, solver and the negative prompt.
        count: pictures a prompt, 1 to `MOST_PICTURES`; the i-th has the seed `seed` + i.
        source_prompt: what the tuned model is given instead of the prompt it was tuned with.
        position: whether the tuned models are given the position of what they see.
        best: how many of a prompt's pictures are marked as its best, 1 to `count`; None scores nothing.
        scorer: what finds them: a hub id or a folder; None takes the bundled one.
        guides: other tuned projects, each with one weight.
        crop: the part of the picture to make, where it is not the whole.
        lora: the user's own LoRA, which the base is given and the tuned model is not.
        low_memory: whether only the U-Net stays on the device.
    """

    prompts: list[str]
    settings: EditSettings
    size: Size | None = None
    count: int = 1
    seed: int = 0
    source_prompt: str | None = None
    position: bool = True
    best: int | None = None
    scorer: str | None = None
    guides: tuple[GuideRequest, ...] = ()
    crop: Box | None = None
    lora: UserLora | None = None
    low_memory: bool = False


@dataclass(frozen=True)
class GridRequest:
    """What is asked for; K and v of `settings` give way to the axes.

    Args:
        switch_steps: columns of the sheet.
        base_weights: rows; one where the weights of a guide are the rows.
        scorer: what scores the cells: a hub id or a folder; None takes the bundled one.
        guides: other tuned projects; one of them may have several weights.
        low_memory: whether only the U-Net stays on the device.
    """

    prompt: str
    switch_steps: list[int]
    base_weights: list[float]
    settings: EditSettings
    size: Size | None = None
    seed: int = 0
    source_prompt: str | None = None
    position: bool = True
    scorer: str | None = None
    guides: tuple[GuideRequest, ...] = ()
    low_memory: bool = False


@dataclass(frozen=True)
class CompareRequest:
    """What is asked for; None takes the default.

    Args:
        methods: of `COMPARED`, each a row of the sheet.
        count: pictures a method, 1 to `MOST_COMPARED`; the i-th has the seed `seed` + i.
        strength: of SDEdit, in [0, 1].  factor: N of ILVR, >= 1.
        scorer: a hub id or a folder; None takes the bundled one.
        low_memory: whether only the U-Net stays on the device.
    """

    prompt: str
    settings: EditSettings
    methods: tuple[str, ...]
    size: Size | None = None
    count: int = 1
    seed: int = 0
    strength: float = STRENGTH
    factor: int | None = None
    scorer: str | None = None
    low_memory: bool = False

    @property
    def needs_adapter(self) -> bool:
        return not TUNED_METHODS.isdisjoint(self.methods)


def check_edit(project: Project, manifest: Manifest, request: EditRequest) -> tuple[GuideRecipe, ...]:
    """The guides of an edit's pictures, once all that needs no base has been found sound.

    Raises:
        UserError: an empty prompt, a value out of range, no such guide, something is not tuned or was tuned
            on another base or picture.
    """
    check_target_prompts(request.prompts, request.source_prompt)
    project.check_picture(manifest)
    if not 1 <= request.count <= MOST_PICTURES:
        raise UserError(f"-n: must be from 1 to {MOST_PICTURES}, got {request.count}", "for example `-n 4`")
    if request.best is not None and not 1 <= request.best <= request.count:
        raise UserError(
            f"--best: must be from 1 to {request.count}, the pictures a prompt (-n), got {request.best}",
            "for example `-n 8 --best 1`",
        )
    if request.crop and not request.position:
        raise UserError(
            "--crop says where things lie, and --no-position keeps that from the tuned models",
            "leave one of them out",
        )
    weights = _weights(request.guides)
    (guides,) = guide_recipes(project, request.guides, [(request.settings, weights)])
    _check_adapters(project, manifest, [(request.settings, guides)])
    return guides


def without_effect(
    request: EditRequest | GridRequest | CompareRequest, pictures: Sequence[Guided] = ()
) -> list[str]:
    """Of what is asked for, that which changes no picture: a line for each reason."""
    lines = list[str]()
    if request.settings.negative and request.settings.guidance_scale == 1:
        lines.append("without guidance (-w 1) a negative prompt changes nothing")
    if isinstance(request, CompareRequest) or any(uses_tuned(settings) for settings, _ in pictures):
        return lines
    guided = any(has_weight(guide.weight, guide.switch_step) for _, guides in pictures for guide in guides)
    given = {
        "--source-prompt": request.source_prompt is not None,  # guides have their own
        "--no-position": not request.position and not guided,
    }
    if any(given.values()):
        alone = "-v 1" if all(settings.base_weight == 1 for settings, _ in pictures) else "-K 1000"
        unheard = ", ".join(option for option, is_given in given.items() if is_given)
        lines.append(f"with {alone} the tuned model has no weight; without effect: {unheard}")
    return lines


def check_grid(project: Project, manifest: Manifest, request: GridRequest) -> list[Guided]:
    """The settings and the guides of every cell, row by row; raises UserError as `check_edit`."""
    check_target_prompts([request.prompt], request.source_prompt)
    project.check_picture(manifest)
    cells = _cells(project, request)
    _check_adapters(project, manifest, cells)
    return cells


def check_compare(project: Project, manifest: Manifest, request: CompareRequest) -> None:
    """Raises UserError: an empty prompt, a method or value that is none; where a method needs the adapter,
    not tuned, or tuned on another base or picture, or with another source prompt.
    """
    check_target_prompts([request.prompt], example='sine compare "a sculpture of a girl"')
    project.check_picture(manifest)
    for method in request.methods:
        if method not in COMPARED:
            raise UserError(f'--methods: no method called "{method}"', f"methods: {', '.join(COMPARED)}")
    if not request.methods or len({*request.methods}) < len(request.methods):
        raise UserError("--methods: name each method once", f"methods: {', '.join(COMPARED)}")
    if not 1 <= request.count <= MOST_COMPARED:
        raise UserError(f"-n: must be from 1 to {MOST_COMPARED}, got {request.count}", "for example `-n 4`")
    if not 0 <= request.strength <= 1:
        raise UserError(
            f"--strength: must be from 0 to 1, got {request.strength:g}", "for example `--strength 0.5`"
        )
    if request.factor is not None and request.factor < 1:
        raise UserError(f"--factor: must be at least 1, got {request.factor}", "for example `--factor 4`")
    if request.needs_adapter:
        check_record(project, manifest, read_record(project))


def check_export(project: Project, manifest: Manifest, form: str, out: Path | None) -> AdapterRecord:
    """The record of the adapter that is to be written in a form: one of `LORAS`, or `MERGED`.

    Raises:
        UserError: no such form, not tuned, an adapter that does not fit or is no LoRA, `out` exists already.
    """
    if form not in (*LORAS, MERGED):
        raise UserError(
            f'--format: must be {" or ".join(LORAS)}, got "{form}"', "type `sine export --format kohya`"
        )
    if out is not None and os.path.lexists(out):
        raise UserError(
            f"{shown(out)} already exists", "choose another name with `--out`, or remove it first"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(
            f"no such folder: {shown(out.parent)}", f"make it first: `mkdir -p {typed(out.parent)}`"
        )
    record = read_record(project)
    check_record(project, manifest, record)
    if record.tune.targets == "full" and form != MERGED:
        raise UserError(
            f"{shown(project.adapter_dir)} is no LoRA: every weight of the U-Net was tuned",
            "write the whole base with `sine export --merge`",
        )
    return record


def record_of_edit(origin: Path) -> dict[str, Any]:
    """What is written of a picture, or of an edit's run folder; its values are not looked at yet.

    Raises:
        UserError: nothing is, or it is neither an edit nor a grid's cell.
    """
    record = read_run(origin) if origin.is_dir() else read_recipe(origin)
    _refuse_others(record, origin)
    return record


def _refuse_others(record: dict[str, Any], origin: Path) -> None:
    """Refuse what has a record and is not an edit or a cell. Raises UserError."""
    command = record.get("command")
    if command == "grid":
        folder = origin if origin.is_dir() else origin.parent
        cell = next(iter(sorted((folder / "cells").glob("*.png"))), folder / "cells" / "K0400_v0.70.png")
        raise UserError(f"{shown(origin)} is a whole grid", f"name a cell: `sine edit --from {typed(cell)}`")
    if command == "compare" or "method" in record:
        raise UserError(
            f"{shown(origin)} was made by `sine compare`, whose pictures are not made again one by one",
            "`sine compare PROMPT` makes them all",
        )
    if "step" in record:
        raise UserError(
            f"{shown(origin)} is a preview of a tuning: its adapter was never kept",
            "name a picture of `sine edit` or a cell of `sine grid`",
        )


def _check_adapters(project: Project, manifest: Manifest, pictures: Sequence[Guided]) -> None:
    """Refuse adapters that have weight and are not there, or not of this base. Raises UserError."""
    if any(uses_tuned(settings) for settings, _ in pictures):
        check_record(project, manifest, read_record(project))
    for guide in guides_in_use(project, [guides for _, guides in pictures]):
        if guide:
            guide_record(guide, manifest)


def _weights(guides: tuple[GuideRequest, ...]) -> list[float]:
    """The one weight of each guide. Raises UserError where one has several."""
    for guide in guides:
        if len(guide.weights) > 1:
            raise UserError(
                f"--guide: an edit takes one weight a guide, got {len(guide.weights)}",
                "`sine grid` takes several, as its rows",
            )
    return [guide.weights[0] for guide in guides]


def _cells(project: Project, request: GridRequest) -> list[Guided]:
    """The settings and the guides of every cell, row by row."""
    columns = list(dict.fromkeys(request.switch_steps))
    rows = [
        (v, weights)
        for v in dict.fromkeys(request.base_weights)
        for weights in product(*(dict.fromkeys(guide.weights) for guide in request.guides))
    ]
    lists = [request.base_weights, *(guide.weights for guide in request.guides)]
    if sum(len(set(each)) > 1 for each in lists) > 1:
        raise UserError(
            "a grid has one kind of rows: several -v, or several weights of one guide",
            "give the others one value each, for example `-v 0.7 --guide ../starry-night:0,0.2,0.4`",
        )
    if len(columns) * len(rows) > MOST_CELLS:
        of = "v" if len(set(request.base_weights)) == len(rows) else "weights"
        raise UserError(
            f"a grid of {len(columns)} K by {len(rows)} {of} has more than {MOST_CELLS} cells",
            "give fewer values",
        )
    settings = [
        (request.settings.model_copy(update={"switch_step": K, "base_weight": v}), weights)
        for v, weights in rows
        for K in columns
    ]
    guides = guide_recipes(project, request.guides, settings)
    return [(each, its_guides) for (each, _), its_guides in zip(settings, guides, strict=True)]
