"""Which base a project uses: chosen once, found again, refused when it is another one."""

import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from sine_cli.errors import SineError, UserError
from sine_cli.models import locate
from sine_cli.project.presets import load_preset
from sine_cli.workflow.bases import choose_base, find_base
from tests.tiny import MINI, write_hub_cache
from tests.workflow.conftest import Girl

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test, and no way to the hub: its client reads both settings when imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_without_a_name_and_an_accelerator_the_bundled_base_is_chosen_and_says_why() -> None:
    chosen = choose_base(None)
    assert chosen.name == "mini"
    assert chosen.revision == locate.fingerprint(MINI)
    assert chosen.reason == "no accelerator here, and mini runs on a CPU; choose another with `--base`"
    assert (chosen.tune, chosen.edit) == (load_preset("mini").tune, load_preset("mini").edit)


def test_a_folder_is_kept_by_its_whole_path_so_that_it_is_found_from_everywhere(tiny_base: Path) -> None:
    relative = os.path.relpath(tiny_base)
    chosen = choose_base(relative)
    assert chosen.name == str(tiny_base)
    assert chosen.revision == locate.fingerprint(tiny_base)
    assert chosen.tune == load_preset("mini").tune, "it is of mini's size"


def test_a_project_keeps_a_fingerprint_of_edges_alone_as_older_versions_made_it(
    tiny_base: Path, untuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "SMALL", 0)
    monkeypatch.setattr(locate, "STRIDE", 4096)
    former = locate.fingerprint(tiny_base, of_edges=True)
    assert former != choose_base(str(tiny_base)).revision
    manifest = untuned.manifest.model_copy(update={"base": str(tiny_base), "base_revision": former})
    assert find_base(manifest) == locate.Location(tiny_base, former)


def test_a_file_given_by_a_link_keeps_its_name(family_files: dict[str, Path], tmp_path: Path) -> None:
    """The hub's cache has files as links to hashes, which do not end in .safetensors."""
    blob, link = tmp_path / "0123abc", tmp_path / "base.safetensors"
    shutil.copyfile(family_files["sd1"], blob)
    link.symlink_to(blob)
    assert choose_base(str(link)).name == str(link)


def test_a_cached_repository_is_fixed_to_its_commit(cache: Path, tiny_base: Path, untuned: Girl) -> None:
    snapshot = write_hub_cache(cache, "painters/tiny-diffusion", COMMIT, tiny_base)
    chosen = choose_base("painters/tiny-diffusion")
    assert (chosen.name, chosen.revision) == ("painters/tiny-diffusion", COMMIT)
    manifest = untuned.manifest.model_copy(update={"base": chosen.name, "base_revision": chosen.revision})
    (cache / "models--painters--tiny-diffusion" / "refs" / "main").write_text(COMMIT[::-1])
    assert find_base(manifest).path == snapshot, "whatever main is by now"


def test_a_preset_of_the_hub_is_found_in_the_cache(cache: Path, tiny_base: Path, untuned: Girl) -> None:
    hub = load_preset("sd15").hub
    assert hub
    write_hub_cache(cache, hub, COMMIT, tiny_base)
    chosen = choose_base("sd15")
    assert (chosen.name, chosen.revision, chosen.tune) == ("sd15", COMMIT, load_preset("sd15").tune)
    manifest = untuned.manifest.model_copy(update={"base": "sd15", "base_revision": COMMIT})
    assert find_base(manifest).revision == COMMIT


def test_a_preset_that_is_neither_cached_nor_reachable_is_told(cache: Path) -> None:
    with pytest.raises(SineError) as caught:
        choose_base("sd15")
    assert caught.value.message == (
        "stable-diffusion-v1-5/stable-diffusion-v1-5 is not on this disk and the hub cannot be reached"
    )


@pytest.mark.parametrize("name", ["/no/such/base", "./base", "../base", "~/base", "models/base.safetensors"])
def test_a_folder_or_file_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_base(name)
    assert caught.value.message == f"no such folder or file: {Path(name)}"
    assert caught.value.hint == (
        "`sine bases` shows the presets and what is on this disk; a hub id will do as well"
    )


def test_an_unknown_preset_is_told_with_the_nearest_name() -> None:
    with pytest.raises(UserError) as caught:
        choose_base("sd16")
    assert caught.value.message == 'no base preset called "sd16"'
    assert caught.value.hint is not None and caught.value.hint.startswith("did you mean `--base sd")


def test_a_project_without_a_fixed_revision_takes_the_base_as_it_is(untuned: Girl, tiny_base: Path) -> None:
    manifest = untuned.manifest.model_copy(update={"base_revision": None})
    assert find_base(manifest).path == tiny_base


def test_a_project_of_an_earlier_bundled_base_goes_on_with_that_one(untuned: Girl) -> None:
    today, former = (
        load_preset("mini").folder,
        "sha256:a6cbb05cb3e2acfd4a76e5d74d8e4429a6e6fe2f95b0d5c6a030e6bf744d6742",
    )
    manifest = untuned.manifest.model_copy(update={"base": "mini", "base_revision": None})
    assert find_base(manifest).path.name == today
    location = find_base(manifest.model_copy(update={"base_revision": former}))
    assert (location.path.name, location.revision) == (f"{today}-a6cbb05c", former)


@pytest.mark.parametrize("revision", ["sha256:" + "0" * 64, "sha256:a6cbb05c" + "0" * 56, "../weights"])
def test_a_bundled_base_that_is_neither_is_told(revision: str, untuned: Girl) -> None:
    manifest = untuned.manifest.model_copy(update={"base": "mini", "base_revision": revision})
    with pytest.raises(UserError, match="is not the one this project was made with"):
        find_base(manifest)
