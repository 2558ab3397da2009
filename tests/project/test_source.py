"""Pictures of every kind become upright 8-bit RGB, with a note for each change; no picture, no entry."""

import errno
import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from sine_cli.errors import UserError
from sine_cli.project.source import read_picture, write_source

HEIGHT, WIDTH = 24, 40


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def landmark() -> Image.Image:
    """A picture without any symmetry, of full colours."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (200, 200, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 9, 5), fill=(255, 0, 0))
    draw.rectangle((30, 0, 39, 5), fill=(0, 255, 0))
    draw.rectangle((0, 18, 9, 23), fill=(0, 0, 255))
    return image


def saved(image: Image.Image, name: str = "girl.png", **options: Any) -> Path:
    path = Path(name)
    image.save(path, **options)
    return path


def png_by_hand(height: int, width: int, *, depth: int, pixels: bytes) -> bytes:
    """An RGB PNG whose header and content may disagree."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def refused(path: Path) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        read_picture(path)
    return caught.value.message, caught.value.hint


# ------------------------------------------------------------------------------------------------- the record


def test_a_plain_picture_is_unchanged_and_recorded() -> None:
    path = saved(landmark())
    picture = read_picture(path)
    assert picture.image.tobytes() == landmark().tobytes()
    assert (picture.image.mode, picture.image.size) == ("RGB", (WIDTH, HEIGHT))
    assert (picture.original_height, picture.original_width) == (HEIGHT, WIDTH)
    assert picture.notes == []
    assert picture.original_name == "girl.png"
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "extension", ["bmp", "gif", "ico", "jpg", "jp2", "png", "ppm", "tga", "tiff", "webp"]
)
def test_many_formats(extension: str) -> None:
    picture = read_picture(saved(Image.new("RGB", (32, 32), "red"), f"a.{extension}"))
    assert (picture.image.mode, picture.image.size) == ("RGB", (32, 32))
    difference = np.abs(np.asarray(picture.image).astype(int) - (255, 0, 0))
    assert difference.max() < 8


def test_a_name_that_is_not_utf8_is_recorded_readably() -> None:
    path = Path("gi\udcffrl.png")
    try:
        landmark().save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_picture(path).original_name == "gi?rl.png"


# ------------------------------------------------------------------------------------------------ orientation


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, extension: str) -> None:
    # By definition of the tag: how the upright picture was turned when it was stored.
    turned = {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.transpose(1, 0, 2),
        6: lambda pixels: np.rot90(pixels, 1),
        7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: lambda pixels: np.rot90(pixels, -1),
    }
    upright = np.asarray(landmark())
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(extension, {})
    picture = read_picture(saved(stored, f"girl.{extension}", exif=exif, **options))
    assert picture.image.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(picture.image).astype(int) - upright).mean() < 3
    expected = [] if orientation == 1 else [f"turned upright (EXIF orientation {orientation})"]
    assert picture.notes == expected
    assert (picture.original_height, picture.original_width) == (stored.height, stored.width)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(saved(landmark(), exif=exif))
    assert (picture.image.tobytes(), picture.notes) == (landmark().tobytes(), [])


def test_broken_exif_is_ignored() -> None:
    picture = read_picture(saved(landmark(), exif=b"Exif\0\0nonsense"))
    assert (picture.image.tobytes(), picture.notes) == (landmark().tobytes(), [])


# ------------------------------------------------------------------------------------------- modes and depths


