"""An adapter's record and files: refused before there is memory for what they say."""

from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sine_cli.errors import UserError
from sine_cli.models.base import load_base
from sine_cli.project.files import sha256
from sine_cli.workflow import adapters
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.adapters import load_adapter
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.tune import tune
from tests.workflow.conftest import TUNE, Girl

AGAIN = "run `sine tune` again"
UNFIT = "does not fit this base and the settings it was tuned with"


def rewrite(girl: Girl, **changes: Any) -> None:
    """Change the record; `tune` by its own fields."""
    path = girl.project.adapter_dir / "record.yaml"
    record = yaml.safe_load(path.read_text("utf-8"))
    record["tune"] |= changes.pop("tune", {})
    path.write_text(yaml.safe_dump(record | changes), "utf-8")


def refusal(girl: Girl, monkeypatch: pytest.MonkeyPatch) -> str:
    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("took memory for it")

    location = find_base(girl.manifest)
    base = load_base(location.path, None, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(adapters, "attach_adapter", never)
    with pytest.raises(UserError) as caught:
        load_adapter(girl.project, read_record(girl.project), base.unet, base.text)
    assert caught.value.hint == AGAIN
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ({"tune": {"rank": 512}}, "adapter"),
        ({"tune": {"rank": 3}}, "adapter"),
        ({"tune": {"targets": "full"}}, "adapter"),
        ({"tune": {"targets": "attention+resnet"}}, "adapter"),
        ({"frequencies": 64}, "position"),
    ],
)
def test_a_record_that_says_more_than_its_files_hold_is_refused(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], file: str
) -> None:
    rewrite(tuned, **change)
    assert refusal(tuned, monkeypatch) == f"girl/adapter/{file}.safetensors {UNFIT}"


def test_an_adapter_that_takes_the_place_of_the_one_being_read_is_told(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(find_base(tuned.manifest).path, None, torch.device("cpu"), torch.float32)
    record, attach = read_record(tuned.project), adapters.attach_adapter

    def while_another_tuning_ends(*arguments: Any, **settings: Any) -> Any:
        for path in tuned.project.adapter_dir.glob("*.safetensors"):
            other = {name: tensor + 1 for name, tensor in load_file(path).items()}
            save_file(other, path.with_name("other"))
            path.with_name("other").replace(path)
        return attach(*arguments, **settings)

    monkeypatch.setattr(adapters, "attach_adapter", while_another_tuning_ends)
    with pytest.raises(UserError) as caught:
        load_adapter(tuned.project, record, base.unet, base.text)
    assert caught.value.message == "girl/adapter was tuned anew while it was read"
    assert caught.value.hint == "run the same command again"


def test_an_adapter_that_was_replaced_since_its_record_was_read_is_told(tuned: Girl) -> None:
    record = read_record(tuned.project)
    tune(tuned.project, tuned.manifest, TUNE.model_copy(update={"seed": 1}))  # while the base loads
    base = load_base(find_base(tuned.manifest).path, None, torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match="girl/adapter was tuned anew while it was read"):
        load_adapter(tuned.project, record, base.unet, base.text)


@pytest.mark.parametrize("name", ["adapter.safetensors", "position.safetensors"])
@pytest.mark.parametrize("damage", ["shape", "missing", "extra", "empty", "cut"])
def test_tensors_that_do_not_fit_are_refused(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    path = tuned.project.adapter_dir / name
    state = load_file(path)
    first = min(state)
    match damage:
        case "shape":
            state[first] = torch.zeros(1, *state[first].shape)
        case "missing":
            del state[first]
        case "extra":
            state["one.more"] = torch.zeros(1)
        case "empty":
            state = {}
        case _:
            pass
    save_file(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    rewrite(tuned, files={**read_record(tuned.project).files, name: sha256(path)})
    message = refusal(tuned, monkeypatch)
    if damage == "cut":
        assert message.startswith(f"girl/adapter/{name} is damaged: ")
    else:
        assert message == f"girl/adapter/{name} {UNFIT}"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tune": {"rank": 100_000}}, "tune.rank: must be at most 512, got 100000"),
        ({"frequencies": 65}, "frequencies: must be at most 64, got 65"),
        ({"frequencies": 0}, "frequencies: must be at least 1, got 0"),
        ({"seconds": "many"}, 'seconds: must be a number, got "many"'),
    ],
)
def test_a_damaged_record_is_told_with_its_field(tuned: Girl, change: dict[str, Any], what: str) -> None:
    rewrite(tuned, **change)
    with pytest.raises(UserError) as caught:
        read_record(tuned.project)
    assert caught.value.message == (
        f"girl/adapter/record.yaml is damaged, or another version of sine wrote it ({what})"
    )
    assert caught.value.hint == AGAIN


def test_a_record_with_aliases_is_not_read(tuned: Girl) -> None:
    path = tuned.project.adapter_dir / "record.yaml"
    path.write_text("a: &a [x, x]\nb: [*a, *a]\n", "utf-8")
    with pytest.raises(UserError, match="anchors and aliases are not allowed"):
        read_record(tuned.project)
