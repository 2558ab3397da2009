"""The manifest: it round-trips, and every mistake is told with its line and field."""

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sine_cli.errors import UserError
from sine_cli.project.manifest import (
    SCHEMA_VERSION,
    EditSettings,
    Manifest,
    Prompts,
    Source,
    TuneSettings,
    load_manifest,
    write_manifest,
)
from sine_cli.project.templates import template_path

TUNE: dict[str, Any] = {
    "steps": 400,
    "batch": 8,
    "learning_rate": 1e-3,
    "position_learning_rate": 3e-3,
    "rank": 16,
    "targets": "attention",
    "patches": True,
    "min_patch": 0.1,
    "whole": 0.15,
    "pool": 256,
    "min_timestep": 0,
    "preview_every": 200,
    "checkpoint_every": 100,
    "seed": 0,
}
MANIFEST = Manifest(
    schema_version=1,
    source=Source(original="girl.jpg", sha256="ab" * 32, height=640, width=512),
    prompts=Prompts(class_noun="girl", kind="photo", token="sks", source="a photo of a sks girl"),
    base="sd15",
    base_revision=None,
    tune=TuneSettings(**TUNE),
    edit=EditSettings(switch_step=400, base_weight=0.7, guidance_scale=7.5, steps=30, solver="dpm++"),
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`girl/sine.yaml` in the working folder, sound."""
    monkeypatch.chdir(tmp_path)
    Path("girl").mkdir()
    path = Path("girl/sine.yaml")
    write_manifest(path, MANIFEST)
    return path


def line_of(path: Path, beginning: str, section: str = "") -> int:
    """The line, from 1, of the first field that begins so, after the section of that name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"{section}:") if section else 0
    return next(
        number
        for number, line in enumerate(lines, 1)
        if number > start and line.strip().startswith(beginning)
    )


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert caught.value.hint
    return caught.value.message


