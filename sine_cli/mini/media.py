"""Pictures in another medium, by filters: what "a pencil sketch of" or "a stone sculpture of" looks like.

Two kinds: those that make the whole picture anew (`WHOLE`), and those that make the thing of another matter
and leave the place it stands in (`MATTER`).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Rng = np.random.Generator
Picture = np.ndarray
"""(H, W, 3), float32, 0..255."""


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _array(image: Image.Image) -> Picture:
    return np.asarray(image.convert("RGB"), np.float32)


def _rgb(colour: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(colour, np.float32)


def _smooth_noise(rng: Rng, height: int, width: int, grain: float) -> np.ndarray:
    small = rng.standard_normal((int(height / grain) + 2, int(width / grain) + 2), np.float32)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))[..., None]


def _pencil(rng: Rng, picture: Picture) -> Picture:
    grey = ImageOps.grayscale(_image(picture))
    dodged = np.asarray(
        ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(rng.uniform(2.5, 4))), np.float32
    )
    tone = np.asarray(grey, np.float32)
    line = np.clip(tone * 255 / (256 - dodged), 0, 255)
    line = 255 - (255 - line) * 1.7
    height, width = tone.shape
    yy, xx = np.mgrid[:height, :width]
    hatch = np.where((xx + yy) % 4 < 2, 14.0, 0.0) * (tone < 120)
    paper = _smooth_noise(rng, height, width, 1.5)[..., 0] * 3
    return np.repeat((line * 0.93 + 14 - hatch + paper)[..., None], 3, 2)


def _watercolor(rng: Rng, picture: Picture) -> Picture:
    height, width, _ = picture.shape
    image = _image(picture).filter(ImageFilter.MedianFilter(7)).filter(ImageFilter.GaussianBlur(1))
    edges = np.asarray(ImageOps.grayscale(image).filter(ImageFilter.FIND_EDGES), np.float32)[..., None]
    pigment = _smooth_noise(rng, height, width, 8) * 13 + _smooth_noise(rng, height, width, 2) * 3
    return _array(image) * 0.72 + 66 + pigment - edges * 0.25


def _oil(rng: Rng, picture: Picture) -> Picture:
    height, width, _ = picture.shape
    small = (
        _image(picture)
        .resize((width // 2, height // 2), Image.Resampling.BOX)
        .filter(ImageFilter.ModeFilter(5))
    )
    image = ImageEnhance.Color(small.resize((width, height), Image.Resampling.BICUBIC)).enhance(1.4)
    noise = rng.standard_normal((height, width), np.float32)
    stroke = np.asarray(
        Image.fromarray(noise * 40 + 128).convert("L").filter(ImageFilter.GaussianBlur(1.1)), np.float32
    )
    relief = (stroke - np.roll(stroke, (1, 1), (0, 1)))[..., None] * 2.2
    return _array(image) * 0.95 + relief


def _neon(rng: Rng, picture: Picture) -> Picture:
    image = ImageEnhance.Color(_image(picture)).enhance(1.6)
    edges = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)).filter(ImageFilter.FIND_EDGES), np.float32)
    edges[[0, -1]] = 0
    edges[:, [0, -1]] = 0
    tint = _rgb([(255, 60, 200), (60, 220, 255), (255, 170, 40), (120, 255, 90)][rng.integers(4)]) / 255
    lines = edges * 0.7 + edges.max(-1, keepdims=True) * tint * 0.9
    glow = np.asarray(_image(lines * 1.5).filter(ImageFilter.GaussianBlur(2.4)), np.float32)
    return lines * 1.5 + glow * 1.3 + _rgb((10, 5, 24))


def _pixel_art(rng: Rng, picture: Picture) -> Picture:
    height, width, _ = picture.shape
    cell = height / rng.choice([22, 26, 32]) if height <= width else width / rng.choice([22, 26, 32])
    small = _image(picture).resize((round(width / cell), round(height / cell)), Image.Resampling.BOX)
    return _array(small.quantize(20).convert("RGB").resize((width, height), Image.Resampling.NEAREST))


def _mosaic(rng: Rng, picture: Picture) -> Picture:
    height, width, _ = picture.shape
    tile = int(rng.integers(6, 9))
    rows, columns = -(-height // tile), -(-width // tile)
    small = np.asarray(_image(picture).resize((columns, rows), Image.Resampling.BOX), np.float32)
    small = small + rng.normal(0, 13, (rows, columns, 1))
    tiles = small.repeat(tile, 0).repeat(tile, 1)[:height, :width]
    grout = ((np.arange(height) % tile == 0)[:, None] | (np.arange(width) % tile == 0)[None])[..., None]
    light = ((np.arange(height) % tile == 1)[:, None] | (np.arange(width) % tile == 1)[None])[..., None]
    return np.where(grout, 96.0, tiles + 16 * light).astype(np.float32)


def _blueprint(rng: Rng, picture: Picture) -> Picture:
    height, width, _ = picture.shape
    edges = np.asarray(ImageOps.grayscale(_image(picture)).filter(ImageFilter.FIND_EDGES), np.float32)
    edges[[0, -1]] = 0
    edges[:, [0, -1]] = 0
    grid = ((np.arange(height) % 16 == 0)[:, None] | (np.arange(width) % 16 == 0)[None]) * 0.16
    ink = np.clip(edges / 90, 0, 1) * 0.92
    share = np.maximum(ink, grid)[..., None].astype(np.float32)
    blue = _rgb((28, 66, 150)) * rng.uniform(0.9, 1.1)
    return blue * (1 - share) + _rgb((236, 243, 255)) * share


WHOLE: dict[str, Callable[[Rng, Picture], Picture]] = {
    "pencil sketch": _pencil,
    "watercolor painting": _watercolor,
    "oil painting": _oil,
    "neon sign": _neon,
    "pixel art": _pixel_art,
    "mosaic": _mosaic,
    "blueprint": _blueprint,
}


def _relief(picture: Picture, alpha: np.ndarray, roundness: float) -> np.ndarray:
    """Light from the upper left on a body whose height is its silhouette, rounded, and its tones. (H, W, 1),
    about 0..1."""
    tone = np.asarray(ImageOps.autocontrast(ImageOps.grayscale(_image(picture))), np.float32)
    solid = Image.fromarray((alpha[..., 0] * 255).astype(np.uint8))
    body = np.asarray(solid.filter(ImageFilter.GaussianBlur(roundness)), np.float32)
    fine = np.asarray(
        Image.fromarray(tone.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8)), np.float32
    )
    height = body * 0.05 + fine * 0.016
    dy, dx = np.gradient(height)
    light = (0.62 - 0.42 * dx - 0.5 * dy) / np.sqrt(1 + 0.35 * (dx**2 + dy**2))
    return (light + (tone / 255 - 0.5) * 0.28)[..., None]


def _stone(rng: Rng, picture: Picture, alpha: np.ndarray) -> Picture:
    height, width, _ = picture.shape
    light = _relief(picture, alpha, 4)
    colour = _rgb([(196, 192, 184), (226, 224, 220), (172, 170, 166)][rng.integers(3)])
    veins = _smooth_noise(rng, height, width, 14) * 7 + _smooth_noise(rng, height, width, 1.5) * 6
    return colour * (0.3 + light) + veins


def _gold(rng: Rng, picture: Picture, alpha: np.ndarray) -> Picture:
    light = np.clip(_relief(picture, alpha, 4), 0, 1.2)
    shine = np.clip(light - 0.72, 0, 1) ** 1.2 * 3
    base = _rgb((232, 178, 52)) * rng.uniform(0.92, 1.06)
    return base * (0.18 + 1.05 * light) + _rgb((255, 246, 190)) * shine * 0.7


def _wood(rng: Rng, picture: Picture, alpha: np.ndarray) -> Picture:
    height, width, _ = picture.shape
    light = _relief(picture, alpha, 4)
    yy, xx = np.mgrid[:height, :width].astype(np.float32)
    warp = _smooth_noise(rng, height, width, 24)[..., 0] * 5
    grain = np.sin((xx + warp + 4 * np.sin(yy / 23)) * rng.uniform(0.7, 1.1))[..., None] * 15
    colour = _rgb([(176, 116, 62), (148, 92, 48), (196, 142, 84)][rng.integers(3)])
    return colour * (0.34 + light) + grain


MATTER: dict[str, Callable[[Rng, Picture, np.ndarray], Picture]] = {
    "stone sculpture": _stone,
    "golden statue": _gold,
    "wooden carving": _wood,
}


def photograph(rng: Rng, picture: Picture) -> Picture:
    """What a lens adds: uneven light, some blur, grain."""
    height, width, _ = picture.shape
    yy, xx = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = (
        1
        - rng.uniform(0.08, 0.22) * (yy**2 + xx**2)
        + rng.uniform(-0.12, 0.12) * xx
        + rng.uniform(-0.12, 0.05) * yy
    )
    lit = np.asarray(
        _image(picture * light[..., None]).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8))), np.float32
    )
    return lit + rng.standard_normal((height, width, 1), np.float32) * rng.uniform(2, 6)
