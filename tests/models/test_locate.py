"""Where a base lies: folders, the hub's cache, and what would be fetched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from sine_cli.errors import SineError, UserError
from sine_cli.models import locate
from sine_cli.models.base import Base, load_base
from sine_cli.models.device import best_device, best_dtype
from sine_cli.models.folder import read_folder
from sine_cli.models.locate import Location
from tests.tiny import MINI, write_hub_cache, write_tiny_clip

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "painters/tiny-diffusion"
UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
    "text_encoder/model",
)
PLAIN = [f"{stem}.safetensors" for stem in (UNET, VAE, TEXT)]
HALF = [f"{stem}.fp16.safetensors" for stem in (UNET, VAE, TEXT)]
OTHERS = [
    "model_index.json",
    "v1-5-pruned.safetensors",
    "safety_checker/model.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "text_encoder/pytorch_model.fp16.bin",
    "vae/config.json",
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test, and no way to the hub: its client reads both settings when imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


# ----------------------------------------------------------------------------------------- what to fetch


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_half_precision_weights_are_preferred(variant: str | None) -> None:
    assert locate.weight_files([*PLAIN, *HALF, *OTHERS], variant) == HALF


def test_plain_weights_are_taken_where_there_are_no_others_and_never_those_without_ema() -> None:
    assert locate.weight_files([*PLAIN, *OTHERS], "fp16") == PLAIN


def test_each_part_has_its_own_choice() -> None:
    files = [HALF[0], PLAIN[0], PLAIN[1], HALF[2], *OTHERS]
    assert locate.weight_files(files, "fp16") == [HALF[0], PLAIN[1], HALF[2]]


def test_another_variant_is_taken_when_asked_for() -> None:
    asked = [f"{stem}.bf16.safetensors" for stem in (UNET, VAE, TEXT)]
    assert locate.weight_files([*PLAIN, *HALF, *asked], "bf16") == asked


def test_sharded_weights_come_with_their_index() -> None:
    shards = [f"{UNET}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = f"{UNET}.safetensors.index.json"
    assert locate.weight_files([*shards, index, *PLAIN[1:]], None) == [*shards, index, *PLAIN[1:]]


def test_sharded_half_precision_weights_come_with_their_index() -> None:
    shards = [f"{UNET}.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = f"{UNET}.safetensors.index.fp16.json"
    files = [*shards, index, f"{UNET}.safetensors.index.json", *PLAIN]
    assert locate.weight_files(files, "fp16") == [*shards, index, *PLAIN[1:]]


def test_sdxl_has_one_part_more() -> None:
    second = [f"text_encoder_2/{name}" for name in ("model.fp16.safetensors", "model.safetensors")]
    files = [*PLAIN, *HALF, *second, "text_encoder_2/config.json", *OTHERS]
    assert locate.weight_files(files, "fp16") == [*HALF, second[0]]
    assert locate.weight_files([*PLAIN, "text_encoder_2/config.json"], None) == []


@pytest.mark.parametrize("lacking", range(3))
def test_nothing_is_fetched_where_a_part_has_no_safetensors(lacking: int) -> None:
    files = [*PLAIN[:lacking], *PLAIN[lacking + 1 :], *OTHERS]
    assert locate.weight_files(files, None) == []
    assert locate.weight_files([], None) == []


# ------------------------------------------------------------------------------------------ local folders


def test_a_folder_is_located_with_its_fingerprint(tiny: Path) -> None:
    assert locate.in_folder(tiny) == Location(tiny, locate.fingerprint(tiny), None)
    assert locate.fingerprint(tiny).startswith("sha256:")
    assert len(locate.fingerprint(tiny)) == len("sha256:") + 64


def test_a_folder_with_half_precision_weights_says_so(tiny_v: Path) -> None:
    assert locate.in_folder(tiny_v).variant == "fp16"


def test_weights_without_ema_are_no_variant(copy_of_tiny: Path) -> None:
    plain = copy_of_tiny / f"{UNET}.safetensors"
    shutil.copy(plain, plain.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    assert locate.in_folder(copy_of_tiny).variant is None


def test_the_bundled_base_is_found_without_importing_its_package() -> None:
    assert locate.in_package("sine_cli.mini", "weights") == MINI
    with pytest.raises(UserError) as caught:
        locate.in_package("no_such_package", "weights")
    assert caught.value.message == "the package no_such_package is not installed"


@pytest.mark.parametrize("part", locate.PARTS)
@pytest.mark.parametrize("lost", ["config.json", "*.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(copy_of_tiny: Path, part: str, lost: str) -> None:
    for path in (copy_of_tiny / part).glob(lost):
        path.unlink()
    with pytest.raises(UserError) as caught:
        locate.in_folder(copy_of_tiny)
    assert caught.value.message == (
        f"{copy_of_tiny} is not a whole diffusers folder: {part} lacks config.json or .safetensors weights"
    )


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_whose_tokenizer_has_no_words_is_refused(copy_of_tiny: Path, whole: bool) -> None:
    (copy_of_tiny / "tokenizer" / "tokenizer.json").unlink()
    (copy_of_tiny / "tokenizer" / "vocab.json").write_text("{}", "utf-8")
    if whole:
        shutil.rmtree(copy_of_tiny / "tokenizer")
    said = (
        f"{copy_of_tiny} is not a whole diffusers folder: tokenizer lacks tokenizer.json, or vocab.json and "
    )
    for refused in (locate.in_folder, lambda folder: read_folder(folder, None, torch.float32)):
        with pytest.raises(UserError) as caught:
            refused(copy_of_tiny)
        assert caught.value.message == said + "merges.txt"
        assert caught.value.hint == "fetch or copy the base again"


def test_the_fingerprint_is_the_same_wherever_the_folder_lies(tiny: Path, copy_of_tiny: Path) -> None:
    assert locate.fingerprint(copy_of_tiny) == locate.fingerprint(tiny)


@pytest.mark.parametrize("part", locate.PARTS)
@pytest.mark.parametrize("place", ["first", "last", "longer"])
def test_the_fingerprint_changes_with_the_weights(copy_of_tiny: Path, part: str, place: str) -> None:
    before = locate.fingerprint(copy_of_tiny)
    (weights,) = (copy_of_tiny / part).glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    if place == "longer":
        content += b"\0"
    else:
        content[0 if place == "first" else -1] ^= 1
    weights.write_bytes(content)
    assert locate.fingerprint(copy_of_tiny) != before


def test_the_fingerprint_of_a_large_file_changes_with_what_lies_between_its_edges(tmp_path: Path) -> None:
    """Where a LoRA was merged into a base, the edges need not differ."""
    weights = tmp_path / "base.safetensors"
    with weights.open("wb") as file:
        file.truncate(locate.SMALL + 1)
    before, edges = locate.fingerprint(weights), locate.fingerprint(weights, of_edges=True)
    with weights.open("r+b") as file:
        file.seek(locate.STRIDE * 5 + locate.SAMPLE - 1)
        file.write(b"x")
    assert locate.fingerprint(weights) != before != edges
    assert locate.fingerprint(weights, of_edges=True) == edges


@pytest.mark.parametrize("part", locate.PARTS)
def test_the_fingerprint_changes_with_a_configuration(copy_of_tiny: Path, part: str) -> None:
    before = locate.fingerprint(copy_of_tiny)
    config = copy_of_tiny / part / "config.json"
    config.write_text(config.read_text().replace("{", '{"more": 1,', 1))
    assert locate.fingerprint(copy_of_tiny) != before


def test_native_pixels_are_read_from_the_configurations_alone(tiny: Path, tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / "bare" / part).mkdir(parents=True)
        shutil.copy(tiny / part / "config.json", tmp_path / "bare" / part)
    assert locate.native_pixels(tmp_path / "bare") == 64
    assert locate.native_pixels(MINI) == 128


def test_native_pixels_agree_with_the_loaded_base(base: Base, mini: Base, tiny: Path) -> None:
    assert locate.native_pixels(tiny) == base.native_latent_size * base.autoencoder.factor
    assert locate.native_pixels(MINI) == mini.native_latent_size * mini.autoencoder.factor


def test_a_unet_without_a_size_is_refused(copy_of_tiny: Path) -> None:
    config = copy_of_tiny / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": None}))
    with pytest.raises(UserError) as caught:
        locate.native_pixels(copy_of_tiny)
    assert caught.value.message == (
        f"{copy_of_tiny} does not say its native size (unet/config.json: sample_size)"
    )


# -------------------------------------------------------------------------------------------- the hub


def test_a_cached_snapshot_is_found_and_loads_offline(cache: Path, tiny_v: Path) -> None:
    snapshot = write_hub_cache(cache, REPOSITORY, COMMIT, tiny_v)
    location = locate.on_hub(REPOSITORY, None, None)
    assert location == Location(snapshot, COMMIT, None)
    whole = locate.with_weights(REPOSITORY, location)
    assert whole == Location(snapshot, COMMIT, "fp16")
    base = load_base(whole.path, whole.variant, best_device(), best_dtype(best_device()))
    assert base.schedule.prediction == "v_prediction"
    assert locate.is_at_hand(REPOSITORY, None)


def test_a_cached_snapshot_is_found_by_its_commit(cache: Path, tiny: Path) -> None:
    snapshot = write_hub_cache(cache, REPOSITORY, COMMIT, tiny)
    assert locate.on_hub(REPOSITORY, COMMIT, None).path == snapshot


def test_a_cached_sdxl_is_found_whole_or_not(cache: Path, families: dict[str, Path]) -> None:
    snapshot = write_hub_cache(cache, REPOSITORY, COMMIT, families["sdxl"])
    location = locate.on_hub(REPOSITORY, None, "fp16")
    assert locate.with_weights(REPOSITORY, location) == Location(snapshot, COMMIT, None)
    assert locate.fingerprint(snapshot) != locate.fingerprint(families["sd2"])
    away = (snapshot / "tokenizer_2").rename(snapshot / "away")
    unreachable(lambda: locate.on_hub(REPOSITORY, None, "fp16"))
    away.rename(snapshot / "tokenizer_2")
    (snapshot / "text_encoder_2" / "model.safetensors").unlink()
    unreachable(lambda: locate.with_weights(REPOSITORY, location))
    with pytest.raises(UserError, match="text_encoder_2 lacks config"):
        locate.in_folder(snapshot)
    (snapshot / "text_encoder_2" / "config.json").unlink()
    unreachable(lambda: locate.on_hub(REPOSITORY, None, "fp16"))


def test_the_bases_in_the_cache_are_listed(cache: Path, tiny: Path, families: dict[str, Path]) -> None:
    assert locate.cached_bases() == []
    write_hub_cache(cache, "painters/one", COMMIT, tiny)
    part = write_hub_cache(cache, "painters/two", COMMIT, families["sdxl"])
    (part / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    other = write_hub_cache(cache, "writers/three", COMMIT, tiny)
    shutil.rmtree(other / "unet")
    damaged = write_hub_cache(cache, "painters/four", COMMIT, tiny)
    (damaged / "model_index.json").write_text("{")
    one, two = locate.cached_bases()
    assert (one.repository, one.whole, one.pixels) == ("painters/one", True, 64)
    assert one.size == locate.folder_size(tiny)
    assert (two.repository, two.whole) == ("painters/two", False)


def unreachable(ask: Callable[[], object]) -> None:
    with pytest.raises(SineError) as caught:
        ask()
    assert caught.value.message == f"{REPOSITORY} is not on this disk and the hub cannot be reached"
    assert caught.value.hint == (
        "connect to the network and try again, or use the bundled base: `--base mini`"
    )
    assert caught.value.exit_code == 1


def test_offline_a_repository_that_is_not_cached_is_told(cache: Path) -> None:
    unreachable(lambda: locate.on_hub(REPOSITORY, None, None))
    unreachable(lambda: locate.on_hub(REPOSITORY, COMMIT, "fp16"))
    assert not locate.is_at_hand(REPOSITORY, None)
    assert not cache.exists(), "asking leaves nothing behind"


def test_offline_another_commit_than_the_cached_one_is_told(cache: Path, tiny: Path) -> None:
    write_hub_cache(cache, REPOSITORY, COMMIT, tiny)
    unreachable(lambda: locate.on_hub(REPOSITORY, COMMIT[::-1], None))


def test_offline_configurations_without_weights_are_told(cache: Path, tiny: Path) -> None:
    snapshot = write_hub_cache(cache, REPOSITORY, COMMIT, tiny)
    for weights in snapshot.rglob("*.safetensors"):
        weights.unlink()
    location = locate.on_hub(REPOSITORY, None, None)
    unreachable(lambda: locate.with_weights(REPOSITORY, location))
    assert not locate.is_at_hand(REPOSITORY, None), "a plain `sine init` would choose it and fail"


# --------------------------------------------------------------------------------------------- CLIP models


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("scorers") / "tiny-clip")


@pytest.fixture
def copy_of_tiny_clip(tiny_clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_clip, tmp_path / "clip"))


def test_a_clip_s_folder_is_located_with_a_fingerprint_of_all_that_counts(
    tiny_clip: Path, copy_of_tiny_clip: Path
) -> None:
    location = locate.clip_in_folder(tiny_clip)
    assert location.path == tiny_clip
    assert location.revision.startswith("sha256:") and len(location.revision) == len("sha256:") + 64
    assert locate.clip_in_folder(copy_of_tiny_clip).revision == location.revision
    (copy_of_tiny_clip / "README.md").write_text("words")
    assert locate.clip_in_folder(copy_of_tiny_clip).revision == location.revision
    for name in (*locate.CLIP_NEEDED, "tokenizer.json"):
        path = copy_of_tiny_clip / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert locate.clip_in_folder(copy_of_tiny_clip).revision != location.revision, name
        path.write_bytes(content)


@pytest.mark.parametrize("lost", [*locate.CLIP_NEEDED, "tokenizer.json"])
def test_a_clip_s_folder_that_lacks_a_file_is_refused(copy_of_tiny_clip: Path, lost: str) -> None:
    (copy_of_tiny_clip / lost).unlink()
    (copy_of_tiny_clip / "pytorch_model.bin").write_bytes(b"pickled weights are none")
    with pytest.raises(UserError) as caught:
        locate.clip_in_folder(copy_of_tiny_clip)
    assert caught.value.message == f"{copy_of_tiny_clip} is not a whole CLIP model's folder: it lacks {lost}"
    assert caught.value.hint == (
        "a scorer is `mini`, a hub id, or a folder with model, tokenizer and preprocessor_config.json"
    )


def test_an_older_tokenizer_s_vocabulary_will_do(copy_of_tiny_clip: Path) -> None:
    (copy_of_tiny_clip / "tokenizer.json").rename(copy_of_tiny_clip / "vocab.json")
    assert locate.clip_in_folder(copy_of_tiny_clip).path == copy_of_tiny_clip


def test_a_cached_clip_is_found_offline_at_its_commit(cache: Path, tiny_clip: Path) -> None:
    snapshot = write_hub_cache(cache, "seers/tiny-clip", COMMIT, tiny_clip)
    assert locate.clip_on_hub("seers/tiny-clip") == Location(snapshot, COMMIT)


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json", None])
def test_offline_a_clip_that_is_cached_in_part_or_not_at_all_is_told(
    cache: Path, tiny_clip: Path, lost: str | None
) -> None:
    if lost:
        (write_hub_cache(cache, "seers/tiny-clip", COMMIT, tiny_clip) / lost).unlink()
    with pytest.raises(SineError) as caught:
        locate.clip_on_hub("seers/tiny-clip")
    assert caught.value.message == "seers/tiny-clip is not on this disk and the hub cannot be reached"
    assert caught.value.hint == (
        "connect to the network and try again, or use the bundled scorer: `--scorer mini`"
    )


def fetched(monkeypatch: pytest.MonkeyPatch, hub: Path) -> list[str]:
    """A hub that has what lies in `hub`; the patterns that it is asked for."""
    asked: list[str] = []

    def download(
        repository: str,
        *,
        allow_patterns: list[str],
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> str:
        assert repository == "seers/tiny-clip"
        if local_files_only:
            raise FileNotFoundError(repository)
        asked.extend(allow_patterns)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    names = [path.name for path in hub.iterdir()]
    monkeypatch.setattr("sine_cli.models.hub.files_of", lambda repository, revision: dict.fromkeys(names, 9))
    return asked


def test_only_safetensors_and_small_files_of_a_clip_are_fetched(
    monkeypatch: pytest.MonkeyPatch, copy_of_tiny_clip: Path
) -> None:
    asked = fetched(monkeypatch, copy_of_tiny_clip)
    assert locate.clip_on_hub("seers/tiny-clip").path == copy_of_tiny_clip
    assert {Path(name).suffix for name in asked} == {".json", ".txt", ".safetensors"}


def test_a_repository_without_safetensors_is_told_with_one_that_has_them(
    monkeypatch: pytest.MonkeyPatch, copy_of_tiny_clip: Path
) -> None:
    (copy_of_tiny_clip / "model.safetensors").unlink()
    asked = fetched(monkeypatch, copy_of_tiny_clip)
    with pytest.raises(UserError) as caught:
        locate.clip_on_hub("seers/tiny-clip")
    assert caught.value.message == (
        "seers/tiny-clip is not a CLIP model that sine reads: it has no model.safetensors"
    )
    assert caught.value.hint == "choose one that has, for example `--scorer openai/clip-vit-large-patch14`"
    assert asked == [], "nothing is fetched in vain"
