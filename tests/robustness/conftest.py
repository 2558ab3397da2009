"""The command line in process, and projects on `mini`, as the tests of the commands have them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import girl, listing, offline, picture, sine, tuned_once, untuned

if TYPE_CHECKING:
    from tests.cli.conftest import Listing, Outcome, Sine

__all__ = ["girl", "listing", "offline", "picture", "sine", "tuned_once", "untuned"]

Refused = Callable[..., str]


@pytest.fixture
def refused(sine: "Sine", listing: "Callable[[], Listing]") -> Refused:
    """Calls `sine`, which must refuse: one error with a hint, exit code 2, nothing written or read out."""

    def refused(*arguments: str | Path, stdin: bytes = b"") -> str:
        before = listing()
        done: Outcome = sine(*arguments, stdin=stdin)
        assert (done.code, done.out) == (2, ""), done
        message, blank, hint, *more = done.err.split("\n")
        assert (blank, more) == ("", [""]), done.err
        assert message.startswith("error: ") and hint.startswith("hint: "), done.err
        assert "Traceback" not in done.err
        assert len(message) > len("error: ") and len(hint) > len("hint: ")
        assert listing() == before
        return message.removeprefix("error: ")

    return refused
