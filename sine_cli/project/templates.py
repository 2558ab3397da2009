"""Where the files of `templates/` lie: inside an installed package, or beside it in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def template_path(*parts: str) -> Path:
    """The path of a template, `template_path("bases", "mini.yaml")`.

    A wheel carries the templates as `sine_cli/templates`; in an editable checkout they lie beside the
    package. The path is returned whether or not the file exists.
    """
    installed = _PACKAGE / "templates"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "templates"
    return folder.joinpath(*parts)
