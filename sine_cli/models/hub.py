"""The hub of models: asked with limits of time, and what is fetched from it is told before, with its size.

A hub that is silent is given up after the client's time-out (10 s, `HF_HUB_ETAG_TIMEOUT`); a download that
brings nothing after its own (10 s, `HF_HUB_DOWNLOAD_TIMEOUT`) and five more tries, in about a minute. A file
that is cut off goes on where it stopped while the command runs; later, whole files are kept.
"""

from collections.abc import Callable, Collection
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from sine_cli.errors import SineError

Notify = Callable[[str], None]


def files_of(repository: str, revision: str | None) -> dict[str, int]:
    """The names and sizes (bytes) of a repository's files. Raises what the hub's client does."""
    from huggingface_hub import HfApi

    _set_up_client()
    found = HfApi().model_info(repository, revision=revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in found.siblings or []}


def fetch(
    repository: str, revision: str | None, files: dict[str, int], patterns: Collection[str], on_notice: Notify
) -> Path:
    """Fetch those of a repository's files that match and are not on this disk; the folder of them all.

    Args:
        files: all there are, as `files_of` has them.
        on_notice: told how many are fetched, and their size.

    Raises:
        SineError: the hub fell silent midway.  And what the hub's client raises.
    """
    from huggingface_hub import errors, snapshot_download, try_to_load_from_cache

    missing = [
        size
        for name, size in files.items()
        if any(fnmatch(name, pattern) for pattern in patterns)
        and not isinstance(try_to_load_from_cache(repository, name, revision=revision), str)
    ]
    if missing:
        number = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        on_notice(f"fetching {repository} from the hub: {number}, {in_bytes(sum(missing))}")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except errors.HfHubHTTPError:  # an answer, if not the one hoped for
        raise
    except errors.HTTPError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise SineError(
            f"fetching {repository} broke off: {str(error) or type(error).__name__}",
            "run the same command again; files that have come whole are kept",
        ) from error


def in_bytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@cache
def _set_up_client() -> None:
    """Where the hub's client would wait for ever, as for lists of files, it has its usual time-out.

    Of each of its tries it would warn; the error in the end says it all.
    """
    from huggingface_hub import constants, get_session, logging, set_client_factory

    logging.set_verbosity_error()

    def limit(request: Any) -> None:
        if not any(request.extensions.get("timeout", {}).values()):
            phases = ("connect", "read", "write", "pool")
            request.extensions["timeout"] = dict.fromkeys(phases, constants.HF_HUB_ETAG_TIMEOUT)

    made = get_session()
    client, hooks = type(made), made.event_hooks["request"]
    set_client_factory(
        lambda: client(event_hooks={"request": [*hooks, limit]}, follow_redirects=True, timeout=None)
    )
