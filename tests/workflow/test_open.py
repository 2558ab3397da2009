"""A project opened for sampling: its picture says its size, and a manifest that disagrees is refused."""

import pytest

from sine_cli.errors import UserError
from sine_cli.project.manifest import write_manifest
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.size import Size
from tests.workflow.conftest import EDIT, Girl

INIT = "`sine init PICTURE --class NOUN`"


def test_a_manifest_with_another_size_than_its_picture_decides_about_no_size(untuned: Girl) -> None:
    wide = untuned.manifest.source.model_copy(update={"width": 10_000_000})
    write_manifest(untuned.project.manifest_path, untuned.manifest.model_copy(update={"source": wide}))
    plain = EDIT.model_copy(update={"base_weight": 1.0, "steps": 1})
    with pytest.raises(UserError) as caught:
        edit(untuned.project, untuned.manifest, EditRequest(["a boat"], plain))
    assert caught.value.message == (
        "girl/source.png is 60 high, 80 wide, and girl/sine.yaml says 60 high, 10000000 wide"
    )
    assert caught.value.hint == "set `height: 60` and `width: 80` there, under `source`"
    assert not any(untuned.project.edits_dir.glob("*"))
    (made,) = edit(untuned.project, untuned.manifest, EditRequest(["a boat"], plain, Size(8, 8)))
    assert made.size == Size(8, 8), "where the size is given, nothing depends on it"
