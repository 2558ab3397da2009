"""`sine edit --from`: the pictures of a record made again, the same where nothing has changed since.

A whole run is then the same bit for bit; one of its pictures but for rounding, as it was made with others.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sine_cli.errors import SineError, UserError
from sine_cli.project.files import printable, shown, typed
from sine_cli.project.folder import Project
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.manifest import Manifest
from sine_cli.project.migration import migrate
from sine_cli.project.plain_yaml import shortened
from sine_cli.scoring.scorer import Scorer, ScorerIdentity
from sine_cli.workflow.asked import MOST_PICTURES, record_of_edit
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.edit import EditProgress, EditResult, make_run
from sine_cli.workflow.guides import has_weight, uses_tuned
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.record import Provenance, differences
from sine_cli.workflow.render import Recipe
from sine_cli.workflow.scorers import load_scorer, locate_scorer, tell_unread
from sine_cli.workflow.user_lora import UserLora

OF_RECIPE = {field.name for field in fields(Recipe)}
OF_RUN = {"command", "count", "seconds", "peak_memory", "scorer", "scores", "best"}
"""What the record of an edit says besides its first recipe and their provenance."""

OF_SCORER = [field.name for field in fields(ScorerIdentity)]
LONGEST_PATH = 4096  # of a scorer's name, which may be a folder

MOST_TOLD = 5
"""Names that this sine does not know, in one notice."""

NEW = "`sine edit PROMPT` makes a new one"


@dataclass(frozen=True)
class RemakeRequest:
    """What is asked for.

    Args:
        origin: a picture of an edit or a cell of a grid, or the run folder of an edit.
        lora: the user's own LoRA again, where the record has one; its strength is the record's.
        low_memory: whether only the U-Net stays on the device, also where it was not so then.
    """

    origin: Path
    lora: UserLora | None = None
    low_memory: bool = False


@dataclass(frozen=True)
class Made:
    """What a record says: the recipe of the first of `count` pictures, the i-th of which has its seed + i.

    Attributes:
        unknown: names in the record that mean nothing to this version.
        scorer: what found the `best` so many; None where none were looked for.
    """

    recipe: Recipe
    count: int
    provenance: Provenance
    unknown: list[str]
    scorer: ScorerIdentity | None = None
    best: int | None = None


def remake(
    project: Project,
    manifest: Manifest,
    request: RemakeRequest,
    on_progress: Callable[[EditProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    on_run: Callable[[EditResult], None] = lambda _: None,
) -> EditResult:
    """Make the pictures again, in a new run folder; `on_notice` is told what differs from then, `on_run` of
    the run once it is there.

    A run whose best pictures were marked is scored again where its scorer is on this disk.

    Raises:
        UserError: no such record, another base, a guide or the LoRA is not there, not tuned, a size that no
            memory is left for.
        SineError: the base cannot be had, a picture came out as NaN, disk.
    """
    # 1. What the record says, checked before anything is loaded
    made = read_made(request.origin)
    lora = _lora(request, made.provenance)
    _check_guides(project, request.origin, made.recipe)

    # 2. The base, which must be the same
    _check_base(request.origin, manifest, made.provenance, manifest.base_revision)
    _check_base(request.origin, manifest, made.provenance, find_base(manifest).revision)
    scorer = _scorer(made, on_notice)
    remove_leftovers(project)
    migrate(project, manifest, on_notice)

    # 3. The adapters that had weight, those that were kept too, and the prompts
    studio = open_studio(
        project,
        manifest,
        needs_adapter=uses_tuned(made.recipe),
        guides=[made.recipe.guides],
        lora=lora,
        low_memory=made.provenance.low_memory or request.low_memory,
        adapter=made.provenance.adapter,
        guide_adapters=made.provenance.guide_adapters,
        on_notice=on_notice,
    )
    studio.check_fits(made.recipe.size, asked=False)
    renderer = studio.renderer([made.recipe], on_notice)
    if scorer:
        tell_unread(scorer, [made.recipe.prompt], on_notice)

    # 4. What differs is told
    provenance = studio.provenance()
    differing = differences(made.provenance, Provenance.from_dict(provenance))
    differing += [f"`{shortened(printable(each))}` is new to this sine" for each in made.unknown[:MOST_TOLD]]
    if scorer and scorer.identity != made.scorer:
        differing.append("what scores is another version or measures otherwise")
    if differing:
        on_notice(f"not quite as {shown(request.origin)} was made: {'; '.join(differing)}")

    # 5. A run folder, as of any edit
    return make_run(
        studio,
        renderer,
        made.recipe,
        made.count,
        provenance,
        on_progress,
        on_run,
        scorer=scorer,
        best=made.best,
        again=f"`sine edit --from {typed(request.origin)}` makes them all",
    )


def read_made(origin: Path) -> Made:
    """What the record of a picture or of an edit's run folder says.

    Raises:
        UserError: there is none, it is not of an edit or a grid's cell, or not as sine writes it.
    """
    record, is_run = record_of_edit(origin), origin.is_dir()
    try:
        return made_of(record, is_run=is_run)
    except ValueError as error:
        file = origin / "run.yaml" if is_run else origin
        raise UserError(f"{shown(file)}: {error}", f"its record is damaged; {NEW}") from error


def made_of(record: dict[str, Any], *, is_run: bool) -> Made:
    """What the record of a picture, or of an edit's run, says.

    Raises:
        ValueError: a part of it is not as sine writes it.
    """
    count = record.get("count") if is_run else 1
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_PICTURES:
        raise ValueError(f"count: must be from 1 to {MOST_PICTURES}")
    known = OF_RECIPE | set(Provenance.model_fields) | (OF_RUN if is_run else set())
    recipe = Recipe.from_dict({n: value for n, value in record.items() if n in OF_RECIPE})
    made_with = {name: value for name, value in record.items() if name in Provenance.model_fields}
    provenance = Provenance.from_dict(made_with)
    if len(provenance.guide_adapters) != len(recipe.guides):  # records older than guides have neither
        raise ValueError("guide_adapters: must be one for each guide")
    scorer, best = _scored(record, count) if is_run else (None, None)
    unknown = [str(name) for name in record if name not in known]
    return Made(recipe, count, provenance, unknown, scorer, best)


def _scored(record: dict[str, Any], count: int) -> tuple[ScorerIdentity | None, int | None]:
    """What scored, and how many were marked as best. Raises ValueError as `made_of`."""
    if "best" not in record:
        return None, None
    scorer, best = record.get("scorer"), record["best"]
    parts: list[Any] = [scorer.get(name) for name in OF_SCORER] if isinstance(scorer, dict) else [None]
    if not all(isinstance(part, str) and len(part) <= LONGEST_PATH for part in parts):
        raise ValueError(f"scorer: must be what scored the pictures, its {', '.join(OF_SCORER)}")
    if not isinstance(best, list) or not 1 <= len(best) <= count:
        raise ValueError(f"best: must be a list of 1 to {count} files")
    return ScorerIdentity(*parts), len(best)


def _scorer(made: Made, on_notice: Callable[[str], None]) -> Scorer | None:
    """What finds the best pictures again; a notice, and None, where it is not on this disk."""
    if made.scorer is None:
        return None
    try:
        return load_scorer(locate_scorer(made.scorer.name, on_notice, may_fetch=False))
    except SineError as error:
        hint = f"; {error.hint}" if error.hint else ""
        on_notice(f"the best are not marked again: {error.message}{hint}")
        return None


def _lora(request: RemakeRequest, then: Provenance) -> UserLora | None:
    """The user's LoRA with the record's strength. Raises UserError where there is one too many or too few."""
    again = f"sine edit --from {typed(request.origin)}"
    if then.lora and request.lora is None:
        name = printable(then.lora.file)
        raise UserError(
            f"{shown(request.origin)} was made with the LoRA {name}, and a record does not say where it lies",
            f"give it again: `{again} --lora {typed(Path('path/to') / then.lora.file)}`",
        )
    if request.lora is None or then.lora is None:
        if request.lora:
            raise UserError(
                f"--lora: {shown(request.origin)} was made without one", f"leave it out: `{again}`"
            )
        return None
    if request.lora.scale not in (1, then.lora.scale):
        raise UserError(
            f"--lora: the strength is the record's, {then.lora.scale:g}",
            f"give the file alone: `{again} --lora {typed(request.lora.file)}`",
        )
    return replace(request.lora, scale=then.lora.scale)


def _check_guides(project: Project, origin: Path, recipe: Recipe) -> None:
    """Raises UserError where a guide that had weight is no longer where the record says."""
    for guide in recipe.guides:
        folder = Path(os.path.normpath(project.root.resolve() / guide.project))
        if has_weight(guide.weight, guide.switch_step) and not (folder / "sine.yaml").is_file():
            raise UserError(
                f"{shown(origin)} was made with the guide {printable(guide.project)}, "
                f"and there is no project {shown(folder)}",
                "put it there, then run the same command again",
            )


def _check_base(origin: Path, manifest: Manifest, then: Provenance, revision: str | None) -> None:
    """Raises UserError where the revision, if it is known, is not the record's."""
    if revision not in (None, then.base_revision):
        base, theirs = printable(then.base), printable(then.base_revision)
        raise UserError(
            f"{shown(origin)} was made with the base `{base}` ({theirs}), "
            f"this project uses `{manifest.base}` ({revision})",
            f"set `base: {base}` and `base_revision: {theirs}` in sine.yaml, then run `sine tune` again; "
            f"or {NEW}",
        )
