"""The manifest `sine.yaml`: what a project is made of, read strictly and written with its comments.

A person edits this file and strangers send it, so it is read as plain YAML, and every mistake is told with
its line and field.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from string import Template
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from sine_cli.errors import UserError
from sine_cli.project import files
from sine_cli.project.plain_yaml import (
    Location,
    Outline,
    Place,
    Problem,
    dotted,
    read_outline,
    refuse,
    shortened,
)
from sine_cli.project.prompts import TOKEN, with_token, without_token
from sine_cli.project.templates import template_path

SCHEMA_VERSION = 2
"""Older ones are read too; `migration` brings their files to this one."""

_LARGEST_FILE = 1024 * 1024  # bytes
MOST_AUTO_STEPS = 2000
"""Of a tuning that ends by itself, where nobody said how many."""
_MOST = 10_000_000  # of any count or side: more is a slip of the finger

# -------------------------------------------------------------------------------------------------- the model


def _stays_inside(file: str) -> str:
    path = PurePosixPath(file)
    climbs = path.is_absolute() or not path.parts or ".." in path.parts
    if climbs or "\\" in file or "\0" in file or PureWindowsPath(file).drive:
        raise ValueError("must be a path inside the project folder")
    return file


HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def looks_like_hub(name: str) -> bool:
    """Whether a base of that name may be one of the hub's."""
    return HUB_ID.fullmatch(name) is not None and not name.endswith(".safetensors")


def _is_base(name: str) -> str:
    """A relative path is none: what it names would change with the working folder."""
    from sine_cli.project.presets import presets  # which imports this module

    known = presets()
    if name not in known and not looks_like_hub(name) and not Path(name).is_absolute():
        raise ValueError(f"must be a preset ({', '.join(known)}), a hub id (owner/name) or a whole path")
    return name


def _is_one_word(token: str) -> str:
    if len(token.split()) != 1 or TOKEN in token:
        raise ValueError("must be one word")
    return token


