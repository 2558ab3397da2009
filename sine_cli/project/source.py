"""The picture of a project: any file that Pillow reads becomes an upright 8-bit RGB picture.

Nothing is cropped or resized. What was changed on the way is told in short notes.
"""

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageCms, ImageFile, UnidentifiedImageError

from sine_cli.errors import UserError
from sine_cli.project import files

SMALLEST_SIDE = 16  # pixels

# What Pillow's decoders raise at damaged data. Each format has its own habit, so this is long; it is caught
# around decoding alone.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
    struct.error,
    zlib.error,
)

_SRGB_WITHIN = 16  # levels of 255: versions of sRGB differ by a few, the linear one by 60

_ORIENTATION = 0x0112  # the EXIF tag
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODE_NAMES = {
    "1": "black and white",
    "L": "greyscale",
    "LA": "greyscale",
    "La": "greyscale",
    "P": "palette",
    "PA": "palette",
}
_PLAIN_MODES = ("RGB", "RGBA", "RGBX", "RGBa")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Picture:
    """A picture ready to be stored, and where it came from.

    `image` is upright, RGB and carries no metadata. `notes` say in short sentences what was changed.
    `sha256`, `original_height` and `original_width` (pixels) are those of the file as given.
    """

    image: Image.Image
    notes: list[str]
    original_name: str
    sha256: str
    original_height: int
    original_width: int


def read_picture(path: Path, *, least: int = SMALLEST_SIDE) -> Picture:
    """Read any picture that Pillow reads as upright 8-bit RGB.

    Args:
        least: pixels that a side must have.

    Raises:
        UserError: no such file, a folder, no permission, empty, not a picture, truncated or damaged, more
            pixels than Pillow allows, or a side below `least`.
    """
    content = files.read_bytes(path)
    if not content:
        raise UserError(f"{files.shown(path)} is empty (0 bytes)", "copy or download the picture again")
    notes: list[str] = []
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, and at half the pixels that it refuses: neither keeps us from reading.
        warnings.simplefilter("ignore")
        opened = _opened(content, path, least)
        upright, orientation = _decoded_upright(opened, path, notes.append)
        image = _as_rgb(upright, notes.append)
    stored_on_its_side = orientation >= 5
    return Picture(
        image=image,
        notes=notes,
        original_name=path.name.encode("utf-8", "replace").decode("utf-8"),
        sha256=hashlib.sha256(content).hexdigest(),
        original_height=image.width if stored_on_its_side else image.height,
        original_width=image.height if stored_on_its_side else image.width,
    )


def is_made(path: Path, height: int, width: int) -> bool:
    """Whether a PNG of that size lies there, as sine makes them; its pixels are not read."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.size == (width, height)
    except (Image.DecompressionBombError, *DECODER_ERRORS):  # an OSError too where nothing lies there
        return False


def write_source(image: Image.Image, path: Path) -> None:
    """Write an RGB picture as PNG without metadata, whole or not at all. Raises SineError (disk)."""
    bare = image.copy()
    bare.info = {}  # Pillow would write the profile and other entries it finds here
    with files.replacing(path) as partial:
        bare.save(partial, format="PNG")


def _opened(content: bytes, path: Path, least: int) -> ImageFile.ImageFile:
    """The picture with its header read; its size and kind are fit."""
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        hint = "name a picture, for example a JPEG, PNG, WebP or TIFF file"
        raise UserError(f"{files.shown(path)} is not a picture that can be read", hint) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from error
    except DECODER_ERRORS as error:
        raise _damaged(path) from error
    if image.format == "EPS":  # to read one, Pillow would run Ghostscript on the stranger's program in it
        hint = "export it as PNG, then name that file"
        raise UserError(f"{files.shown(path)} is an EPS program, not a picture", hint)
    if min(image.size) < least:
        raise UserError(
            f"{files.shown(path)} is {image.height}x{image.width} pixels (height x width), too small",
            f"take a picture of at least {least}x{least} pixels",
        )
    return image


def _decoded_upright(image: ImageFile.ImageFile, path: Path, note: Note) -> tuple[Image.Image, int]:
    """The first frame, upright, of at most 8 bits a channel; and the EXIF orientation it was stored in."""
    deep = _has_sixteen_bits(image)
    orientation = _orientation(image) if image.format == "TIFF" else 1  # Pillow turns these while loading
    try:
        frames = _frame_count(image)
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(path, error) from error
    except DECODER_ERRORS as error:
        raise _damaged(path) from error
    if frames > 1:
        note(f"first of {frames} frames taken")
    upright: Image.Image = image
    if image.format != "TIFF":
        orientation = _orientation(image)
        upright = image.transpose(_TO_UPRIGHT[orientation]) if orientation > 1 else image
    if orientation > 1:
        note(f"turned upright (EXIF orientation {orientation})")
    if deep:
        note("16-bit values scaled to 8 bits")
    return _as_eight_bits(upright, deep, note), orientation


def _frame_count(image: ImageFile.ImageFile) -> int:
    if image.format == "PSD":  # its frames are layers, and what is read is the whole
        return 1
    return int(getattr(image, "n_frames", 1))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if orientation in _TO_UPRIGHT else 1


def _has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits a channel; asked before loading, which may already reduce them."""
    widened = image.mode == "I" and image.format == "PPM"  # Pillow's way with 16-bit PGM files
    return widened or image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in image.tile)


