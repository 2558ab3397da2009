"""`sine verify`: whether a project is what its records say. Changes nothing, fetches nothing."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from sine_cli.errors import UserError
from sine_cli.models.adapter import adapter_shapes
from sine_cli.models.base import unet_without_weights
from sine_cli.models.locate import Location
from sine_cli.project.files import not_permitted, printable, read_bytes, shown, typed
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.manifest import SCHEMA_VERSION, Manifest, load_manifest
from sine_cli.project.plain_yaml import shortened
from sine_cli.project.runs import (
    COMPARE_AGAIN,
    UnfinishedRun,
    find_recipe,
    hidden_runs,
    is_comparison,
    read_run,
    run_folders,
)
from sine_cli.project.source import DECODER_ERRORS
from sine_cli.workflow.adapter_record import RECORD, check_base, check_record, read_record
from sine_cli.workflow.adapters import check_files, check_shapes
from sine_cli.workflow.asked import MOST_CELLS, MOST_COMPARED
from sine_cli.workflow.bases import base_at_hand
from sine_cli.workflow.checkpoint import going_on
from sine_cli.workflow.compare import SHEET as COMPARISON
from sine_cli.workflow.grid import SCORES, TRADEOFF, cell_name
from sine_cli.workflow.methods import METHODS, SEEDLESS
from sine_cli.workflow.open import stored_picture
from sine_cli.workflow.record import CONDITIONS, Provenance
from sine_cli.workflow.remake import OF_RECIPE, OF_RUN, made_of

GRID = "grid.png"

_LARGEST_TABLE = 10_000_000  # bytes

Record = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, in one line that names it, and what to do about it."""

    file: Path
    what: str
    hint: str | None


@dataclass
class Verdict:
    """What was found.

    Attributes:
        problems: none where the project is sound.  notes: what is no problem and good to know.
        adapter: whether there is one.  shapes: whether its tensors were held against the base.
        runs, pictures: how many were looked at.
    """

    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[str] = field(default_factory=list[str])
    adapter: bool = False
    shapes: bool = False
    runs: int = 0
    pictures: int = 0

    def add(self, file: Path, what: str, hint: str | None) -> None:
        """A problem; `what` is told behind the file's name."""
        self.problems.append(Problem(file, f"{shown(file)}: {what}", hint))

    @contextmanager
    def about(self, file: Path) -> Iterator[None]:
        """What is refused within is a problem of this file, in the refusal's own words, told once."""
        try:
            yield
        except (UserError, PermissionError) as raised:
            error = not_permitted(raised.filename) if isinstance(raised, PermissionError) else raised
            if error.message not in [each.what for each in self.problems]:
                self.problems.append(Problem(file, error.message, error.hint))


def verify(project: Project) -> Verdict:
    """Look at all that the project holds. Raises nothing for what is wrong with it: that is told."""
    verdict = Verdict()

    # 1. The manifest
    manifest = None
    with verdict.about(project.manifest_path):
        manifest = load_manifest(project.manifest_path)

    # 2. The picture, as stored
    if manifest:
        _verify_source(project, manifest, verdict)

    # 3. The base, where it is on this disk
    location = _verify_base(project, manifest, verdict) if manifest else None

    # 4. The adapter, alone and against the base
    with verdict.about(project.adapter_dir):
        _verify_adapter(project, manifest, location, verdict)

    # 5. Every run, and every picture in it
    parents = {"edit": project.edits_dir, "grid": project.grids_dir, "compare": project.comparisons_dir}
    for parent in parents.values():
        with verdict.about(parent):
            for folder in run_folders(parent):
                verdict.runs += 1
                with verdict.about(folder):
                    _verify_run(folder, verdict)

    # 6. What is not finished
    if manifest and (how := going_on(project, manifest)):
        verdict.notes.append(f"{project.label}: a tuning is not finished; {how}")
    for command, parent in parents.items():
        with verdict.about(parent):
            verdict.notes += [_unfinished(project, run, command) for run in hidden_runs(parent)]
    return verdict


def _verify_source(project: Project, manifest: Manifest, verdict: Verdict) -> None:
    source = manifest.source
    with verdict.about(project.root / source.file):
        stored_picture(project, manifest)
        project.check_picture(manifest)
        if source.stored_sha256 is None:
            older = manifest.schema_version < SCHEMA_VERSION
            verdict.notes.append(
                f"{shown(project.manifest_path)} does not have the hash of {source.file}"
                + ("; the next `sine tune` or `sine edit` writes it" if older else "")
            )