def _is_sha256(digest: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("must be 64 hexadecimal digits")
    return digest


Text = Annotated[str, Field(min_length=1, max_length=10_000)]
InnerFile = Annotated[Text, AfterValidator(_stays_inside)]
Sha256 = Annotated[str, AfterValidator(_is_sha256)]
Share = Annotated[float, Field(ge=0, le=1)]
SwitchStep = Annotated[int, Field(ge=0, le=1000)]  # K
GuidanceScale = Annotated[float, Field(ge=1, le=100)]  # w
SamplingSteps = Annotated[int, Field(ge=1, le=1000)]
Solver = Literal["ddim", "euler", "dpm++", "unipc"]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Section(BaseModel):
    """A group of fields: none unknown, no number where a word belongs, no NaN."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )


class Source(_Section):
    """The picture of the project: the stored file, and the one it was made from."""

    file: InnerFile = "source.png"
    original: Text  # the name of the file that was given
    sha256: Sha256  # of that file
    stored_sha256: Sha256 | None = None  # of the stored one; since schema 2
    height: int = Field(ge=1, le=_MOST)  # pixels of the stored picture
    width: int = Field(ge=1, le=_MOST)


class Prompts(_Section):
    """The words that describe the picture."""

    class_noun: Text = Field(validation_alias="class", serialization_alias="class")
    kind: Text
    token: Annotated[Text, AfterValidator(_is_one_word)]
    source: Text  # the source prompt; `[*]` in the file is the token here

    @model_validator(mode="before")
    @classmethod
    def _name_the_token(cls, values: Any) -> Any:
        if isinstance(values, dict):
            source, token = (values.get(name) for name in ("source", "token"))
            if isinstance(source, str) and isinstance(token, str):
                return {**values, "source": with_token(source, token)}
        return values

    @property
    def of_class(self) -> str:
        """The source prompt for a model that does not know the token, "a photo of a castle"."""
        return without_token(self.source, self.token) or self.class_noun


class TuneSettings(_Section):
    """How the adapter is tuned on the picture."""

    steps: int = Field(ge=1, le=_MOST)
    stop_early: bool = False  # once the preview comes no nearer; `steps` is then the most of them
    batch: int = Field(ge=1, le=1024)
    learning_rate: float = Field(gt=0, le=10)
    position_learning_rate: float = Field(gt=0, le=10)
    rank: int = Field(ge=1, le=512)
    targets: Literal["attention", "attention+resnet", "full"]  # full: no LoRA, every weight of the U-Net
    text_encoder: bool = False  # a LoRA on it too
    patches: bool
    min_patch: float = Field(gt=0, le=1)  # smallest side of a patch, as a share of the picture's
    whole: Share  # share of the steps that see the whole picture
    pool: int = Field(ge=1, le=100_000)  # patches encoded ahead
    min_timestep: int = Field(ge=0, le=999)
    loss: Literal["epsilon", "v_prediction"] = "v_prediction"
    prior: int = Field(default=0, ge=0, le=10_000)  # pictures of the class, for prior preservation
    preview_every: int = Field(ge=0, le=_MOST)  # steps; 0 for none
    checkpoint_every: int = Field(ge=1, le=_MOST)  # steps
    seed: Seed


class EditSettings(_Section):
    """The defaults of an edit."""

    switch_step: SwitchStep  # K
    base_weight: Share  # v
    guidance_scale: GuidanceScale  # w
    steps: SamplingSteps
    solver: Solver
    negative: Annotated[str, Field(max_length=10_000)] = ""


class Manifest(_Section):
    """All of `sine.yaml`. In the file `schema_version` is `schema` and `class_noun` is `class`."""

    schema_version: int = Field(
        ge=1, le=SCHEMA_VERSION, validation_alias="schema", serialization_alias="schema"
    )
    source: Source
    prompts: Prompts
    base: Annotated[Text, AfterValidator(_is_base)]  # a preset, a hub id, a folder or a file
    base_revision: Text | None = None  # a commit of the hub, or the "sha256:..." of a local folder
    tune: TuneSettings
    edit: EditSettings


_SECTIONS: dict[str, type[_Section]] = {
    "source": Source,
    "prompts": Prompts,
    "tune": TuneSettings,
    "edit": EditSettings,
}

# ---------------------------------------------------------------------------------------------------- reading


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: for the first mistake, as `girl/sine.yaml:12: tune.steps: must be at least 1, got -5`;
            also for a file that is missing, larger than 1 MiB, not UTF-8, or of a newer sine.
    """
    return parse_manifest(files.read_bytes(path, limit=_LARGEST_FILE), path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """The manifest of a file's content. Raises UserError as `load_manifest`."""
    outline = read_outline(content, path)
    _refuse_newer(outline, path)
    problems = list(outline.problems)
    try:
        manifest = Manifest.model_validate(outline.values, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [_problem(details, outline) for details in error.errors(include_url=False)]
        refuse(path, problems)
    if problems:
        refuse(path, problems)
    return manifest


def _refuse_newer(outline: Outline, path: Path) -> None:
    version = outline.values.get("schema")
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        raise UserError(
            f"{files.shown(path)}:{outline.places['schema',].line}: schema: this project was made by a newer "
            f"sine (schema {version}, this one reads up to {SCHEMA_VERSION})",
            "install a newer sine: `git pull` in its clone, then `pip install .` there",
        )


def _problem(details: ErrorDetails, outline: Outline) -> Problem:
    """A mistake that pydantic found, in our words and with its line."""
    location = tuple(str(part) for part in details["loc"])
    place = outline.places.get(location)
    if place is None:  # missing: the line of its section
        place = outline.places.get(location[:-1], Place(1, ""))
    what = _what(details, location, place.text)
    return Problem(place.line, dotted(location), what, is_missing=details["type"] == "missing")


_EXPECTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text (in quotes where it looks like something else)",
    "string_unicode": "must be text of whole characters",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a group of fields",
    "value_error": "{error}",
}


def _what(details: ErrorDetails, location: Location, got: str) -> str:
    kind = details["type"]
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return f"unknown key; {_suggestion(location)}"
    context = {name: _bare(value) for name, value in details.get("ctx", {}).items()}
    return f"{_EXPECTED[kind].format_map(context)}, got {got}"


def first_mistake(error: ValidationError) -> str:
    """The first of the mistakes in a record, as `size.width: must be at most 8192, got 9000`."""
    details = error.errors(include_url=False)[0]
    location = tuple(map(str, details["loc"]))
    kind = details["type"]
    if kind == "missing":
        what = "missing"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        what = "unknown"
    elif kind in _EXPECTED:
        got = shortened(files.printable(str(details["input"])))
        what = _what(details, location, f'"{got}"' if isinstance(details["input"], str) else got)
    else:
        what = "not as sine writes it"
    return f"{dotted(location)}: {what}" if location else what


def _bare(value: object) -> str:
    """A limit or a list of words without decoration: 1.0 is 1, "'ddim' or 'dpm++'" is ddim or dpm++."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).replace("'", "")


def _suggestion(location: Location) -> str:
    section = Manifest if len(location) == 1 else _SECTIONS[location[0]]
    known = [str(info.validation_alias or name) for name, info in section.model_fields.items()]
    close = difflib.get_close_matches(location[-1], known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"the keys here are {', '.join(known)}"


# --------------------------------------------------------------------------------------------------- changing

SettingsT = TypeVar("SettingsT", TuneSettings, EditSettings)


def changed(settings: SettingsT, changes: Mapping[str, tuple[str, object]]) -> SettingsT:
    """Settings with the values of a command's options in place of the manifest's.

    Args:
        changes: for each field, the option as a person types it ("-K"), and its value; None changes nothing.

    Raises:
        UserError: a value is out of range, told as "-K: must be at most 1000, got 2000".
    """
    given = {field: value for field, (_, value) in changes.items() if value is not None}
    try:
        return type(settings).model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        details = error.errors()[0]
        field = str(details["loc"][0])
        option, value = changes[field]
        what = _what(details, (field,), shortened(_bare(value) if isinstance(value, float) else str(value)))
        raise UserError(f"{option}: {what}", "`--help` shows each option with its range") from error


# ---------------------------------------------------------------------------------------------------- writing


class _DottedTemplate(Template):
    """Placeholders name fields as messages do: `${tune.steps}`."""

    braceidpattern = r"(?a:[a-z_0-9]+(?:\.[a-z_0-9]+)*)"


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `templates/manifest.yaml` with the values of `manifest`, whole or not at all.

    Reading the file again gives an equal manifest.

    Raises:
        SineError: disk full, no permission, or another failure of the disk.
    """
    template = _DottedTemplate(template_path("manifest.yaml").read_text(encoding="utf-8"))
    fields = manifest.model_dump(by_alias=True)
    files.write_text(path, template.substitute(dict(_rendered(fields))))


def _rendered(fields: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each field's dotted name with its value as YAML."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _rendered(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _as_yaml(value)


_PLAIN_WORD = re.compile(
    r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9._+/-]*", re.IGNORECASE
)


def _as_yaml(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() if not _PLAIN_WORD.fullmatch(value):
            return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=2**31).rstrip("\n")
        case _:
            return str(value)