def test_transparency_is_flattened_on_white() -> None:
    image = landmark().convert("RGBA")
    image.putpixel((0, 0), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    picture = read_picture(saved(image))
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.image.getpixel((1, 0)) == (127, 127, 127)
    assert picture.image.getpixel((2, 0)) == (255, 0, 0)
    assert picture.notes == ["transparency flattened on white"]


def test_full_opacity_is_not_worth_a_note() -> None:
    assert read_picture(saved(landmark().convert("RGBA"))).notes == []


def test_transparency_of_a_palette() -> None:
    image = landmark().quantize(8)
    transparent = image.getpixel((0, 0))
    picture = read_picture(saved(image, transparency=transparent))
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.image.getpixel((35, 0)) == (0, 255, 0)
    assert picture.notes == ["palette converted to RGB", "transparency flattened on white"]


def test_transparency_of_greys() -> None:
    image = Image.new("LA", (32, 32), (40, 255))
    image.putpixel((0, 0), (40, 0))
    picture = read_picture(saved(image))
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.image.getpixel((1, 0)) == (40, 40, 40)
    assert picture.notes == ["greyscale converted to RGB", "transparency flattened on white"]


def test_one_transparent_colour() -> None:
    picture = read_picture(saved(landmark(), transparency=(255, 0, 0)))
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.notes == ["transparency flattened on white"]


@pytest.mark.parametrize(
    ("mode", "extension", "note"),
    [
        ("L", "png", "greyscale converted to RGB"),
        ("1", "png", "black and white converted to RGB"),
        ("P", "png", "palette converted to RGB"),
        ("CMYK", "jpg", "CMYK converted to RGB"),
        ("CMYK", "tiff", "CMYK converted to RGB"),
        ("YCbCr", "tiff", "YCbCr converted to RGB"),
    ],
)
def test_modes_are_converted(mode: str, extension: str, note: str) -> None:
    grey = Image.new("RGB", (32, 32), "white")
    grey.paste("black", (0, 0, 16, 32))
    picture = read_picture(saved(grey.convert(mode), f"a.{extension}"))
    assert picture.image.mode == "RGB"
    assert picture.notes == [note]
    pixels = np.asarray(picture.image).astype(int)
    assert np.abs(pixels[4:-4, 4:12]).max() < 12
    assert np.abs(pixels[4:-4, 20:28] - 255).max() < 12


def test_lab_is_converted() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(landmark(), srgb, lab, outputMode="LAB")
    assert image is not None
    picture = read_picture(saved(image, "a.tiff"))
    assert picture.notes == ["LAB converted to RGB"]
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(landmark())).mean() < 3


@pytest.mark.parametrize("extension", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_divided_by_257(extension: str) -> None:
    values = np.zeros((16, 20), np.uint16)
    values[0, :4] = [0, 65535, 257 * 100, 128]
    picture = read_picture(saved(Image.fromarray(values), f"a.{extension}"))
    assert [picture.image.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 255, 100, 0)]
    assert picture.notes == ["16-bit values scaled to 8 bits", "greyscale converted to RGB"]


def test_sixteen_bits_are_turned_upright_too() -> None:
    values = np.zeros((16, 20), np.uint16)
    values[0, 0] = 65535
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(saved(Image.fromarray(values), exif=exif))
    assert picture.image.size == (16, 20)
    assert picture.image.getpixel((15, 0)) == (255, 255, 255)


def test_sixteen_bit_colours() -> None:
    # Pillow cannot write these: a PNG by hand, one colour, 16 x 16.
    row = b"\0" + struct.pack(">3H", 65535, 257 * 100, 0) * 16
    Path("a.png").write_bytes(png_by_hand(16, 16, depth=16, pixels=row * 16))
    picture = read_picture(Path("a.png"))
    assert picture.image.getpixel((3, 3)) == (255, 100, 0)
    assert picture.notes == ["16-bit values scaled to 8 bits"]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_are_scaled_by_their_range(kind: type) -> None:
    values = np.full((16, 20), -1000, kind)
    values[0, :3] = [-1000, 0, 3000]
    picture = read_picture(saved(Image.fromarray(values), "a.tiff"))
    assert [np.asarray(picture.image)[0, x, 0] for x in range(3)] == [0, 64, 255]
    assert picture.notes[0] == "32-bit values from -1000 to 3000 scaled to 8 bits"


def test_values_that_are_no_numbers_are_no_obstacle() -> None:
    values = np.linspace(0, 1, 320, dtype=np.float32).reshape(16, 20)
    values[0, :3] = [np.nan, np.inf, -np.inf]
    picture = read_picture(saved(Image.fromarray(values), "a.tiff"))
    assert [np.asarray(picture.image)[0, x, 0] for x in range(3)] == [0, 255, 0]
    picture = read_picture(saved(Image.fromarray(np.full((16, 20), np.nan, np.float32)), "a.tiff"))
    assert picture.image.getextrema() == ((0, 0),) * 3


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    picture = read_picture(saved(frames[0], "a.webp", save_all=True, append_images=frames[1:], lossless=True))
    assert picture.image.getpixel((5, 5)) == (255, 0, 0)
    assert picture.notes == ["first of 3 frames taken"]


