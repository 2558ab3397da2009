"""A base's configuration may ask for no more than its weights hold, and is told so before memory is taken."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch import nn

from sine_cli.errors import UserError
from sine_cli.models.architecture import read_architecture
from sine_cli.models.base import Base, unet_without_weights
from sine_cli.models.bounds import bounded
from tests.tiny import MINI

TRUST = "fetch or copy it again, from a place that you trust"
Load = Callable[[Path], Base]


def change(config: Path, **values: Any) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))


TOO_LARGE: list[tuple[str, str, Any, str]] = [
    ("text_encoder", "vocab_size", 10**12, "vocab_size: 1000000000000"),
    ("text_encoder", "max_position_embeddings", 10**12, "max_position_embeddings: 1000000000000"),
    ("text_encoder", "num_hidden_layers", 10**9, "num_hidden_layers: 1000000000"),
    ("text_encoder", "hidden_size", -(10**9), "hidden_size: -1000000000"),
    ("text_encoder", "id2label", {"0": {"deep": [1, 10**40]}}, "id2label.0.deep: " + "1" + "0" * 19),
    ("unet", "layers_per_block", 10**9, "layers_per_block: 1000000000"),
    ("unet", "block_out_channels", [32, 10**10], "block_out_channels: 10000000000"),
    ("unet", "num_class_embeds", 10**10, "num_class_embeds: 10000000000"),
    ("unet", "addition_time_embed_dim", 10**10, "addition_time_embed_dim: 10000000000"),
    ("unet", "sample_size", 10**6, "sample_size: 1000000"),
    ("vae", "layers_per_block", 10**9, "layers_per_block: 1000000000"),
    ("vae", "latent_channels", 10**9, "latent_channels: 1000000000"),
    ("scheduler", "num_train_timesteps", 10**12, "num_train_timesteps: 1000000000000"),
]


@pytest.mark.parametrize(("part", "name", "value", "told"), TOO_LARGE)
def test_a_number_beyond_any_model_s_is_refused(
    copy_of_tiny: Path, load: Load, part: str, name: str, value: Any, told: str
) -> None:
    config = copy_of_tiny / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    change(config, **{name: value})
    with pytest.raises(UserError) as caught:
        load(copy_of_tiny)
    assert (caught.value.message, caught.value.hint) == (
        f"{config}: {told} is more than any model needs",
        TRUST,
    )


MORE: list[tuple[str, str, Any]] = [
    ("text_encoder", "vocab_size", 60_000),
    ("text_encoder", "num_hidden_layers", 60_000),
    ("text_encoder", "max_position_embeddings", 60_000),
    ("unet", "layers_per_block", 60_000),
    ("unet", "transformer_layers_per_block", 60_000),
    ("unet", "cross_attention_dim", 60_000),
    ("vae", "layers_per_block", 60_000),
    ("vae", "block_out_channels", [8, 16, 6_000]),
]
"""Small enough for a single number, and together more than the weights."""


@pytest.mark.parametrize(("part", "name", "value"), MORE)
def test_more_layers_or_weights_than_the_files_hold_are_refused_while_they_are_built(
    copy_of_tiny: Path, load: Load, part: str, name: str, value: Any
) -> None:
    change(copy_of_tiny / part / "config.json", **{name: value})
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        load(copy_of_tiny)
    assert time.process_time() - start < 20  # 60,000 layers take minutes, and gigabytes
    assert caught.value.message.startswith(f"{copy_of_tiny}/{part}/config.json asks for more than twice the ")
    assert caught.value.hint == TRUST


def test_a_configuration_is_held_to_its_weights_also_where_only_its_shapes_are_asked_for(
    copy_of_tiny: Path,
) -> None:
    change(copy_of_tiny / "unet" / "config.json", layers_per_block=60_000)
    with pytest.raises(UserError, match="asks for more than twice the"):
        unet_without_weights(copy_of_tiny)


def test_a_tensor_without_numbers_does_not_widen_the_bounds(copy_of_tiny: Path, load: Load) -> None:
    (weights,) = (copy_of_tiny / "text_encoder").glob("*.safetensors")
    save_file({**load_file(weights), "long": np.zeros((10**12, 0), np.float32)}, weights)
    change(copy_of_tiny / "text_encoder" / "config.json", num_labels=10**12)
    with pytest.raises(UserError, match="num_labels: 1000000000000 is more than any model needs"):
        load(copy_of_tiny)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("text_encoder", {"hidden_size": "abc"}),
        ("text_encoder", {"hidden_size": 1e9}),
        ("text_encoder", {"num_hidden_layers": [2]}),
        ("text_encoder", {"quantization_config": {"quant_method": "awq", "bits": 4}}),
        ("unet", {"block_out_channels": "abc"}),
        ("unet", {"act_fn": 7}),
        ("vae", {"norm_num_groups": 1e9}),
        ("vae", {"block_out_channels": [1e9]}),
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_clear_error(
    copy_of_tiny: Path, load: Load, part: str, changes: dict[str, Any]
) -> None:
    change(copy_of_tiny / part / "config.json", **changes)
    with pytest.raises(UserError) as caught:
        load(copy_of_tiny)
    assert caught.value.message.startswith(f"{copy_of_tiny}/{part}")
    assert "\n" not in caught.value.message


def test_a_layer_too_many_is_left_to_the_libraries_which_name_it(copy_of_tiny: Path, load: Load) -> None:
    change(copy_of_tiny / "text_encoder" / "config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match=r"text_encoder has no weights for 16 layers, .*layers\.2"):
        load(copy_of_tiny)


def test_what_is_counted_is_new_weights_and_not_their_replacement() -> None:
    with bounded(MINI / "unet"):
        layer = nn.Linear(64, 64)
        for _ in range(10_000):
            layer.weight = nn.Parameter(layer.weight.data)
    with pytest.raises(UserError, match="asks for more than twice the"), bounded(MINI / "unet"):
        for _ in range(10_000):
            nn.Linear(64, 64)
    for _ in range(10_000):  # nothing is counted any more
        nn.Linear(1, 1)


def test_a_bundled_base_is_well_within_its_bounds(load: Load) -> None:
    assert load(MINI).native_latent_size > 0


def test_a_tensor_without_numbers_in_a_single_file_is_refused(
    family_files: dict[str, Path], tmp_path: Path
) -> None:
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    tensors = load_file(family_files["sd1"])
    file = tmp_path / "base.safetensors"
    save_file({**tensors, name: np.zeros((10**9, 0), np.float32)}, file)
    with pytest.raises(UserError) as caught:
        read_architecture(file)
    assert caught.value.message == f"{file} is no sound base: {name} has no numbers"