def _verify_base(project: Project, manifest: Manifest, verdict: Verdict) -> Location | None:
    """Where the manifest's base is; None where it is not here, or not the one that the manifest means."""
    with verdict.about(project.manifest_path):
        location = base_at_hand(manifest)
        if location is None and (project.adapter_dir / RECORD).is_file():
            verdict.notes.append(
                f"`{manifest.base}` is not on this disk: the adapter's shapes were not held against it"
            )
        return location
    return None


def _verify_adapter(
    project: Project, manifest: Manifest | None, location: Location | None, verdict: Verdict
) -> None:
    folder = project.adapter_dir
    if not (folder / RECORD).is_file():
        left = " (files without a record are in its adapter folder)" if any(folder.glob("*")) else ""
        verdict.notes.append(f"{project.label} is not tuned{left}; `{typed_for(project, 'tune')}` does it")
        return
    verdict.adapter = True
    with verdict.about(folder / RECORD):
        record = read_record(project)
        check_files(project, record)
        if manifest is None:
            return
        check_record(project, manifest, record)
        if location is None:
            return
        check_base(project, manifest, record, location.revision)
        expected = adapter_shapes(
            unet_without_weights(location.path),
            None,
            rank=record.tune.rank,
            targets=record.tune.targets,
            frequencies=record.frequencies,
        )
        check_shapes(project, expected)
        verdict.shapes = True


def _unfinished(project: Project, run: UnfinishedRun, command: str) -> str:
    if run.holder is not None:
        return f"{shown(run.final)} is being made by {run.holder}"
    if run.request is not None:
        return f"{shown(run.final)} is not finished; `{typed_for(project, 'grid --resume')}` goes on"
    return f"{shown(run.hidden)} was left by an interruption; the next `sine {command}` removes it"


# ------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class _Expected:
    """What a run's record says of it.

    Attributes:
        pictures: what the recipe of each file must be.
        loose: names in recipes that are not compared here.
        sheets: files whose recipe is the run's record.  others: files without a recipe.
        again: the command that makes all of it again.
    """

    pictures: dict[str, Record]
    again: str
    loose: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def _verify_run(folder: Path, verdict: Verdict) -> None:
    file = folder / "run.yaml"
    if not file.is_file():
        verdict.add(folder, "has no run.yaml", _instead_of_run(folder))
        return
    with verdict.about(file):
        record = read_run(folder)
        try:
            expected = _expected(record, folder)
        except ValueError as error:
            first = next(iter(sorted(folder.rglob("*.png"))), folder)
            again = f"its pictures have their own: `sine edit --from {typed(first)}`"
            verdict.add(file, str(error), COMPARE_AGAIN if is_comparison(folder) else again)
            return
        for name, recipe in expected.pictures.items():
            with verdict.about(folder / name):
                _verify_picture(folder / name, recipe, expected.loose, expected.again, verdict)
        for name in expected.sheets:
            with verdict.about(folder / name):
                _verify_picture(folder / name, record, (), expected.again, verdict)
        for name in expected.others:
            if not (folder / name).is_file():
                verdict.add(folder / name, "is missing", expected.again)
            elif name == SCORES and _scored(folder / name) != {*expected.pictures}:
                verdict.add(folder / name, "does not have the pictures of this run", expected.again)
        known = {*expected.pictures, *expected.sheets, TRADEOFF}
        verdict.notes += [
            f"{shown(path)} is not of this run"
            for path in sorted(folder.rglob("*.png"))
            if path.relative_to(folder).as_posix() not in known
        ]


def _scored(table: Path) -> set[str]:
    """The pictures that have a line in a table of scores; none where it is no such table."""
    text = read_bytes(table, limit=_LARGEST_TABLE).decode("utf-8", "replace")
    try:
        return {line[0] for line in list(csv.reader(text.splitlines()))[1:] if line}
    except csv.Error:
        return set()


def _instead_of_run(folder: Path) -> str:
    """What to do with a run that lost its record."""
    recipes = ((path, find_recipe(path)) for path in sorted(folder.rglob("*.png")))
    first = next((path for path, recipe in recipes if recipe and "command" not in recipe), None)
    hints = [f"remove it: `rm -r {typed(folder)}`"]
    if is_comparison(folder):
        hints.insert(0, COMPARE_AGAIN)
    elif first:  # not a grid's sheet, which is made by `sine grid` alone
        hints.insert(0, f"a picture in it can be made again: `sine edit --from {typed(first)}`")
    return "; ".join(hints)


def _expected(record: Record, folder: Path) -> _Expected:
    """What must be in the folder. Raises ValueError where the record is not as sine writes it."""
    match record.get("command"):
        case "edit":
            return _of_edit(record, folder)
        case "grid":
            return _of_grid(record)
        case "compare":
            return _of_comparison(record)
        case _:
            raise ValueError("command: must be edit, grid or compare")


