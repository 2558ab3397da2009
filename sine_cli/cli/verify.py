"""`sine verify`: whether a project is sound."""

from typing import TYPE_CHECKING

from sine_cli.cli.options import JsonOption, ProjectOption, QuietOption, choose_project
from sine_cli.errors import SineError

if TYPE_CHECKING:
    from sine_cli.workflow.verify import Verdict


def verify(project: ProjectOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check that a project is what its records say.

    Manifest, picture, adapter (its hashes, and its shapes against the base where that is on this disk), and
    every run with the recipes of its pictures. Changes nothing and fetches nothing. Exit code 0: all is
    sound.

    \b
    sine verify
    sine verify --project girl --json
    """
    from sine_cli.console import Console, counted
    from sine_cli.project.folder import typed_for

    console = Console(as_json=as_json, quiet=quiet)
    opened = choose_project(project, console)

    from sine_cli.workflow.verify import verify

    verdict = verify(opened)
    lines: list[str] = []
    for problem in verdict.problems:
        lines += [problem.what, *([f"  hint: {problem.hint}"] if problem.hint else [])]
    lines += [f"note: {note}" for note in verdict.notes]
    if not verdict.problems:
        lines.append(f"{opened.label} is sound: {_looked_at(verdict)}")
    console.result(
        lines,
        {
            "project": str(opened.root),
            "sound": not verdict.problems,
            "problems": [
                {"file": str(each.file), "problem": each.what, "hint": each.hint} for each in verdict.problems
            ],
            "notes": verdict.notes,
            "adapter": verdict.adapter,
            "shapes": verdict.shapes,
            "runs": verdict.runs,
            "pictures": verdict.pictures,
        },
    )
    if verdict.problems:
        count = len(verdict.problems)
        raise SineError(
            f"{opened.label} has {counted(count, 'problem')}",
            f"mend what is named on stdout, then `{typed_for(opened, 'verify')}` again",
        )


def _looked_at(verdict: "Verdict") -> str:
    from sine_cli.console import counted

    adapter = " with its shapes" if verdict.shapes else ""
    parts = ["manifest", "picture", *([f"adapter{adapter}"] if verdict.adapter else [])]
    held = f"{counted(verdict.runs, 'run')} with {counted(verdict.pictures, 'picture')}"
    return ", ".join([*parts, held])
