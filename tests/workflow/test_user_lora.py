"""`--lora FILE[:scale]`, read."""

import hashlib
from pathlib import Path

import pytest

from sine_cli.errors import UserError
from sine_cli.workflow.user_lora import UserLora, parse_user_lora


@pytest.mark.parametrize(
    ("text", "name", "scale"),
    [
        ("ink.safetensors", "ink.safetensors", 1.0),
        ("ink.safetensors:0.8", "ink.safetensors", 0.8),
        ("ink.safetensors:-1", "ink.safetensors", -1.0),
        ("ink:2", "ink:2", 1.0),  # a file of that very name comes first
        ("ink:2:3", "ink:2", 3.0),
    ],
)
def test_a_file_with_or_without_its_strength(text: str, name: str, scale: float) -> None:
    Path(name).write_bytes(b"layers")
    lora = parse_user_lora(text)
    assert lora == UserLora(Path(name), scale)
    assert lora.as_dict() == {
        "file": name,
        "sha256": hashlib.sha256(b"layers").hexdigest(),
        "scale": scale,
    }


def test_the_adapter_of_a_project_is_no_lora_as_it_lies() -> None:
    Path("boat/adapter").mkdir(parents=True)
    for name in ("adapter/adapter.safetensors", "sine.yaml"):
        Path("boat", name).touch()
    with pytest.raises(UserError) as caught:
        parse_user_lora("boat/adapter/adapter.safetensors:0.5")
    assert caught.value.message == (
        "--lora: boat/adapter/adapter.safetensors is the adapter of a project of sine"
    )
    assert caught.value.hint == "use it as a guide: `--guide boat:0.3`; `sine export` writes it as a LoRA"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ink:strong", '--lora: "strong" is not a strength'),
        ("ink:inf", "--lora: the strength must be from -10 to 10, got inf"),
        ("ink:0.5", "--lora: no such file: ink"),
        ("ink", "--lora: no such file: ink"),
    ],
)
def test_what_is_no_lora_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_user_lora(text)
    assert caught.value.message == message
