"""What killed processes leave in a project, removed by the next command that writes to it.

Whatever can go on stays: interrupted grids, and the checkpoint of a tuning.
"""

from sine_cli.project import lock, runs
from sine_cli.project.folder import Project


def remove_leftovers(project: Project) -> None:
    """Remove partial files and folders of dead processes, their runs and their lock; links are not followed.

    What cannot be removed stays, silently.
    """
    outputs = (project.edits_dir, project.grids_dir, project.comparisons_dir, project.exports_dir)
    tuning = project.tuning_dir
    kept = tuning / "adapters"  # each in a folder of its own, as in a project
    below = [tuning / name for name in ("checkpoint", "previews", "prior")] + [kept, *kept.glob("*/adapter")]
    for folder in (project.root, *outputs, project.adapter_dir, tuning, *below):
        runs.sweep(folder)
    lock.remove_idle(project.tuning_lock)
