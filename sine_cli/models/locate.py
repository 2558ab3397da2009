"""Where a base or a CLIP model lies: on this disk, or in a repository of the hub at one commit.

Torch-free, so that `sine init` and `sine show` stay quick. Only safetensors and the small files beside
them are ever fetched.
"""

import errno
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from sine_cli.errors import SineError, UserError
from sine_cli.models import hub
from sine_cli.models.architecture import read_architecture
from sine_cli.models.hub import Notify

PARTS = ("unet", "vae", "text_encoder")
SECOND = "text_encoder_2"  # SDXL's; it comes with a tokenizer_2
CONFIGS = [
    *("model_index.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"),
    *(f"{part}/config.json" for part in (*PARTS, SECOND)),
]
CLIP_CONFIGS = [
    *("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.json", "merges.txt", "special_tokens_map.json"),  # how older tokenizers are kept
]
CLIP_WEIGHTS = "model.safetensors"
CLIP_NEEDED = ["config.json", "preprocessor_config.json", "tokenizer_config.json", CLIP_WEIGHTS]
EDGE = 1024 * 1024
"""Bytes of a weight file's beginning and end that go into its fingerprint."""

SMALL = 64 * 1024 * 1024
"""Bytes of a weight file whose edges alone make its fingerprint: that of the bundled base stays as it was."""

STRIDE, SAMPLE = 4 * 1024 * 1024, 64 * 1024
"""Of every so many bytes of a larger one, how many go into it too: a LoRA that is merged in changes many
layers, and none of them need lie at an edge.
"""


@dataclass(frozen=True)
class Location:
    """A model on this disk.

    Attributes:
        path: a diffusers folder or a single file; a CLIP model's folder.
        revision: the hub's commit, or "sha256:..." of the configurations and weights.
        variant: "fp16" where the weight files carry that name.
    """

    path: Path
    revision: str
    variant: str | None = None


class Advice(NamedTuple):
    """What to give instead of a repository that is not to be had: other names, and what is bundled."""

    others: str
    bundled: str


WHAT_A_BASE_IS = "a base is a preset, a hub id, a diffusers folder, or a Stable Diffusion .safetensors file"
FOR_BASES = Advice(
    "`sine bases` shows the presets and what is on this disk; "
    "a folder or a .safetensors file will do as well: `--base path/to/it`",
    "base",
)
FOR_CLIPS = Advice("give another id, or a CLIP model's folder: `--scorer path/to/folder`", "scorer")