# -------------------------------------------------------------------------------------------- colour profiles


def wide_profile() -> bytes:
    """A matrix profile whose red and green are swapped against sRGB: nobody can mistake its effect."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        at = 132 + 12 * index
        tags[bytes(profile[at : at + 4])] = at
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    described = "sRGB".encode("utf-16-be")
    assert described in profile
    return bytes(profile).replace(described, "Swap".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    picture = read_picture(saved(landmark(), icc_profile=wide_profile()))
    red, green, blue = np.asarray(picture.image)[0, 0].tolist()
    assert (red < 30, green > 225, blue < 30) == (True, True, True)
    assert len(picture.notes) == 1
    assert picture.notes[0].startswith("colours converted to sRGB (from Swap")
    assert picture.image.info == {}


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(saved(landmark(), icc_profile=profile))
    assert (picture.image.tobytes(), picture.notes) == (landmark().tobytes(), [])


def linear_profile() -> bytes:
    """sRGB without its curve, and with its name, as picture editors have one."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    curve = profile.find(b"para")  # that of all three colours
    struct.pack_into(">HHi", profile, curve + 8, 0, 0, 65536)  # y = x ^ 1
    return bytes(profile)


def test_a_linear_srgb_profile_is_not_taken_for_srgb() -> None:
    values = np.asarray(landmark()) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    path = saved(Image.fromarray(np.rint(linear * 255).astype(np.uint8)), icc_profile=linear_profile())
    picture = read_picture(path)
    assert np.abs(np.asarray(picture.image, int) - np.asarray(landmark(), int)).max() <= 2
    assert picture.notes[0].startswith("colours converted to sRGB (from sRGB")


@pytest.mark.parametrize("deep", [False, True])
def test_sixteen_bit_greys_keep_their_profile_and_what_is_clear(deep: bool) -> None:
    grey = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 256
    image = Image.fromarray((grey * 257).astype(np.uint16) if deep else grey.astype(np.uint8))
    path = saved(image, icc_profile=linear_profile(), transparency=77 * 257 if deep else 77)
    picture = read_picture(path)
    assert picture.notes == [
        *(["16-bit values scaled to 8 bits"] if deep else []),
        "greyscale converted to RGB",
        picture.notes[-2],
        "transparency flattened on white",
    ]
    assert picture.notes[-2].startswith("colours converted to sRGB")
    pixels = np.asarray(picture.image)[..., 0]
    assert set(pixels[grey == 77].tolist()) == {255}
    assert set(pixels[grey == 76].tolist()) == {148}  # 76 in linear light