def _of_edit(record: Record, folder: Path) -> _Expected:
    made = made_of(record, is_run=True)
    shared = {name: value for name, value in record.items() if name not in OF_RUN}
    recipes = {
        f"{index + 1:04d}.png": {**shared, "seed": made.recipe.seed + index} for index in range(made.count)
    }
    return _Expected(recipes, f"`sine edit --from {typed(folder)}` makes the run again")


def _of_grid(record: Record) -> _Expected:
    letter, axis = ("b", "guide_weight") if "guide_weights" in record else ("v", "base_weight")
    columns = _numbers(record, "switch_steps", int, most=1000)
    rows = _numbers(record, f"{axis}s", (int, float), most=1)
    if len(columns) * len(rows) > MOST_CELLS:
        raise ValueError(f"switch_steps: makes more than {MOST_CELLS} cells")
    beside = {"command", "switch_steps", f"{axis}s", "seconds", "peak_memory", "scorer", "guides"}
    shared = {name: value for name, value in record.items() if name not in beside}
    recipes = {
        cell_name(K, letter, weight): {
            **shared,
            "switch_step": K,
            **({"base_weight": weight} if letter == "v" else {}),
        }
        for weight, K in product(rows, columns)
    }
    return _Expected(
        recipes,
        'make the grid again: `sine grid "..."`',
        # With the axes K and weight of a guide vary from cell to cell: the record has but what they share.
        # So with conditions, where the grid went on under others.
        loose=("guides", *(name for name in CONDITIONS if name not in record)),
        sheets=(GRID,),
        others=(SCORES,),
    )


def _of_comparison(record: Record) -> _Expected:
    methods, count = record.get("methods"), record.get("count")
    if not isinstance(methods, dict) or not all(
        name in METHODS and isinstance(recipe, dict) for name, recipe in methods.items()
    ):
        raise ValueError("methods: must be the recipes of methods of `sine compare`")
    if not isinstance(count, int) or not 1 <= count <= MOST_COMPARED:
        raise ValueError(f"count: must be from 1 to {MOST_COMPARED}")
    shared = {name: value for name, value in record.items() if name in Provenance.model_fields}
    recipes: dict[str, Record] = {}
    for method, recipe in methods.items():
        for index in range(1 if method in SEEDLESS else count):
            seed = {"seed": recipe["seed"] + index} if isinstance(recipe.get("seed"), int) else {}
            recipes[f"{method}/{index + 1:04d}.png"] = {
                "prompt": record.get("prompt"),
                "method": method,
                **recipe,
                **seed,
                **shared,
            }
    return _Expected(recipes, COMPARE_AGAIN, sheets=(COMPARISON,), others=(SCORES,))


def _numbers(record: Record, name: str, kind: type | tuple[type, ...], *, most: int) -> list[Any]:
    """A list of numbers from 0 to `most` in the record. Raises ValueError where it is none."""
    values: Any = record.get(name)
    if not isinstance(values, list) or not all(isinstance(n, kind) and 0 <= n <= most for n in values):
        raise ValueError(f"{name}: must be a list of numbers from 0 to {most}")
    return values


def _verify_picture(
    path: Path, expected: Record, loose: tuple[str, ...], again: str, verdict: Verdict
) -> None:
    """One picture: it opens, has its size, and its recipe is the one that its run says."""
    verdict.pictures += 1
    if path.is_symlink() or not path.is_file():
        verdict.add(path, "is a link" if path.is_symlink() else "is missing", again)
        return
    recipe = find_recipe(path)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            size = {"height": image.height, "width": image.width}
            image.load()
    except (Image.DecompressionBombError, *DECODER_ERRORS):
        verdict.add(path, "is truncated or damaged", again)
        return
    if recipe is None:
        verdict.add(path, "carries no recipe", again)
        return
    differing = [name for name in dict.fromkeys([*expected, *recipe]) if _differs(name, expected, recipe)]
    differing = [shortened(printable(str(name))) for name in differing if name not in loose]
    if differing:
        verdict.add(path, f"its recipe is not as run.yaml says: {', '.join(differing)}", again)
    elif "command" not in expected and recipe.get("size") != size:
        verdict.add(path, "is not of the size in its recipe", again)
    elif recipe.keys() >= OF_RECIPE:
        try:
            made_of(recipe, is_run=False)
        except ValueError as error:
            verdict.add(path, f"its recipe: {error}", again)


def _differs(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return name not in one or name not in other or one[name] != other[name]
