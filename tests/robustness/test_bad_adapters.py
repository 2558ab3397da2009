"""Adapters that are damaged, made up, or of something else: one error that names the file."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.test_errors import mend_record
from tests.robustness.conftest import Refused

UNET, POSITION = "adapter.safetensors", "position.safetensors"


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


class Wicked:
    """What a pickled checkpoint could run when it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("from pathlib import Path; Path('pwned').touch()",)


def pickled() -> bytes:
    out = io.BytesIO()
    torch.save({"weight": Wicked()}, out)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    return out.getvalue()


BYTES: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "zeros": b"\0" * 4096,
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 4 GB": struct.pack("<Q", 2**32) + b"{}",
    "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "a header that is no JSON": safetensors(b"{" * 100),
    "a header 5,000 deep": safetensors(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "a tensor beyond the end": safetensors({"a": entry(0, 4000, [1000])}, b"\0" * 8),
    "a tensor of 2^62 numbers": safetensors({"a": entry(0, 8, [2**31, 2**31])}, b"\0" * 8),
    "a tensor that wraps around": safetensors({"a": entry(0, 8, [2**63, 2])}, b"\0" * 8),
    "a tensor that ends before it begins": safetensors({"a": entry(8, 0, [2])}, b"\0" * 8),
    "two tensors in one place": safetensors({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, b"\0" * 8),
    "a hole": safetensors({"a": entry(4, 8, [1])}, b"\0" * 8),
    "a type there is not": safetensors({"a": entry(0, 8, [1], "F1024")}, b"\0" * 8),
    "a pickle": pickle.dumps(Wicked()),
    "a torch checkpoint": pickled(),
    "a zip of 10 MB of zeros": zipped(),
}


@pytest.mark.parametrize("name", [UNET, POSITION])
@pytest.mark.parametrize("kind", BYTES)
def test_a_file_that_is_no_adapter_is_told(refused: Refused, girl: Path, name: str, kind: str) -> None:
    (girl / "adapter" / name).write_bytes(BYTES[kind])
    changed = f"girl/adapter/{name} is not the file that girl/adapter/record.yaml names"
    assert refused("edit", "a boat", "-p", "girl") == changed
    assert refused("export", "-p", "girl") == changed
    assert not Path("pwned").exists()


@pytest.mark.parametrize("kind", BYTES)
def test_a_file_that_is_no_adapter_is_told_also_where_the_record_names_it(
    refused: Refused, girl: Path, kind: str
) -> None:
    (girl / "adapter" / UNET).write_bytes(BYTES[kind])
    mend_record(girl / "adapter")
    assert refused("export", "-p", "girl").startswith(f"girl/adapter/{UNET} is damaged: ")
    assert not Path("pwned").exists()


State = dict[str, torch.Tensor]


def first(state: State) -> str:
    return min(state)


def of_other_rank(state: State) -> State:
    return {n: t[:8] if ".lora_A" in n else t[:, :8] for n, t in state.items()}


def with_nan(state: State) -> State:
    state[first(state)].view(-1)[-1] = torch.nan
    return state


def with_infinity(state: State) -> State:
    state[first(state)].view(-1)[0] = -torch.inf
    return state


def without_one(state: State) -> State:
    state.pop(first(state))
    return state


def with_one_more(state: State) -> State:
    return {**state, "more": torch.zeros(2)}


def of_other_names(state: State) -> State:
    return {f"other.{name}": tensor for name, tensor in state.items()}


def of_other_shape(state: State) -> State:
    return {**state, first(state): state[first(state)].unsqueeze(0)}


def as_numbers_of_another_kind(state: State) -> State:
    return {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in state.items()}


SPOILED: list[tuple[str, Callable[[State], State]]] = [
    *((UNET, spoil) for spoil in (of_other_rank, with_nan, without_one, of_other_names, of_other_shape)),
    *((POSITION, spoil) for spoil in (with_infinity, with_one_more, as_numbers_of_another_kind)),
]


@pytest.mark.parametrize(("name", "spoil"), SPOILED)
def test_tensors_that_do_not_fit_are_told(
    refused: Refused, girl: Path, name: str, spoil: Callable[[State], State]
) -> None:
    file = girl / "adapter" / name
    save_file({n: t.contiguous() for n, t in spoil(load_file(file)).items()}, file)
    mend_record(girl / "adapter")
    assert refused("edit", "a boat", "-p", "girl").startswith(f"girl/adapter/{name} ")


def test_swapped_files_are_told(refused: Refused, girl: Path) -> None:
    unet, position = (girl / "adapter" / name for name in (UNET, POSITION))
    shutil.move(unet, "aside")
    shutil.move(position, unet)
    shutil.move("aside", position)
    assert "is not the file that girl/adapter/record.yaml names" in refused("edit", "a boat", "-p", "girl")
    mend_record(girl / "adapter")
    assert refused("edit", "a boat", "-p", "girl").startswith("girl/adapter/")


@pytest.mark.parametrize("name", ["record.yaml", UNET, POSITION])
def test_a_folder_in_a_file_s_place_is_told(refused: Refused, girl: Path, name: str) -> None:
    (girl / "adapter" / name).unlink()
    (girl / "adapter" / name).mkdir()
    refused("edit", "a boat", "-p", "girl")