def message_for(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return message_of(path)


def edit(path: Path, section: str, name: str, line: str) -> int:
    """Replace a field's whole line; its number."""
    number = line_of(path, f"{name}:", section)
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[number - 1] = line
    path.write_text("\n".join(lines), encoding="utf-8")
    return number


# ------------------------------------------------------------------------------------------------- round trip

words = st.text(min_size=1, max_size=80)
tokens = words.filter(lambda word: len(word.split()) == 1 and "[*]" not in word)
shares = st.floats(0, 1)
positives = st.floats(0, 10, exclude_min=True)
inner_files = st.lists(
    st.text(string.ascii_letters + " '#é😀", min_size=1, max_size=9), min_size=1, max_size=3
).map("/".join)

# The aliases in its signature would make hypothesis fill in `schema` as well.
manifests = st.builds(
    lambda **fields: Manifest(**fields),
    schema_version=st.just(1),
    source=st.builds(
        Source,
        file=inner_files,
        original=words,
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        height=st.integers(1, 10**6),
        width=st.integers(1, 10**6),
    ),
    prompts=st.builds(Prompts, class_noun=words, kind=words, token=tokens, source=words),
    base=st.sampled_from(["mini", "sd15", "a/b"]) | words.map("/{}".format),
    base_revision=st.none() | words,
    tune=st.builds(
        TuneSettings,
        steps=st.integers(1, 10**7),
        batch=st.integers(1, 1024),
        learning_rate=positives,
        position_learning_rate=positives,
        rank=st.integers(1, 512),
        targets=st.sampled_from(["attention", "attention+resnet"]),
        patches=st.booleans(),
        min_patch=st.floats(0, 1, exclude_min=True),
        whole=shares,
        pool=st.integers(1, 10**5),
        min_timestep=st.integers(0, 999),
        preview_every=st.integers(0, 10**7),
        checkpoint_every=st.integers(1, 10**7),
        seed=st.integers(0, 2**63 - 1),
    ),
    edit=st.builds(
        EditSettings,
        switch_step=st.integers(0, 1000),
        base_weight=shares,
        guidance_scale=st.floats(1, 100),
        steps=st.integers(1, 1000),
        solver=st.sampled_from(["ddim", "euler", "dpm++", "unipc"]),
        negative=st.text(max_size=80),
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifest=manifests)
def test_what_is_written_is_read_back(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(tmp_path / "sine.yaml", manifest)
    assert load_manifest(tmp_path / "sine.yaml") == manifest


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "~",
        "true",
        "No",
        "12",
        "1e-4",
        "010",
        ".nan",
        "2026-11-23",
        "a: b",
        "a #b",
        "#b",
        "- a",
        "*a",
        "&a",
        "!a",
        "'",
        '"',
        "\\",
        "${base}",
        "$",
        "\t",
        " a ",
        "a\nb",
        "a\r\nb",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x00",
        "😀",
        "%",
        "@",
        "`",
        "{",
        "[*]",
        "---",
        "dpm++",
        "x" * 3000,
        "word " * 600,
    ],
)
def test_awkward_texts_are_read_back(tmp_path: Path, text: str) -> None:
    token = text if len(text.split()) == 1 and text != "[*]" else "sks"
    prompts = Prompts(class_noun=text, kind=text, token=token, source=text)
    manifest = MANIFEST.model_copy(update={"prompts": prompts, "base_revision": text})
    write_manifest(tmp_path / "sine.yaml", manifest)
    assert load_manifest(tmp_path / "sine.yaml") == manifest


def test_the_source_prompt_s_placeholder_is_the_token(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace("a photo of a sks girl", "a [*] girl"), "utf-8")
    assert load_manifest(path).prompts.source == "a sks girl"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("token", "two words", 'prompts.token: must be one word, got "two words"'),
        ("token", "[*]", 'prompts.token: must be one word, got "[*]"'),
        *(
            (
                "base",
                value,
                "base: must be a preset (mini, sd15, sd21, sdxl), a hub id (owner/name) or a whole path, "
                f'got "{value}"',
            )
            for value in ("minii", "./weights", "a/b/c", "a/b.safetensors", "~/weights")
        ),
    ],
)
def test_what_is_no_token_or_no_base_is_told_with_its_line(
    path: Path, field: str, value: str, told: str
) -> None:
    lines = path.read_text("utf-8").splitlines()
    (number,) = (n for n, line in enumerate(lines) if line.strip().startswith(f"{field}: "))
    indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
    lines[number] = f'{indent}{field}: "{value}"'
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert caught.value.message == f"girl/sine.yaml:{number + 1}: {told}"


def test_the_template_has_every_field_and_explains_it() -> None:
    template = template_path("manifest.yaml").read_text(encoding="utf-8")
    lines = template.splitlines()
    for section, fields in [("tune", TuneSettings.model_fields), ("edit", EditSettings.model_fields)]:
        for name in fields:
            number = lines.index(f"  {name}: ${{{section}.{name}}}")
            assert lines[number - 1].startswith("  # "), f"{section}.{name} is not explained"
    assert all(len(line) <= 110 for line in lines)


def test_plain_words_are_written_plainly(path: Path) -> None:
    text = path.read_text()
    assert "\nbase: sd15\n" in text
    assert "\n  solver: dpm++\n" in text
    assert '\n  source: "a photo of a sks girl"  #' in text
    assert "\n  patches: true\n" in text