def test_what_is_clear_in_sixteen_bit_colours() -> None:
    values = (np.arange(32 * 32) * 60).astype(">u2").reshape(32, 32, 1).repeat(3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    png = png_by_hand(32, 32, depth=16, pixels=rows)
    clear = struct.pack(">HHH", 600, 600, 600)
    chunk = struct.pack(">I", 6) + b"tRNS" + clear + struct.pack(">I", zlib.crc32(b"tRNS" + clear))
    Path("deep.png").write_bytes(png.replace(png[33:41], chunk + png[33:41], 1))
    pixels = np.asarray(read_picture(Path("deep.png")).image)[..., 0]
    assert set(zip(*np.nonzero(pixels[:, :-1] == 255), strict=True)) == {(0, i) for i in (9, 10, 11, 12)}


def test_a_colour_profile_on_greys() -> None:
    picture = read_picture(saved(landmark().convert("L"), icc_profile=wide_profile()))
    assert picture.image.mode == "RGB"
    assert picture.notes[0] == "greyscale converted to RGB"
    assert picture.notes[1].startswith("colours converted to sRGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_broken_profile_is_ignored(mode: str) -> None:
    picture = read_picture(saved(landmark().convert(mode), "a.tiff", icc_profile=b"nonsense" * 40))
    assert picture.image.size == (WIDTH, HEIGHT)
    assert picture.notes[-1] == "broken colour profile ignored"


def test_a_profile_of_other_channels_is_ignored() -> None:
    picture = read_picture(saved(landmark().convert("CMYK"), "a.tiff", icc_profile=wide_profile()))
    assert picture.notes == ["CMYK converted to RGB", "broken colour profile ignored"]


# --------------------------------------------------------------------------------------------------- refusals


def test_no_such_file() -> None:
    saved(landmark())
    assert refused(Path("gril.png")) == ("no such file: gril.png", "did you mean `girl.png`?")


def test_a_folder() -> None:
    Path("girl").mkdir()
    assert refused(Path("girl")) == ("girl is a folder", "name a file")


def test_an_empty_file() -> None:
    Path("girl.png").touch()
    assert refused(Path("girl.png")) == (
        "girl.png is empty (0 bytes)",
        "copy or download the picture again",
    )


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(landmark())

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refused(Path("girl.png"))[0] == "cannot read girl.png: permission denied"


@pytest.mark.parametrize("content", [b"hello", b"\0" * 100, b"<svg/>", b"%PDF-1.4"])
def test_not_a_picture(content: bytes) -> None:
    Path("girl.png").write_bytes(content)
    assert refused(Path("girl.png")) == (
        "girl.png is not a picture that can be read",
        "name a picture, for example a JPEG, PNG, WebP or TIFF file",
    )


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp", "bmp", "jp2"])
def test_truncated(extension: str) -> None:
    path = saved(noise(), f"girl.{extension}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    message, hint = refused(path)
    assert message in (
        f"girl.{extension} is truncated or damaged",
        f"girl.{extension} is not a picture that can be read",
    )
    assert hint


@pytest.mark.parametrize(
    "extension", ["jpg", "png", "gif", "tiff", "webp", "ppm", "tga", "ico", "qoi", "dds"]
)
def test_random_damage_is_read_or_told(extension: str) -> None:
    buffer = io.BytesIO()
    noise().save(
        buffer, format={"jpg": "JPEG", "ppm": "PPM", "tiff": "TIFF"}.get(extension, extension.upper())
    )
    random = np.random.default_rng(1)
    path = Path("girl")
    for _ in range(25):
        content = bytearray(buffer.getvalue())
        for _ in range(4):
            content[random.integers(0, min(len(content), 400))] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            picture = read_picture(path)
        except UserError as error:
            assert error.message.startswith("girl ")
        else:
            assert picture.image.mode == "RGB"


def test_a_decompression_bomb() -> None:
    Path("bomb.png").write_bytes(png_by_hand(20000, 20000, depth=8, pixels=b""))
    assert refused(Path("bomb.png")) == (
        "bomb.png has 400,000,000 pixels, more than the limit of 178,956,970",
        "make it smaller in a picture editor, then try again",
    )


def test_a_large_photograph_below_the_limit_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    path = saved(landmark())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(path).image.size == (WIDTH, HEIGHT)


def test_too_small() -> None:
    assert refused(saved(Image.new("RGB", (30, 15)))) == (
        "girl.png is 15x30 pixels (height x width), too small",
        "take a picture of at least 16x16 pixels",
    )
    assert read_picture(saved(Image.new("RGB", (16, 16)))).image.size == (16, 16)


def test_an_eps_program_is_not_run() -> None:
    Path("a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n")
    assert refused(Path("a.eps")) == (
        "a.eps is an EPS program, not a picture",
        "export it as PNG, then name that file",
    )


# ---------------------------------------------------------------------------------------------------- writing


def test_the_stored_picture_carries_no_metadata() -> None:
    image = landmark()
    image.info = {"icc_profile": b"x", "dpi": (72, 72), "transparency": (255, 0, 0)}
    write_source(image, Path("source.png"))
    with Image.open("source.png") as stored:
        assert (stored.info, stored.format) == ({}, "PNG")
        assert stored.tobytes() == image.tobytes()
    assert image.info["dpi"] == (72, 72)
    assert [path.name for path in Path.cwd().iterdir()] == ["source.png"]