def in_package(package: str, folder: str) -> Path:
    """A folder inside an importable package, which is not imported.

    Raises:
        UserError: no such package.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise UserError(f"the package {package} is not installed", "install it with `pip install`")
    return Path(places[0]) / folder


def in_folder(folder: Path) -> Location:
    """A diffusers folder that is on this disk already.

    Raises:
        UserError: a part's configuration or weights are missing, or a tokenizer's words.
    """
    for part in _parts(folder):
        if not (folder / part / "config.json").is_file() or not weights_of(folder / part):
            raise UserError(
                f"{folder} is not a whole diffusers folder: {part} lacks config.json or .safetensors weights",
                WHAT_A_BASE_IS,
            )
    for part in _tokenizers(folder):
        check_vocabulary(folder / part)
    return Location(folder, fingerprint(folder), _variant(path.name for path in weights_of(folder / "unet")))


def in_file(path: Path) -> Location:
    """A base in one file that is on this disk already.

    Raises:
        UserError: a pickled checkpoint, or no base of SD 1, SD 2 or SDXL.
    """
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path} is not a .safetensors file; what a checkpoint of another kind runs when it is opened, "
            "nobody knows",
            "most are to be had as .safetensors too; `sine bases` shows what else there is",
        )
    read_architecture(path)
    return Location(path, fingerprint(path))


def fingerprint(path: Path, *, of_edges: bool = False) -> str:
    """A hash that tells one base from another, that of a diffusers folder or of a single file.

    Configurations count whole, weights by their size, their beginning and end, and samples between.

    Args:
        of_edges: without samples, as before version 0.2.
    """
    if path.is_file():
        return _fingerprint(path.parent, [], [path], of_edges)
    weights = [file for part in _parts(path) for file in weights_of(path / part)]
    return _fingerprint(path, CONFIGS, weights, of_edges)


def _fingerprint(folder: Path, configs: list[str], weights: list[Path], of_edges: bool = False) -> str:
    digest = hashlib.sha256()
    small = [path for pattern in configs for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in small:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}".encode())
        digest.update(path.read_bytes())
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            if size > SMALL and not of_edges:
                for place in range(STRIDE, size, STRIDE):
                    file.seek(place)
                    digest.update(file.read(SAMPLE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return f"sha256:{digest.hexdigest()}"


def clip_in_folder(folder: Path) -> Location:
    """A CLIP model's folder that is on this disk already, as transformers keeps one.

    Raises:
        UserError: a file is missing; weights other than safetensors are none.
    """
    missing = _missing_of_clip(_names(folder))
    if missing:
        raise UserError(
            f"{folder} is not a whole CLIP model's folder: it lacks {', '.join(missing)}",
            "a scorer is `mini`, a hub id, or a folder with model, tokenizer and preprocessor_config.json",
        )
    return Location(folder, _fingerprint(folder, CLIP_CONFIGS, [folder / CLIP_WEIGHTS]))


def clip_on_hub(repository: str, on_notice: Notify = lambda _: None, *, may_fetch: bool = True) -> Location:
    """A repository's CLIP model on this disk, weights and all, fetched where it is not; the commit is fixed.

    Args:
        on_notice: told what is fetched, and how large it is.
        may_fetch: whether it may be fetched at all.

    Raises:
        UserError, SineError: no such repository, no access, no network, no safetensors weights.
        UserError: it is not on this disk, and may not be fetched.
    """
    from huggingface_hub import snapshot_download

    def fetch(local: bool) -> str:
        wanted = [*CLIP_CONFIGS, CLIP_WEIGHTS]
        if local:
            folder = snapshot_download(repository, allow_patterns=wanted, local_files_only=True)
            if _missing_of_clip(_names(Path(folder))):
                raise FileNotFoundError(f"{repository} is cached in part")
            return folder
        if not may_fetch:
            raise UserError(
                f"the scorer {repository} is not on this disk, and a project does not make sine fetch it",
                f"fetch it yourself: `sine score PICTURE --scorer {repository}`",
            )
        # Asked for the list first: without a network the client would take a part in the cache for the whole.
        files = hub.files_of(repository, None)
        missing = _missing_of_clip(files)
        if missing:
            raise UserError(
                f"{repository} is not a CLIP model that sine reads: it has no {', '.join(missing)}",
                "choose one that has, for example `--scorer openai/clip-vit-large-patch14`",
            )
        return str(hub.fetch(repository, None, files, wanted, on_notice))

    folder = _cached_or_fetched(repository, fetch, FOR_CLIPS)
    return Location(Path(folder), Path(folder).name)


def native_pixels(path: Path) -> int:
    """Pixels on a side that the base was trained at: the U-Net's latent size times the autoencoder's factor.

    Needs only the configurations, or the header of a single file. Raises UserError when they do not say.
    """
    if path.is_file():
        return read_architecture(path).native_pixels
    unet, vae = (read_config(path / part / "config.json") for part in ("unet", "vae"))
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    if not isinstance(unet.get("sample_size"), int) or not isinstance(blocks, list):
        raise UserError(f"{path} does not say its native size (unet/config.json: sample_size)")
    return unet["sample_size"] * 2 ** (len(blocks) - 1)


def unet_config(path: Path) -> dict[str, Any]:
    """The U-Net's configuration of the base at `path`. Raises UserError when it cannot be read."""
    return read_architecture(path).unet if path.is_file() else read_config(path / "unet" / "config.json")


def is_half(location: Location) -> bool:
    """Whether the base's weights are kept in half precision."""
    if location.path.is_file():
        return read_architecture(location.path).half
    return location.variant == "fp16"


def on_hub(
    repository: str, revision: str | None, variant: str | None, on_notice: Notify = lambda _: None
) -> Location:
    """A repository's configurations on this disk, fetched where they are not; the commit is fixed.

    Args:
        repository: the hub's id, "owner/name".
        revision: branch, tag or commit; None is the main branch.
        on_notice: told what is fetched, and how large it is.

    Raises:
        UserError, SineError: no such repository or revision, no access, no network.
    """
    from huggingface_hub import snapshot_download

    def fetch(local: bool) -> str:
        if not local:
            files = hub.files_of(repository, revision)
            return str(hub.fetch(repository, revision, files, CONFIGS, on_notice))
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=CONFIGS, local_files_only=True
        )
        if not _all_configs(Path(folder)):
            raise FileNotFoundError(f"{repository} is cached in part")
        return folder

    folder = _cached_or_fetched(repository, fetch, FOR_BASES)
    return Location(Path(folder), Path(folder).name, variant)


