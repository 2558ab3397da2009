"""Pictures that are none, odd ones and odd names, through `sine init`: one error, or a project."""

import io
import random
import struct
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from tests.robustness.conftest import Refused

if TYPE_CHECKING:
    from tests.cli.conftest import Sine

INIT = ("--class", "girl", "--base", "mini", "--dir", "made")


def photo(height: int = 40, width: int = 56) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, whatever they hold."""
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(height: int, width: int, depth: int = 8, colours: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)


ROWS = zlib.compress(b"\0" * (40 * (1 + 56 * 3)))
BOMB = zlib.compress(b"\0" * 30_000_000)
TEXT = b"Comment\0\0" + zlib.compress(b"a" * 50_000_000, 1)
END = (b"IEND", b"")


def cut(form: str, share: float) -> bytes:
    whole = encoded(photo(), form)
    return whole[: int(len(whole) * share)]


BROKEN: dict[str, bytes] = {
    **{
        f"{form} cut at {share:g}": cut(form, share)
        for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
        for share in (0.02, 0.2, 0.6)
    },
    "zeros": b"\0" * 5000,
    "text": b"girl\n" * 300,
    "one byte": b"\x89",
    "a signature alone": b"\x89PNG\r\n\x1a\n",
    "a header alone": png([header(40, 56)]),
    "no pixels": png([header(40, 56), END]),
    "a side of zero": png([header(0, 56), (b"IDAT", ROWS), END]),
    "sides of 2^31": png([header(2**31 - 1, 2**31 - 1), (b"IDAT", ROWS), END]),
    "400 million pixels": png([header(20_000, 20_000), (b"IDAT", BOMB), END]),
    "pixels that do not unpack": png([header(40, 56), (b"IDAT", b"not zlib at all"), END]),
    "a text that unpacks to 50 MB": png([header(40, 56), (b"zTXt", TEXT), (b"IDAT", ROWS), END]),
    "a depth there is not": png([header(40, 56, depth=7), (b"IDAT", ROWS), END]),
    "colours there are not": png([header(40, 56, colours=5), (b"IDAT", ROWS), END]),
    "1x1": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "15x4000": encoded(Image.new("RGB", (4000, 15)), "PNG"),
    "a zip": b"PK\x03\x04" + b"\0" * 200,
    "a safetensors file": struct.pack("<Q", 2) + b"{}",
    "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
    "a PDF": b"%PDF-1.7\n1 0 obj\n",
    "an EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(x) run\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_whole_picture_makes_no_project(refused: Refused, kind: str) -> None:
    Path("girl.img").write_bytes(BROKEN[kind])
    assert "girl.img" in refused("init", "girl.img", *INIT)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_a_damaged_picture_is_a_project_or_an_error_and_nothing_else(sine: "Sine", form: str) -> None:
    whole, chance = encoded(photo(), form), random.Random(form)
    for number in range(12):
        content = bytearray(whole)
        for _ in range(6):
            content[chance.randrange(len(content))] = chance.randrange(256)
        Path("girl.img").write_bytes(content)
        done = sine("init", "girl.img", "--class", "girl", "--base", "mini", "--dir", f"made-{number}")
        assert done.code in (0, 2), done
        assert ("error: girl.img" in done.err, Path(f"made-{number}").exists()) == (
            done.code == 2,
            done.code == 0,
        )


def swapped_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def with_orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(photo(), "JPEG", exif=exif, quality=95)


def frames(form: str) -> bytes:
    others = [Image.new("RGB", (56, 40), colour) for colour in ("red", "blue")]
    return encoded(photo(), form, save_all=True, append_images=others)


ODD: dict[str, tuple[bytes, tuple[int, int]]] = {
    **{
        f"EXIF orientation {number}": (with_orientation(number), (40, 56) if number < 5 else (56, 40))
        for number in range(1, 9)
    },
    "CMYK": (encoded(photo().convert("CMYK"), "JPEG"), (40, 56)),
    "16 bits": (
        encoded(Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56)), "PNG"),
        (40, 56),
    ),
    "transparent": (encoded(Image.new("RGBA", (56, 40), (9, 9, 9, 9)), "PNG"), (40, 56)),
    "two colours": (encoded(photo().convert("1"), "PNG"), (40, 56)),
    "a profile of another space": (encoded(photo(), "PNG", icc_profile=swapped_profile()), (40, 56)),
    "a profile of noise": (encoded(photo(), "PNG", icc_profile=b"\xff" * 4000), (40, 56)),
    "an animated GIF": (frames("GIF"), (40, 56)),
    "an animated PNG": (frames("PNG"), (40, 56)),
    "an animated WebP": (frames("WEBP"), (40, 56)),
    "20 high, 20000 wide": (encoded(photo(20, 20_000), "PNG"), (20, 20_000)),
    "20000 high, 20 wide": (encoded(photo(20_000, 20), "PNG"), (20_000, 20)),
    "something behind it": (encoded(photo(), "PNG") + b"PK\x03\x04" * 1000, (40, 56)),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_picture_makes_a_project(sine: "Sine", kind: str) -> None:
    content, (height, width) = ODD[kind]
    Path("girl.img").write_bytes(content)
    done = sine("init", "girl.img", *INIT, "-q")
    assert (done.code, done.err) == (0, "")
    with Image.open("made/source.png") as stored:
        assert (stored.mode, stored.size, stored.info) == ("RGB", (width, height), {})
    source = load_manifest(Path("made/sine.yaml")).source
    assert (source.height, source.width) == (height, width)


NAMES = [
    "my girl.png",
    "名前.png",
    "é combined, é composed.png",
    "two\nlines.png",
    "a\ttab.png",
    "-x.png",
    "--help.png",
    'it\'s "quoted".png',
    "$(touch pwned) `touch pwned`.png",
    "; touch pwned;.png",
    "back\\slash.png",
    "\x1b[31mred.png",
    "\u202egnp.png",
    "🏰.png",
    "a%20b&c=d#e.png",
    "*?.png",
    "a" * 240 + ".png",
    "no suffix",
    ".hidden.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_an_odd_name_makes_a_project_that_the_next_command_reaches(
    sine: "Sine", name: str
) -> None:
    Path(name).write_bytes(encoded(photo(), "PNG"))
    arguments = ["--dir", "made"] if name == "no suffix" else []
    done = sine("init", "--class", "girl", "--base", "mini", *arguments, "--", name)
    assert (done.code, done.err) == (0, "")
    lines = done.out.split("\n")
    assert len(lines) == 4 and all(line.isprintable() for line in lines)
    (folder,) = (path for path in Path.cwd().iterdir() if path.is_dir())
    assert load_manifest(Project(folder).manifest_path).source.original == name

    # What the report tells to type does, in a shell, what it says.
    command = lines[2].removeprefix("next           `").removesuffix("`, then `sine tune`")
    there = subprocess.run(["bash", "-c", f"{command} && pwd"], capture_output=True, text=True)
    assert (there.stdout, there.stderr) == (f"{folder}\n", "")
    assert not Path("pwned").exists()
    assert sine("show", "-p", folder).code == 0


def test_a_name_that_is_not_utf8_is_shown_and_written_in_json(sine: "Sine") -> None:
    try:
        Path("gi\udcffrl.png").write_bytes(encoded(photo(), "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = sine("init", "gi\udcffrl.png", "--class", "girl", "--base", "mini", "--json")
    assert (done.code, done.err) == (0, "")
    assert '/gi\\udcffrl",\n  "source"' in done.out
    assert sine("show", "-p", "gi\udcffrl").out.startswith("project        gi\\udcffrl\n")
    assert '"picture' not in sine("show", "-p", "gi\udcffrl", "--json").err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dir", "x" * 300], f"{'x' * 300}: the name is too long"),
        (["--dir", "x/" * 3000], "the name is too long"),
        (["--dir", "there/in"], "no such folder: there"),
        (["--dir", "girl.png"], "girl.png already exists"),
        (["--dir", "girl.png/in"], "no such folder: girl.png"),
        (["--dir", "dangling"], "dangling already exists"),
        (["--base", "x" * 5000], "no base preset called"),
        (["--base", "/" + "x" * 5000], "no such folder or file: /xxx"),
        (["--base", "x" * 5000 + ".safetensors"], "no such folder or file: xxx"),
        (["--base", ""], 'no base preset called ""'),
        (["--base", "a/b\udce9"], '--base: "a/b\\udce9" is not UTF-8 text'),
        (["--base", "girl.png"], "girl.png is not a .safetensors file"),
        (["--base", "empty"], "empty is not a whole diffusers folder"),
        (["--base", "empty.safetensors"], "empty.safetensors"),
        (["--class", "x" * 61], "--class has 61 characters, at most 60 are allowed"),
        (["--class", "a\u2028b"], "--class has control characters"),
        (["--token", "\x07"], "--token has control characters"),
        (["--kind", "\x1b[2J"], 'no kind of picture called "\\x1b[2J"'),
        (["--token", "t" * 60, "--prompt", "[*]" * 3000], "--prompt has 180000 characters, at most 10000"),
        (["--prompt", "a\rb"], "--prompt has control characters"),
    ],
)
def test_unfit_words_make_no_project(
    refused: Refused, tmp_path: Path, arguments: list[str], told: str
) -> None:
    Path("girl.png").write_bytes(encoded(photo(), "PNG"))
    Path("empty").mkdir()
    Path("empty.safetensors").touch()
    Path("dangling").symlink_to(tmp_path / "nowhere")
    defaults = ["--class", "girl", "--base", "mini"]
    given = [*defaults, *arguments]
    for option in ("--class", "--base"):
        if option in arguments:
            at = given.index(option)
            del given[at : at + 2]
    assert told in refused("init", "girl.png", *given)


def test_a_pipe_is_not_waited_for(refused: Refused) -> None:
    import os

    os.mkfifo("girl.png")
    assert refused("init", "girl.png", *INIT) == "girl.png is not a regular file"