# ----------------------------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("section", "name", "value", "what"),
    [
        ("tune", "steps", "-5", "must be at least 1, got -5"),
        ("tune", "steps", "many", 'must be a whole number, got "many"'),
        ("tune", "steps", "5.0", "must be a whole number, got 5.0"),
        ("tune", "steps", "true", "must be a whole number, got true"),
        ("tune", "steps", "", "must be a whole number, got nothing"),
        ("tune", "steps", "[1]", "must be a whole number, got a list"),
        ("tune", "steps", "{a: 1}", "must be a whole number, got a group of fields"),
        ("tune", "steps", "010", 'must be a whole number, got "010"'),
        ("tune", "steps", "1_000", 'must be a whole number, got "1_000"'),
        ("tune", "rank", "513", "must be at most 512, got 513"),
        ("tune", "learning_rate", "0", "must be more than 0, got 0"),
        ("tune", "learning_rate", ".nan", "must be a finite number, got .nan"),
        ("tune", "learning_rate", "1e999", "must be a finite number, got 1e999"),
        ("tune", "learning_rate", "true", "must be a number, got true"),
        ("tune", "patches", "yes", 'must be true or false, got "yes"'),
        ("tune", "patches", "1", "must be true or false, got 1"),
        ("tune", "min_patch", "0", "must be more than 0, got 0"),
        ("tune", "whole", "1.5", "must be at most 1, got 1.5"),
        ("tune", "min_timestep", "1000", "must be at most 999, got 1000"),
        (
            "tune",
            "seed",
            "9223372036854775808",
            "must be at most 9223372036854775807, got 9223372036854775808",
        ),
        ("tune", "targets", "all", 'must be attention, attention+resnet or full, got "all"'),
        ("edit", "switch_step", "1001", "must be at most 1000, got 1001"),
        ("edit", "guidance_scale", "0.5", "must be at least 1, got 0.5"),
        ("edit", "guidance_scale", "-.inf", "must be a finite number, got -.inf"),
        ("edit", "solver", "heun", 'must be ddim, euler, dpm++ or unipc, got "heun"'),
        ("edit", "negative", "5", "must be text (in quotes where it looks like something else), got 5"),
        ("edit", "negative", "x" * 10_001, f'must have at most 10000 characters, got "{"x" * 40}…"'),
        ("prompts", "class", '""', 'must not be empty, got ""'),
        ("prompts", "token", r'"\ud800"', r'must be text of whole characters, got "\ud800"'),
        ("source", "file", "/etc/passwd", 'must be a path inside the project folder, got "/etc/passwd"'),
        ("source", "file", "a/../../b", 'must be a path inside the project folder, got "a/../../b"'),
        ("source", "file", r"a\b", r'must be a path inside the project folder, got "a\b"'),
        ("source", "file", "C:b", 'must be a path inside the project folder, got "C:b"'),
        ("source", "file", ".", 'must be a path inside the project folder, got "."'),
        ("source", "sha256", "abc", 'must be 64 hexadecimal digits, got "abc"'),
        ("source", "height", "0", "must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_told_with_line_and_field(
    path: Path, section: str, name: str, value: str, what: str
) -> None:
    line = edit(path, section, name, f"  {name}: {value}")
    assert message_of(path) == f"girl/sine.yaml:{line}: {section}.{name}: {what}"


def test_the_hint_names_the_line_and_the_next_command(path: Path) -> None:
    line = edit(path, "tune", "steps", "  steps: -5")
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert caught.value.hint == f"mend line {line} of girl/sine.yaml, then `sine show` checks it again"


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("1", 1.0), (".5", 0.5), ("2.", 2.0)]
)
def test_numbers_are_read_as_people_write_them(path: Path, text: str, number: float) -> None:
    edit(path, "tune", "learning_rate", f"  learning_rate: {text}")
    assert load_manifest(path).tune.learning_rate == number


def test_no_is_a_word(path: Path) -> None:
    edit(path, "prompts", "class", "  class: no")
    assert load_manifest(path).prompts.class_noun == "no"


def test_the_first_problem_is_told_and_the_others_counted(path: Path) -> None:
    first = edit(path, "tune", "batch", "  batch: 0")
    edit(path, "tune", "rank", "  rank: 0")
    edit(path, "edit", "steps", "  steps: 0")
    assert message_of(path) == f"girl/sine.yaml:{first}: tune.batch: must be at least 1, got 0 (and 2 more)"


# ------------------------------------------------------------------------------------------------ wrong names


def test_a_mistyped_name_is_guessed(path: Path) -> None:
    line = edit(path, "tune", "steps", "  stpes: 400")
    expected = f"girl/sine.yaml:{line}: tune.stpes: unknown key; did you mean `steps`? (and 1 more)"
    assert message_of(path) == expected


def test_an_unknown_name_without_a_likeness_lists_what_there_is(path: Path) -> None:
    line = edit(path, "edit", "negative", "  zzz: 1")
    known = "switch_step, base_weight, guidance_scale, steps, solver, negative"
    assert message_of(path) == f"girl/sine.yaml:{line}: edit.zzz: unknown key; the keys here are {known}"


