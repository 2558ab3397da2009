"""Exports: where they go, what they replace, what is refused. (What they hold: models/test_lora_files.py.)"""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from sine_cli.errors import UserError
from sine_cli.workflow.asked import MERGED
from sine_cli.workflow.export import export
from tests.workflow.conftest import TUNE, Girl


def test_a_lora_goes_into_the_project_and_is_replaced_by_the_next(tuned: Girl) -> None:
    first = export(tuned.project, tuned.manifest, "kohya")
    assert first.path == Path("girl/exports/girl-kohya.safetensors")
    assert (first.rank, first.source_prompt) == (TUNE.rank, tuned.manifest.prompts.source)
    before = first.path.read_bytes()
    first.path.write_bytes(b"")
    assert export(tuned.project, tuned.manifest, "kohya").path.read_bytes() == before
    alphas = {float(t) for name, t in load_file(first.path).items() if name.endswith(".alpha")}
    assert alphas == {float(TUNE.rank)}


def test_a_merged_base_is_replaced_whole(tuned: Girl) -> None:
    path = export(tuned.project, tuned.manifest, MERGED).path
    assert path == Path("girl/exports/girl-merged")
    (path / "left.txt").touch()
    export(tuned.project, tuned.manifest, MERGED)
    names = sorted(entry.name for entry in path.iterdir())
    assert names == ["model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["girl-merged"], (
        "nothing is left beside it"
    )


@pytest.mark.parametrize("form", ["diffusers", MERGED])
def test_what_the_user_names_is_never_replaced(tuned: Girl, form: str) -> None:
    out = Path("mine")
    out.mkdir()
    with pytest.raises(UserError) as caught:
        export(tuned.project, tuned.manifest, form, out)
    assert caught.value.message == "mine already exists"
    out.rmdir()
    assert export(tuned.project, tuned.manifest, form, out).path == out
    assert out.exists()


def test_an_adapter_that_is_not_the_recorded_one_is_refused(tuned: Girl) -> None:
    (tuned.project.adapter_dir / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is not the file that"):
        export(tuned.project, tuned.manifest, "diffusers")
    assert not list(tuned.project.exports_dir.glob("*"))


def test_the_lora_for_diffusers_is_exported_where_the_base_is_not(tuned: Girl) -> None:
    elsewhere = tuned.manifest.model_copy(update={"base": "painters/nowhere"})
    record = tuned.project.adapter_dir / "record.yaml"
    record.write_text(
        record.read_text("utf-8").replace(f"base: {tuned.manifest.base}\n", "base: painters/nowhere\n")
    )
    assert export(tuned.project, elsewhere, "diffusers").path.is_file()


def test_an_untuned_project_is_refused(untuned: Girl) -> None:
    with pytest.raises(UserError, match="is not tuned yet"):
        export(untuned.project, untuned.manifest, "diffusers")
