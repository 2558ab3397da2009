"""The floors of the house: imports go down only, heavy ones stay on their floors, and nobody prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import sine_cli

PACKAGE = Path(sine_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "cli": {"cli", "console", "workflow", "project", "mini", "errors"},
    "workflow": {"workflow", "project", "method", "models", "scoring", "errors"},
    "project": {"project", "errors"},
    "method": {"method", "errors"},
    "models": {"models", "method", "errors"},
    "scoring": {"scoring", "method", "errors"},
    "mini": {"mini", "errors"},
    "console": {"errors"},
    "errors": set[str](),
    "__main__": {"cli"},
    "__init__": set[str](),
}
"""What each floor may import of this package."""

NEVER = {
    "project": {"torch", "diffusers", "transformers", "peft", "huggingface_hub", "safetensors", "matplotlib"},
    "method": {"diffusers", "transformers", "peft", "huggingface_hub"},
    "scoring": {"diffusers", "peft", "huggingface_hub", "matplotlib"},
    "cli": {"torch", "diffusers", "transformers", "peft", "huggingface_hub", "matplotlib", "PIL"},
    "errors": {"torch", "pydantic", "yaml"},
    "console": {"torch", "diffusers", "transformers", "peft", "pydantic"},
}
"""What a floor may not import of others' packages."""


class Import(NamedTuple):
    """`from module import name`; or `import module`, with an empty name."""

    file: Path
    line: int
    module: str
    name: str

    @property
    def floor(self) -> str | None:
        """The floor of this package that is imported."""
        parts = self.module.split(".")
        if parts[0] != "sine_cli":
            return None
        return parts[1] if len(parts) > 1 else self.name

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE)}:{self.line}: {self.module} {self.name}".rstrip()


def floor_of(file: Path) -> str:
    """A folder's own `__main__` is a door to `cli`, as the package's is."""
    return (
        "__main__" if file.name == "__main__.py" else file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    )


def imports(file: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from (Import(file, node.lineno, node.module or "", alias.name) for alias in node.names)


ALL = [each for file in FILES for each in imports(file)]


def test_the_house_was_walked_through() -> None:
    assert len(FILES) > 40
    assert len([each for each in ALL if each.floor]) > 100
    assert {floor_of(file) for file in FILES} <= {*FLOORS}
    assert {*FLOORS} - {"__main__", "__init__"} <= {floor_of(file) for file in FILES}


def test_imports_go_down_only() -> None:
    wrong = [
        str(each)
        for each in ALL
        if each.floor not in (None, "__version__") and each.floor not in FLOORS[floor_of(each.file)]
    ]
    assert wrong == []


def test_models_and_scoring_use_only_types_of_the_method() -> None:
    """Classes, or constants of a type; no function of it."""
    lower = [
        str(each)
        for each in ALL
        if floor_of(each.file) in ("models", "scoring")
        and each.floor == "method"
        and not each.name[:1].isupper()
    ]
    assert lower == []


@pytest.mark.parametrize("floor", sorted(NEVER))
def test_heavy_packages_stay_on_their_floors(floor: str) -> None:
    wrong = [
        str(each)
        for each in ALL
        if floor_of(each.file) == floor
        and any(each.module == name or each.module.startswith(f"{name}.") for name in NEVER[floor])
    ]
    assert wrong == []


def test_only_the_console_imports_rich_and_only_cli_imports_typer() -> None:
    for package, place in {"rich": "console", "typer": "cli"}.items():
        users = {floor_of(each.file) for each in ALL if each.module.split(".")[0] == package}
        assert users == {place}


def test_nothing_prints_but_the_console() -> None:
    """Nor writes to the streams by another door."""
    wrong: list[str] = []
    for file in FILES:
        if floor_of(file) == "console":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            is_print = isinstance(node, ast.Name) and node.id == "print"
            is_stream = isinstance(node, ast.Attribute) and re.fullmatch(
                r"sys\.(stdout|stderr)\.write", ast.unparse(node)
            )
            if isinstance(node, ast.expr) and (is_print or is_stream):
                wrong.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []


def test_errors_are_caught_and_told_in_one_place() -> None:
    """No floor catches Exception wholesale, and only `main` ends the process."""
    wrong: list[str] = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught in ("everything", "Exception"):
                    wrong.append(f"{file.relative_to(PACKAGE)}:{node.lineno}: catches {caught}")
            ends = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit")
            if isinstance(node, ast.expr) and ends and file != PACKAGE / "cli" / "main.py":
                wrong.append(f"{file.relative_to(PACKAGE)}:{node.lineno}: ends the process")
    assert wrong == []


def test_the_commands_wait_for_nothing_heavy_at_the_top_of_their_files() -> None:
    """Workflow and models are imported inside the functions, so that help is quick."""
    wrong: list[str] = []
    for file in FILES:
        if floor_of(file) != "cli":
            continue
        for node in ast.parse(file.read_text("utf-8")).body:  # not what stands under an `if`
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sine_cli."):
                floor = node.module.split(".")[1]
                if floor not in ("cli", "errors"):
                    wrong.append(f"{file.relative_to(PACKAGE)}:{node.lineno}: {node.module}")
    assert wrong == []