def _as_eight_bits(image: Image.Image, deep: bool, note: Note) -> Image.Image:
    """Modes of 16 and 32 bits as L or LA, of 16 by /257, of 32 by the values' own range; the others as Pillow
    read them.
    """
    if deep and isinstance(clear := image.info.get("transparency"), tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # as Pillow takes the colours
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    if deep:
        grey = Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))
        clear = image.info.get("transparency")  # the one value that is, of 16 bits
        if clear is not None:
            grey = Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (values != clear))))
        grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
        return grey
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    note(f"32-bit values from {low:g} to {high:g} scaled to 8 bits")
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return Image.fromarray(np.rint((values - low) / ((high - low) or 1) * 255).astype(np.uint8))


def _as_rgb(image: Image.Image, note: Note) -> Image.Image:
    """RGB in the sRGB colour space, on white where it was transparent, with no metadata."""
    profile = image.info.get("icc_profile")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode not in _PLAIN_MODES:
        note(f"{_MODE_NAMES.get(image.mode, image.mode)} converted to RGB")
    colours = _without_alpha(image)
    # LAB is the same everywhere: a profile adds nothing to it.
    rgb = _as_srgb(colours, profile, note) if profile and image.mode != "LAB" else colours.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        note("transparency flattened on white")
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    rgb.info = {}
    return rgb


def _without_alpha(image: Image.Image) -> Image.Image:
    """The colours alone, in the mode that a profile of theirs would describe: L, CMYK, LAB or RGB."""
    if image.mode in ("1", "LA", "La"):
        return image.convert("LA").convert("L") if image.mode == "La" else image.convert("L")
    if image.mode in ("L", "CMYK", "LAB", "RGB"):
        return image
    if image.mode == "RGBa":  # multiplied with alpha: to be undone first
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _as_srgb(image: Image.Image, profile_bytes: bytes, note: Note) -> Image.Image:
    """RGB from an embedded colour profile; a profile that is broken or does not fit is ignored, and noted."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        name = ImageCms.getProfileDescription(profile).strip()
        if image.mode == "L" and profile_bytes[16:20] == b"RGB ":
            image = image.convert("RGB")
        if "sRGB" in name and _is_srgb(profile, image.mode):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        note("broken colour profile ignored")
        return image.convert("RGB")
    assert converted is not None  # None only when converting in place
    note(f"colours converted to sRGB (from {files.printable(name)[:60] or 'an unnamed profile'})")
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether a profile that calls itself sRGB is, to a few levels of grey: "Linear sRGB" is not.

    Then its pixels are left as they are, to the bit.
    """
    grey = Image.linear_gradient("L")
    shown = ImageCms.profileToProfile(
        grey.convert(mode), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert shown is not None  # None only when converting in place
    off = ImageChops.difference(shown, grey.convert("RGB")).convert("L")
    return sum(off.histogram()[_SRGB_WITHIN + 1 :]) == 0


def _too_large(path: Path, error: Image.DecompressionBombError) -> UserError:
    pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
    return UserError(
        f"{files.shown(path)} has {pixels:,} pixels, more than the limit of {limit:,}",
        "make it smaller in a picture editor, then try again",
    )


def _damaged(path: Path) -> UserError:
    return UserError(f"{files.shown(path)} is truncated or damaged", "copy or download the picture again")
