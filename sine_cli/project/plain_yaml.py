"""Plain YAML, read so that every mistake can be told with its line.

Mappings, lists and scalars, without tags, anchors or surprises ("no" is a word, 1e-4 a number). Manifests are
read with the place of every value, records (`run.yaml`, `record.yaml`) as values alone.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml

from sine_cli.errors import UserError
from sine_cli.project import files

_DEEPEST = 3  # the file, a section, and one more, so that a wrongly nested value is named with its field
_MOST_TRIED = 100  # lines, in the search for the one that is at fault
_LONGEST_TRIED = 20_000  # characters: a manifest of sine's has a quarter
_NAMED = re.compile(r"\S+:(\s|$)")
_LONGEST_SHOWN = 40  # characters of a wrong value in a message


@dataclass(frozen=True)
class Place:
    """Where a value stands, and how it reads there."""

    line: int
    text: str


@dataclass(frozen=True)
class Problem:
    """A mistake, and where."""

    line: int
    field: str  # "tune.steps"; empty for the file as a whole
    what: str
    is_missing: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.what}" if self.field else self.what


Location = tuple[str, ...]
"""The names that lead to a value."""


@dataclass(frozen=True)
class Outline:
    """The file as plain values, with the place of each, and what was wrong already at reading."""

    values: dict[str, object] = field(default_factory=dict[str, object])
    places: dict[Location, Place] = field(default_factory=dict[Location, Place])
    problems: list[Problem] = field(default_factory=list[Problem])


def refuse(path: Path, problems: list[Problem]) -> NoReturn:
    """Raise UserError for the first of the problems."""
    # A mistyped name makes two problems; the one that stands in the file helps more than the missing one.
    first, *others = sorted(problems, key=lambda problem: (problem.is_missing, problem.line))
    more = f" (and {len(others)} more)" if others else ""
    raise UserError(
        f"{files.shown(path)}:{first.line}: {first}{more}",
        f"mend line {first.line} of {files.shown(path)}, then `sine show` checks it again",
    )


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refuse(path, [Problem(line, "", f"not UTF-8 text (byte 0x{content[error.start]:02x})")])


class _NotAllowed(yaml.MarkedYAMLError):
    """Correct YAML that is not plain."""


class _PlainLoader(yaml.SafeLoader):
    """YAML cut down to mappings, lists and scalars, with the few plain scalars that people expect."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML declares no ClassVar)
    deepest: ClassVar[int] = _DEEPEST
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _NotAllowed(
                problem="anchors and aliases are not allowed; a word that begins with & or * needs quotes",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise _NotAllowed(
                problem="tags are not allowed; a word that begins with ! needs quotes",
                problem_mark=event.start_mark,
            )
        if self.depth > self.deepest:
            raise _NotAllowed(problem="nested too deeply", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_NULL, _BOOL, _INT, _FLOAT, _STR = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")
)
_PLAIN_SCALARS = {
    _NULL: r"|~|null",
    _BOOL: r"true|false",
    _INT: r"[-+]?(0|[1-9][0-9]{0,30})",
    _FLOAT: r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
}
for _tag, _pattern in _PLAIN_SCALARS.items():
    _PlainLoader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


class _RecordLoader(_PlainLoader):
    deepest = 16  # a record of sine's has six, a grid's cells with their guides
    # As PyYAML writes: what it left without quotes is read as what it was. Dates it quotes, so none are read.
    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML declares no ClassVar)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_record(content: bytes) -> dict[str, Any]:
    """The values of a record as sine writes it: plain YAML, in which nothing stands for more than itself.

    Raises:
        ValueError: it is not one; the first line of the message says why.
    """
    try:
        # Safe: the loader is a SafeLoader that refuses tags, anchors and aliases too.
        record = yaml.load(content.decode("utf-8"), Loader=_RecordLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {files.printable(error.problem or 'not valid YAML')}") from error
    except (yaml.YAMLError, OverflowError, RecursionError) as error:
        raise ValueError("not plain YAML text") from error
    if not isinstance(record, dict):
        raise ValueError("has no fields")
    return record


def read_outline(content: bytes, path: Path) -> Outline:
    """The outline of a file's content. Raises UserError where it is not plain YAML with names."""
    text = _decoded(content, path)
    try:
        node = yaml.compose(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        refuse(path, [_syntax_problem(error, text)])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        refuse(path, [Problem(line, "", f"not text: character {error.character:#04x}")])
    except (ValueError, OverflowError):  # PyYAML: "\UFFFFFFFF" in quotes, or a %YAML number without end
        refuse(path, [Problem(1, "", "not valid YAML: an escape or version number is out of range")])
    if node is None:
        refuse(path, [Problem(1, "", "empty, it has no fields")])
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        refuse(path, [Problem(line, "", f"must be lines of `name: value`, got {_as_shown(node)}")])
    outline = Outline()
    outline.values.update(_values(node, (), outline))
    return outline


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    what = error.problem or "cannot be read"
    opened_here = error.context_mark if "end of stream" in what else None
    mark = opened_here or error.problem_mark
    line = mark.line + 1 if mark else 1
    if isinstance(error, _NotAllowed):
        return Problem(line, "", what)
    lines = text.splitlines()
    if "'\\t'" in what or re.match(r" *\t", (lines[line - 1 : line] or [""])[0]):
        what = "a tab cannot indent, use spaces"
    elif len(text) < _LONGEST_TRIED and (above := _at_fault(lines, line)) < line:
        line, content = above, lines[above - 1].strip()
        if _NAMED.match(content):
            what = "a quotation mark or bracket is left open, or the indentation is not that of the next line"
        else:
            what = f'"{shortened(content)}" is not of the form `name: value`'
    return Problem(line, "", f"not valid YAML: {files.printable(what)}")


def _at_fault(lines: list[str], line: int) -> int:
    """The line but for which all is YAML: a mistake is often found lines after it was made.

    Of several one that is no `name: value`, else the nearest one from this line upwards; without any, this.
    """

    contents = [text.strip() for text in lines]

    def without(n: int) -> str:
        content = contents[n - 1]
        instead = "" if _NAMED.match(content) else lines[n - 1].replace(content, "name:")
        return "\n".join([*lines[: n - 1], instead, *lines[n:]])

    upwards = range(min(line, len(lines)), max(line - _MOST_TRIED, 0), -1)
    tried = [n for n in upwards if contents[n - 1] and not contents[n - 1].startswith("#")]
    good = [n for n in tried if _is_yaml(without(n))]
    return next((n for n in good if not _NAMED.match(contents[n - 1])), good[0] if good else line)


def _is_yaml(text: str) -> bool:
    try:
        yaml.compose(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return False
    return True


def _values(mapping: yaml.MappingNode, inside: Location, outline: Outline) -> dict[str, object]:
    """The values of a mapping, by name; places and repeated or odd names go to the outline."""
    values: dict[str, object] = {}
    for key, node in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
            name = _as_shown(key)
            outline.problems.append(Problem(line, dotted(inside), f"a name must be a word, got {name}"))
            continue
        location = (*inside, key.value)
        if location in outline.places:
            first = outline.places[location].line
            outline.problems.append(Problem(line, dotted(location), f"given twice, first on line {first}"))
            continue
        outline.places[location] = Place(line, _as_shown(node))
        values[key.value] = _value(node, location, outline)
    return values


def _value(node: yaml.Node, location: Location, outline: Outline) -> object:
    if isinstance(node, yaml.MappingNode):
        return _values(node, location, outline)
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)  # no field is a list: the checks refuse it, whatever it holds
    text: str = node.value
    match node.tag:
        case tag if tag == _NULL:
            return None
        case tag if tag == _BOOL:
            return text == "true"
        case tag if tag == _INT:
            return int(text)
        case tag if tag == _FLOAT:
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            return text


def _as_shown(node: yaml.Node) -> str:
    """How a message shows a value: as it stands in the file, words in quotes, and not too much of it."""
    if isinstance(node, yaml.MappingNode):
        return "a group of fields"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    text = shortened(node.value)
    if node.tag == _NULL:
        return "nothing"
    return f'"{files.printable(text)}"' if node.tag == _STR else text


def dotted(location: Location) -> str:
    """As messages have it, "tune.steps"."""
    return files.printable(".".join(map(shortened, location)))


def shortened(text: str) -> str:
    """Not too much of a wrong value."""
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
