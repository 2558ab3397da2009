"""Numbers, words and manifests that are out of range or no such thing: one error that names the field.

What is tried comes from the manifest's own schema, field by field, and from each option's range.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Gt, Le, MaxLen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sine_cli.project.manifest import Manifest, load_manifest
from tests.cli.conftest import Sine
from tests.robustness.conftest import Refused

QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# ----------------------------------------------------------------------------------------------- the manifest


class Field(NamedTuple):
    """A field of the manifest: its names in the file, what it holds, and its limits."""

    path: tuple[str, ...]
    kinds: tuple[Any, ...]
    limits: list[Any]
    required: bool


def fields(model: type[BaseModel] = Manifest, above: tuple[str, ...] = ()) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        path = (*above, str(info.validation_alias or name))
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from fields(info.annotation, path)
        else:
            yield Field(path, kinds_of(info), limits_of(info), info.is_required())


def kinds_of(info: FieldInfo) -> tuple[Any, ...]:
    annotation = info.annotation
    if get_origin(annotation) in (Union, UnionType):
        return tuple(get_args(kind)[0] if get_args(kind) else kind for kind in get_args(annotation))
    return (annotation,)


def limits_of(info: FieldInfo) -> list[Any]:
    inner = [each for kind in get_args(info.annotation) for each in getattr(kind, "__metadata__", ())]
    flat = [*info.metadata, *inner]
    return [limit for each in flat for limit in getattr(each, "metadata", [each])]


def wrong(field: Field) -> Iterator[tuple[str, str]]:
    """Values that the field cannot have, as the file would have them, and what kind of wrong each is."""
    kind = field.kinds[0]
    yield "a list", "[1, 2]"
    yield "a group", "{a: 1}"
    if type(None) not in field.kinds:
        yield "nothing", ""
    if kind in (int, float):
        yield from [
            ("a word", "many"),
            ("a truth", "true"),
            ("not a number", ".nan"),
            ("without end", ".inf"),
        ]
        yield from [("a quoted number", '"3"'), ("out of any range", "-1e999"), ("of 40 digits", "9" * 40)]
        for limit in field.limits:
            if isinstance(limit, Ge | Gt):
                bound = float(getattr(limit, "ge", getattr(limit, "gt", 0)))
                yield "too small", str(int(bound) - 1)
            elif isinstance(limit, Le):
                yield "too large", str(int(float(str(limit.le))) + 1)
    if kind is int:
        yield "a part", "1.5"
    if kind is str:
        yield from [("a number", "12"), ("a truth", "true"), ("half a character", '"\\ud800"')]
        if any(isinstance(limit, MaxLen) for limit in field.limits):
            yield "too long", "x" * 10_001
    if kind is bool:
        yield from [("a word", "maybe"), ("a number", "1")]
    if get_origin(kind) is Literal:
        yield "another word", "frobnicate"
    if field.path == ("source", "file"):
        for path in ("/etc/passwd", "../girl.png", "a/../../b", "..", "a\\..\\b", "C:girl.png", '"a\\0b"'):
            yield f"{path}, outside", path


CASES = [
    pytest.param(field.path, value, id=f"{'.'.join(field.path)}: {what}")
    for field in fields()
    for what, value in wrong(field)
]


def put(project: Path, path: tuple[str, ...], value: str | None) -> None:
    """Set a field in sine.yaml, or take it out (None)."""
    file = project / "sine.yaml"
    lines = file.read_text("utf-8").splitlines()
    start = 0 if len(path) == 1 else lines.index(f"{path[0]}:") + 1
    name = ("  " if len(path) == 2 else "") + path[-1] + ":"
    at = next((i for i in range(start, len(lines)) if lines[i].startswith(name)), None)
    line = [] if value is None else [f"{name} {value}"]
    lines[slice(start, start) if at is None else slice(at, at + 1)] = line
    file.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize(("path", "value"), CASES)
def test_a_wrong_value_in_the_manifest_is_told_with_its_field(
    refused: Refused, untuned: Path, path: tuple[str, ...], value: str
) -> None:
    put(untuned, path, value)
    told = refused("show", "-p", "girl")
    assert told.startswith("girl/sine.yaml:")
    assert f": {'.'.join(path)}: " in told


@pytest.mark.parametrize(
    "field", [each for each in fields() if each.required], ids=lambda f: ".".join(f.path)
)
def test_a_field_that_is_left_out_is_told(refused: Refused, untuned: Path, field: Field) -> None:
    put(untuned, field.path, None)
    told = refused("tune", "-p", "girl")
    assert told.endswith(f": {'.'.join(field.path)}: missing")


@pytest.mark.parametrize("section", ["", "source", "prompts", "tune", "edit"])
def test_a_field_there_is_not_is_told(refused: Refused, untuned: Path, section: str) -> None:
    path = (section, "frobnicate") if section else ("frobnicate",)
    put(untuned, path, "1")
    assert f": {'.'.join(path)}: unknown key; " in refused("edit", "a boat", "-p", "girl")


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


STRANGE: dict[str, tuple[bytes, str]] = {
    "a bomb of aliases": (bomb(12).encode(), "sine.yaml:1: anchors and aliases are not allowed"),
    "a tag of Python": (b"base: !!python/object/apply:os.system [true]\n", "sine.yaml:1: tags are not"),
    "a tag of its own": (b"base: !x y\n", "sine.yaml:1: tags are not allowed"),
    "a merge": (b"a: &a {b: 1}\n<<: *a\n", "sine.yaml:1: anchors and aliases"),
    "a tab": (b"tune:\n\tsteps: 4\n", "sine.yaml:2: not valid YAML: a tab cannot indent"),
    "deep lists": (b"[" * 50_000, "sine.yaml:1: nested too deeply"),
    "deep groups": (b"{a: " * 50_000, "sine.yaml:1: nested too deeply"),
    "two documents": (b"a: 1\n---\nb: 2\n", "sine.yaml:2: not valid YAML: "),
    "a number without end": (b"%YAML 1." + b"9" * 5000 + b"\n---\na: 1\n", "sine.yaml:1: not valid YAML"),
    "UTF-16": ("schema: 1\n".encode("utf-16"), "sine.yaml:1: not UTF-8 text"),
    "a NUL": (b"base: a\0b\n", "sine.yaml:1: not text: character"),
    "2 MiB": (b"#" * 2**21, "girl/sine.yaml is larger than 1,048,576 bytes"),
    "nothing": (b"", "sine.yaml:1: empty"),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("command", [["tune"], ["edit", "a boat"], ["show"]], ids=lambda c: c[0])
def test_a_strange_manifest_is_told(refused: Refused, untuned: Path, kind: str, command: list[str]) -> None:
    content, told = STRANGE[kind]
    (untuned / "sine.yaml").write_bytes(content)
    assert told in refused(*command, "-p", "girl")


def test_a_manifest_of_the_future_is_told(refused: Refused, untuned: Path) -> None:
    put(untuned, ("schema",), "99")
    told = refused("tune", "-p", "girl")
    assert "schema: this project was made by a newer sine (schema 99, this one reads up to " in told


values = st.one_of(
    st.text(max_size=60),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@QUICK
@given(
    field=st.sampled_from([*fields()]),
    value=values,
    style=st.sampled_from([None, '"', "'", "|", ">"]),
)
def test_any_value_in_any_field_is_read_or_told(
    sine: Sine, untuned: Path, field: Field, value: object, style: str | None
) -> None:
    file = untuned / "sine.yaml"
    sound = file.read_bytes()
    rest = yaml.safe_dump(
        value, default_style=style, width=2**31, default_flow_style=True, allow_unicode=True
    )
    put(untuned, field.path, rest.replace("\n...\n", "").strip().replace("\n", "\n    "))
    try:
        done = sine("show", "-p", "girl")
        assert done.code in (0, 2), done
        if done.code:
            assert done.err.startswith("error: girl/sine.yaml:") and done.err.count("error:") == 1
        else:
            load_manifest(file)
    finally:
        file.write_bytes(sound)


# ---------------------------------------------------------------------------------------------------- numbers

whole = st.one_of(st.integers(), st.sampled_from([-1, 0, 2**31, 2**63, 10**9, 10**30]))
real = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e9, 5e-324]))

OPTIONS = [
    ("edit", "-K", whole, 0, 1000),
    ("edit", "-v", real, 0, 1),
    ("edit", "-w", real, 1, 100),
    ("edit", "--steps", whole, 1, 1000),
    ("edit", "-n", whole, 1, 1000),
    ("edit", "--seed", whole, 0, 2**62),
    ("grid", "-K", real, 0, 1000),
    ("grid", "-v", real, 0, 1),
    ("grid", "-w", real, 1, 100),
    ("grid", "--steps", whole, 1, 1000),
    ("grid", "--seed", whole, 0, 2**62),
    ("compare", "--strength", real, 0, 1),
    ("compare", "--factor", whole, 1, 2**200),
    ("compare", "-n", whole, 1, 100),
    ("compare", "-w", real, 1, 100),
    ("tune", "--steps", whole, 1, 10**7),
    ("tune", "--prior", whole, 0, 10**4),
    ("tune", "--seed", whole, 0, 2**63 - 1),
]


@pytest.mark.parametrize(
    ("command", "option", "numbers", "least", "most"), OPTIONS, ids=[f"{o[0]} {o[1]}" for o in OPTIONS]
)
@QUICK
@given(data=st.data())
def test_a_number_out_of_range_is_told_with_its_option(
    refused: Refused, untuned: Path, command: str, option: str, numbers: Any, least: int, most: int, data: Any
) -> None:
    number = data.draw(numbers.filter(lambda number: not least <= number <= most))
    prompt = [] if command == "tune" else ["a boat"]
    told = refused(
        command, *prompt, "-p", "girl", f"{option}={number!r}" if len(option) > 2 else f"{option}{number!r}"
    )
    assert told.startswith(f"{option}: ") or (told.startswith("Invalid value for ") and option in told)


sizes = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"-?[0-9]{1,12}[xX*,]-?[0-9]{1,12}(px)?", fullmatch=True),
    st.tuples(real, real).map(lambda pair: f"{pair[0]}x{pair[1]}"),
)


def is_size(text: str) -> bool:
    sides = text.lower().split("x")
    return len(sides) == 2 and all(s.isascii() and s.isdigit() and 1 <= int(s) <= 8192 for s in sides)


@QUICK
@given(text=sizes.filter(lambda text: not is_size(text)))
def test_what_is_no_size_is_told(refused: Refused, untuned: Path, text: str) -> None:
    assert refused("edit", "a boat", "-p", "girl", f"--size={text}").startswith("--size: ")


@QUICK
@given(text=st.one_of(st.text(max_size=30), st.lists(real, max_size=6).map(lambda r: ",".join(map(str, r)))))
def test_what_is_no_crop_is_told(refused: Refused, untuned: Path, text: str) -> None:
    with_four = len(text.split(",")) == 4
    if with_four and "nan" not in text and "inf" not in text and "e" not in text:
        text += ",1"  # a fifth
    assert refused("edit", "a boat", "-p", "girl", f"--crop={text}").startswith("--crop: ")


@QUICK
@given(axis=st.sampled_from(["-K", "-v"]), text=st.text(alphabet="0123456789.:,-+einfa ", max_size=16))
def test_any_axis_of_a_grid_is_read_or_told(sine: Sine, untuned: Path, axis: str, text: str) -> None:
    done = sine("grid", "a boat", "-p", "girl", f"{axis}{text}")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err
    assert not (untuned / "grids").exists()


@QUICK
@given(text=st.text(alphabet="girl:.0123456789,-+einfa/~\0\n", max_size=24))
def test_any_guide_is_found_or_told(refused: Refused, untuned: Path, text: str) -> None:
    refused("edit", "a boat", "-p", "girl", "--guide", text)


@QUICK
@given(text=st.text(max_size=40))
@pytest.mark.parametrize("option", ["--scorer", "--lora", "--solver", "--memory", "--project"])
def test_any_word_of_an_option_is_known_or_told(
    refused: Refused, untuned: Path, option: str, text: str
) -> None:
    given = ["--best", "1"] if option == "--scorer" else []
    project = [] if option == "--project" else ["-p", "girl"]
    refused("edit", "a boat", *project, *given, f"{option}=\t{text}")


# ---------------------------------------------------------------------------------------------------- prompts


@QUICK
@given(
    prompt=st.text(min_size=1, max_size=40),
    odd=st.sampled_from(["\0", "\x07", "\x1b[2J", "\x7f", "\x85", "\ud800", "\udfff"]),
    where=st.integers(min_value=0),
    command=st.sampled_from(["edit", "grid", "compare"]),
)
def test_a_prompt_with_characters_that_are_no_text_is_told(
    refused: Refused, untuned: Path, prompt: str, odd: str, where: int, command: str
) -> None:
    at = where % (len(prompt) + 1)
    told = refused(command, "-p", "girl", "--", f"x{prompt[:at]}{odd}{prompt[at:]}")
    assert told.startswith('the prompt "x')
    assert told.endswith((" has control characters", " is not UTF-8 text"))
    assert told.isprintable()


@pytest.mark.parametrize("command", ["edit", "grid", "compare"])
def test_a_prompt_of_more_than_10000_characters_is_told(
    refused: Refused, untuned: Path, command: str
) -> None:
    told = refused(command, "a boat " * 2000, "-p", "girl")
    assert told == "the prompt has 14000 characters, at most 10000 are allowed"


@pytest.mark.parametrize(
    ("stdin", "told"),
    [
        (b"a boat\na b\0at\n", 'the prompt "a b\\x00at" has control characters'),
        (b"\xff\xfea\0 \0b\0", "stdin is not UTF-8 text"),
        (b"x" * 10_001, "the prompt has 10001 characters, at most 10000 are allowed"),
        (b"\xef\xbb\xbf \n\t\n", "stdin has no prompt"),
    ],
)
def test_prompts_from_stdin_are_checked_too(refused: Refused, untuned: Path, stdin: bytes, told: str) -> None:
    assert refused("edit", "-", "-p", "girl", stdin=stdin) == told


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--source-prompt=a \x1b[2Jboat", 'the prompt "a \\x1b[2Jboat" has control characters'),
        ("--negative=" + "x" * 10_001, "--negative: must have at most 10000 characters, got "),
        ("--negative=\udce9", "--negative: must be text of whole characters, got "),
        ("--guide=girl:0.1:400:a \0 boat", '--guide: the prompt "a \\x00 boat" has control characters'),
    ],
)
def test_other_words_are_checked_too(refused: Refused, untuned: Path, option: str, told: str) -> None:
    assert refused("edit", "a boat", "-p", "girl", option).startswith(told)