@pytest.mark.parametrize("name", ["schema_version", "clas", "<<"])
def test_unknown_names_at_the_top(path: Path, name: str) -> None:
    content = path.read_text() + f"{name}: 1\n"
    assert f": {name}: unknown key; " in message_for(path, content)


def test_names_of_the_code_are_no_names_of_the_file(path: Path) -> None:
    line = edit(path, "prompts", "class", "  class_noun: girl")
    expected = f"girl/sine.yaml:{line}: prompts.class_noun: unknown key; "
    assert message_of(path).startswith(expected)


def test_a_missing_field_is_told_at_its_section(path: Path) -> None:
    edit(path, "tune", "rank", "")
    section = line_of(path, "tune:")
    assert message_of(path) == f"girl/sine.yaml:{section}: tune.rank: missing"


def test_a_missing_section(path: Path) -> None:
    text = path.read_text()
    assert message_for(path, text[: text.index("\nedit:")]) == "girl/sine.yaml:1: edit: missing"


def test_an_empty_section(path: Path) -> None:
    text = path.read_text()
    content = text[: text.index("\nedit:")] + "\nedit:\n"
    line = content.count("\n")
    expected = f"girl/sine.yaml:{line}: edit: must be a group of fields, got nothing"
    assert message_for(path, content) == expected


def test_fields_with_a_default_may_be_left_out(path: Path) -> None:
    edit(path, "source", "file", "")
    edit(path, "edit", "negative", "")
    edit(path, "", "base_revision", "")
    assert load_manifest(path) == MANIFEST


def test_a_field_given_twice(path: Path) -> None:
    line = edit(path, "tune", "steps", "  steps: 1\n  steps: 2")
    expected = f"girl/sine.yaml:{line + 1}: tune.steps: given twice, first on line {line}"
    assert message_of(path) == expected


# ------------------------------------------------------------------------------------------- no YAML, no text

LEFT_OPEN = "a quotation mark or bracket is left open, or the indentation is not that of the next line"