def cached(repository: str, revision: str | None) -> Location | None:
    """A repository's configurations where all are in the hub's cache, else None. Asks no network."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=CONFIGS, local_files_only=True)
        )
    except (FileNotFoundError, errors.RevisionResolutionError, errors.HFValidationError):
        return None
    return Location(folder, folder.name) if _all_configs(folder) else None


def on_disk(repository: str, revision: str | None, refusal: UserError) -> Location:
    """A repository's base in the hub's cache, weights and all. Asks no network.

    Raises:
        UserError: `refusal`, where it is not there or not whole; or no repository can have that name.
    """
    from huggingface_hub import snapshot_download

    def cached(local: bool) -> str:
        if not local:
            raise refusal
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=CONFIGS, local_files_only=True
        )
        if not (_all_configs(Path(folder)) and _all_weights(Path(folder))):
            raise FileNotFoundError(f"{repository} is cached in part")
        return folder

    folder = Path(_cached_or_fetched(repository, cached, FOR_BASES))
    return Location(folder, folder.name, _variant(path.name for path in weights_of(folder / "unet")))


def with_weights(repository: str, location: Location, on_notice: Notify = lambda _: None) -> Location:
    """The same base with its weights on this disk too, fetched where they are not.

    Args:
        on_notice: told what is fetched, and how large it is.

    Raises:
        UserError, SineError: as `on_hub`, or the repository has no safetensors weights.
    """
    if _all_weights(location.path):
        return Location(
            location.path, location.revision, _variant(p.name for p in weights_of(location.path / "unet"))
        )

    def fetch(local: bool) -> str:
        if local:
            raise FileNotFoundError(repository)
        files = hub.files_of(repository, location.revision)
        wanted = weight_files(files, location.variant)
        if not wanted:
            raise UserError(
                f"{repository} has no .safetensors weights for {', '.join(PARTS)}",
                "choose a base in the diffusers layout with safetensors weights",
            )
        return str(hub.fetch(repository, location.revision, files, [*CONFIGS, *wanted], on_notice))

    folder = Path(_cached_or_fetched(repository, fetch, FOR_BASES))
    return Location(folder, location.revision, _variant(p.name for p in weights_of(folder / "unet")))


@dataclass(frozen=True)
class CachedBase:
    """A diffusers repository in the hub's cache.

    Attributes:
        whole: whether all its weights are there.  size: bytes on this disk.
        pixels: of a side, as `native_pixels`.
    """

    repository: str
    whole: bool
    size: int
    pixels: int


def cached_bases() -> list[CachedBase]:
    """The bases in the hub's cache, by name; of several revisions the newest. Asks no network."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found: list[CachedBase] = []
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        newest = max(repository.revisions, key=lambda each: each.last_modified, default=None)
        if repository.repo_type != "model" or newest is None:
            continue
        folder = newest.snapshot_path
        try:
            if _all_configs(folder):
                whole, pixels = _all_weights(folder), native_pixels(folder)
                found.append(CachedBase(repository.repo_id, whole, repository.size_on_disk, pixels))
        except UserError:  # a damaged file in the cache: no base that one could use
            continue
    return found


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def is_at_hand(repository: str, revision: str | None) -> bool:
    """Whether a hub base is cached whole, or the hub answers for it within a few seconds."""
    from huggingface_hub import HfApi

    location = cached(repository, revision)
    if location and _all_weights(location.path):
        return True
    try:
        HfApi().model_info(repository, revision=revision, timeout=3)
    except _network_errors():
        return False
    return True


def weight_files(files: Iterable[str], variant: str | None) -> list[str]:
    """Of a repository's files, one safetensors set for every part: the variant's (fp16) where there is one.

    Empty when a part has none.
    """
    files = sorted(files)
    wanted: list[str] = []
    second = [SECOND] if f"{SECOND}/config.json" in files else []
    for part in (*PARTS, *second):
        weights = [
            f for f in files if fnmatch(f, f"{part}/*.safetensors") or fnmatch(f, f"{part}/*.index.*json")
        ]
        plain = [f for f in weights if _variant([Path(f).name]) is None and "non_ema" not in f]
        chosen = [f for f in weights if _variant([Path(f).name]) == (variant or "fp16")] or plain
        if not any(f.endswith(".safetensors") for f in chosen):
            return []
        wanted += chosen
    return wanted