@pytest.mark.parametrize(
    ("section", "name", "wrong", "what"),
    [
        ("tune", "steps", "  steps 1000", '"steps 1000" is not of the form `name: value`'),
        ("tune", "steps", "  steps:1000", '"steps:1000" is not of the form `name: value`'),
        ("tune", "steps", "   steps: 1000", LEFT_OPEN),
        ("", "tune", "tune", '"tune" is not of the form `name: value`'),
        ("prompts", "source", "  source: a photo: of a girl", "mapping values are not allowed here"),
        ("prompts", "source", '  source: "a photo of a girl', LEFT_OPEN),
        ("prompts", "source", "  source: 'a photo of a girl", LEFT_OPEN),
        ("edit", "solver", '  solver: "ddim', LEFT_OPEN),
        ("edit", "solver", "  solver: {ddim", LEFT_OPEN),
    ],
)
def test_a_mistake_of_form_is_told_with_the_line_that_has_it(
    path: Path, section: str, name: str, wrong: str, what: str
) -> None:
    line = edit(path, section, name, wrong)
    assert message_of(path) == f"girl/sine.yaml:{line}: not valid YAML: {what}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1: empty, it has no fields"),
        ("\n# nothing\n", "1: empty, it has no fields"),
        ("- a\n", "1: must be lines of `name: value`, got a list"),
        ("\nhello\n", '2: must be lines of `name: value`, got "hello"'),
        ("a: b: c\n", "1: not valid YAML: mapping values are not allowed here"),
        ('a: 1\nb: "x\nc: 1\n', "2: not valid YAML: found unexpected end of stream"),
        ("a:\n  b 1\n  # of c\n  c: 1\n", '2: not valid YAML: "b 1" is not of the form `name: value`'),
        ("a:\n  b:1\n\n  c: 1\n", '2: not valid YAML: "b:1" is not of the form `name: value`'),
        ('a:\n  b: "x\n  c: ""\n', f"2: not valid YAML: {LEFT_OPEN}"),
        ("a:\n  b: [1\n  # of c\n  c: 1\n", f"2: not valid YAML: {LEFT_OPEN}"),
        ('a: "b [\\" c"  # don\'t {\nd: e: f\n', "2: not valid YAML: mapping values are not allowed here"),
        ("a: |\n  some words\nb: c: d\n", "3: not valid YAML: mapping values are not allowed here"),
        ("a: some\n  words\nb: c: d\n", "3: not valid YAML: mapping values are not allowed here"),
        ("a b: 1\n'c d': 1\ne: f: g\n", "3: not valid YAML: mapping values are not allowed here"),
        ("a: [1,\n 2\n", f"1: not valid YAML: {LEFT_OPEN}"),
        ("tune:\n\tsteps: 1\n", "2: not valid YAML: a tab cannot indent, use spaces"),
        ("a: &x 1\n", "1: anchors and aliases are not allowed; a word that begins with & or * needs quotes"),
        (
            "a: 1\nb: *x\n",
            "2: anchors and aliases are not allowed; a word that begins with & or * needs quotes",
        ),
        ("a: !!int 1\n", "1: tags are not allowed; a word that begins with ! needs quotes"),
        ("!!python/object:os.system {}\n", "1: tags are not allowed; a word that begins with ! needs quotes"),
        ("a: ! b\n", "1: tags are not allowed; a word that begins with ! needs quotes"),
        ("a: 1\n---\nb: 1\n", "2: not valid YAML: but found another document"),
        ("[" * 100_000, "1: nested too deeply"),
        ("{a: " * 100_000, "1: nested too deeply"),
        ("a: 1\nb: \x01\n", "2: not text: character 0x01"),
        ('a: "\\U00110000"\n', "1: not valid YAML: an escape or version number is out of range"),
        (
            "%YAML 1." + "9" * 5000 + "\n---\na: 1\n",
            "1: not valid YAML: an escape or version number is out of range",
        ),
        ("? [a]\n: 1\n", "1: a name must be a word, got a list (and 6 more)"),
        ('"\\ud800": 1\n', r'1: a name must be a word, got "\ud800" (and 6 more)'),
        (b"a: 1\nb: \xff\n", "2: not UTF-8 text (byte 0xff)"),
        ("a: 1\n".encode("utf-16"), "1: not UTF-8 text (byte 0xff)"),
    ],
)
def test_a_file_that_is_no_manifest(path: Path, content: str | bytes, message: str) -> None:
    assert message_for(path, content) == f"girl/sine.yaml:{message}"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_manifest(path) == MANIFEST


def test_a_huge_file_is_not_read(path: Path) -> None:
    assert message_for(path, b"#" * (1024 * 1024 + 1)) == "girl/sine.yaml is larger than 1,048,576 bytes"


def test_a_missing_file(path: Path) -> None:
    path.unlink()
    assert message_of(path) == "no such file: girl/sine.yaml"


def test_a_newer_schema(path: Path) -> None:
    line = edit(path, "", "schema", f"schema: {SCHEMA_VERSION + 1}\nsomething_new: 1")
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert caught.value.message == (
        f"girl/sine.yaml:{line}: schema: this project was made by a newer sine "
        f"(schema {SCHEMA_VERSION + 1}, this one reads up to {SCHEMA_VERSION})"
    )
    assert caught.value.hint == "install a newer sine: `git pull` in its clone, then `pip install .` there"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("0", "must be at least 1, got 0"),
        ("true", "must be a whole number, got true"),
        ('"2"', 'must be a whole number, got "2"'),
    ],
)
def test_a_schema_that_never_was(path: Path, value: str, what: str) -> None:
    line = edit(path, "", "schema", f"schema: {value}")
    assert message_of(path) == f"girl/sine.yaml:{line}: schema: {what}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 4000),
    inserted=st.one_of(st.text(max_size=12), st.text("{}[]&*!|>'\"%@`#:-? \n\tab1", max_size=12)),
)
def test_any_damage_is_read_or_told_with_a_line(tmp_path: Path, cut: int, inserted: str) -> None:
    path = tmp_path / "sine.yaml"
    write_manifest(path, MANIFEST)
    text = path.read_text(encoding="utf-8")
    path.write_bytes((text[:cut] + inserted + text[cut:]).encode())
    try:
        load_manifest(path)
    except UserError as error:
        assert re.match(re.escape(str(path)) + r":\d+: .", error.message)
        assert error.message.isprintable()