def _cached_or_fetched(repository: str, fetch: Callable[[bool], str], advice: Advice) -> str:
    from huggingface_hub import errors

    try:
        try:
            return fetch(True)
        except (FileNotFoundError, errors.RevisionResolutionError):
            return fetch(False)
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repository} asks you to accept its terms first",
            f"accept them on the page of {repository}, then type `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(
            f"the hub has no {repository}, or not at the revision asked for",
            advice.others,
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{repository} is not a hub id (owner/name)", advice.others) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "type `hf auth login` first" if status in (401, 403) else "try again later"
        raise SineError(
            f"{repository} is not on this disk and the hub answers {status}",
            f"{remedy}, or use the bundled {advice.bundled}: `--{advice.bundled} mini`",
        ) from error
    except _network_errors() as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise SineError(
                f"{repository} cannot be stored: {os.strerror(error.errno)}",  # pyright: ignore
                "make room, or set HF_HOME to a folder with room that you may write to",
            ) from error
        raise SineError(
            f"{repository} is not on this disk and the hub cannot be reached",
            "connect to the network and try again, "
            f"or use the bundled {advice.bundled}: `--{advice.bundled} mini`",
        ) from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises when it cannot get through; its HTTP library differs between versions."""
    from huggingface_hub import errors

    http_error = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
    return OSError, http_error, errors.RevisionResolutionError


def _parts(folder: Path) -> tuple[str, ...]:
    """The parts with weights that the base in a diffusers folder has: SDXL has one more."""
    index = folder / "model_index.json"
    named = read_config(index).get(SECOND) if index.is_file() else None
    return (*PARTS, SECOND) if named not in (None, [None, None]) else PARTS


def _tokenizers(folder: Path) -> tuple[str, ...]:
    """The parts that take prompts apart, one for each text encoder."""
    return ("tokenizer", "tokenizer_2") if SECOND in _parts(folder) else ("tokenizer",)


def _has_vocabulary(tokenizer: Path) -> bool:
    older = ("vocab.json", "merges.txt")
    return (tokenizer / "tokenizer.json").is_file() or all((tokenizer / name).is_file() for name in older)


def check_vocabulary(tokenizer: Path) -> None:
    """Refuse a tokenizer without words: transformers makes up an empty one, which reads every prompt alike.

    Args:
        tokenizer: its folder, within a diffusers folder.

    Raises:
        UserError: it has none.
    """
    if not _has_vocabulary(tokenizer):
        raise UserError(
            f"{tokenizer.parent} is not a whole diffusers folder: {tokenizer.name} lacks tokenizer.json, or "
            "vocab.json and merges.txt",
            "fetch or copy the base again",
        )


def _all_configs(folder: Path) -> bool:
    """Whether a cached snapshot has every configuration that its base needs."""
    needed = ["scheduler/scheduler_config.json", *(f"{part}/config.json" for part in _parts(folder))]
    whole = all((folder / name).is_file() for name in ("model_index.json", *needed))
    return whole and all(_has_vocabulary(folder / part) for part in _tokenizers(folder))


def weights_of(part: Path) -> list[Path]:
    """The weight files in the folder of a part."""
    return sorted(part.glob("*.safetensors"))


def _missing_of_clip(names: Collection[str]) -> list[str]:
    """What a folder or repository with files of these names lacks."""
    # Without a vocabulary transformers would make up an empty tokenizer.
    vocabulary = [] if "vocab.json" in names else ["tokenizer.json"]
    return [name for name in (*CLIP_NEEDED, *vocabulary) if name not in names]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _all_weights(folder: Path) -> bool:
    """Whether every part has its weights, and every shard that an index names."""
    for part in _parts(folder):
        present = {path.name for path in weights_of(folder / part)}
        indices = [read_config(path) for path in (folder / part).glob("*.index*.json")]
        shards = {name for index in indices for name in index.get("weight_map", {}).values()}
        if not any("non_ema" not in name for name in present) or not shards <= present:
            return False
    return True


def _variant(names: Iterable[str]) -> str | None:
    """The variant in names of weight files and their indices: "fp16" of `model.fp16.safetensors`.

    None for plain names, and for weights without averaging (`non_ema`), which are never used.
    """
    for name in names:
        for word in name.split(".")[1:]:
            if word not in ("safetensors", "index", "json", "non_ema"):
                return word.split("-")[0]
    return None


def read_config(path: Path) -> dict[str, Any]:
    """A base's JSON file. Raises UserError where it cannot be read or is no object."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # JSON's and Unicode's are ValueErrors
        raise UserError(f"{path} cannot be read: {error}", "fetch or copy the base again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object", "fetch or copy the base again")
    return config
