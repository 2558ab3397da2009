"""Backgrounds, drawn: one painter a place, none twice the same."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from sine_cli.mini.vocabulary import COLOURS, PLACES

Rng = np.random.Generator
Painting = np.ndarray
"""(H, W, 3), float32, 0..255."""


def plain(rng: Rng, height: int, width: int, colour: str) -> Painting:
    """A field of one colour, some with a soft light across it."""
    rgb = np.asarray(COLOURS[colour], np.float32) + rng.integers(-10, 11, 3)
    field = np.broadcast_to(rgb, (height, width, 3)).astype(np.float32)
    if rng.random() < 0.4:
        field = (
            field
            * np.linspace(rng.uniform(0.85, 1), rng.uniform(0.85, 1), height, dtype=np.float32)[:, None, None]
        )
    return field.clip(0, 255)


def place(rng: Rng, height: int, width: int, name: str) -> Painting:
    """A scene of `vocabulary.PLACES`."""
    return _PAINTERS[name](rng, height, width).clip(0, 255)


def in_front(rng: Rng, scene: Painting, name: str) -> Painting:
    """What falls or rises before the thing: snowflakes, rain, bubbles, flames, leaves."""
    height, width, _ = scene.shape
    if name == "snow":
        return _dots(rng, scene, 45, 0.6, 1.7, (255, 255, 255), 0.9)
    if name == "water":
        tinted = scene * _rgb((0.72, 0.92, 1)) + _rgb((0, 12, 25))
        return _rings(rng, tinted, 9)
    if name == "rain":
        return _streaks(rng, scene * 0.85, 60)
    if name == "night":
        return scene * _rgb((0.62, 0.66, 0.85))
    if name == "sunset":
        return scene * _rgb((1.05, 0.86, 0.72))
    if name == "fire":
        glow = _flames(rng, height, width)
        return scene * (1 - 0.75 * glow[..., 1:2]) + _fire_colour(glow) * 0.75 * glow[..., 1:2]
    if name == "autumn":
        return _leaves(rng, scene, 7)
    return scene


def _rgb(colour: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(colour, np.float32)


def _sky(height: int, width: int, top: tuple[int, ...], bottom: tuple[int, ...]) -> Painting:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
    return np.broadcast_to(column, (height, width, 3)).copy()


def _grain(rng: Rng, scene: Painting, strength: float, blur: float = 0.0) -> Painting:
    height, width, _ = scene.shape
    return scene + _cloudy(rng, height, width, blur)[..., None] * strength


def _cloudy(rng: Rng, height: int, width: int, blur: float) -> np.ndarray:
    """Noise of mean 0 and about unit spread, smooth over `blur` pixels."""
    if blur <= 0:
        return rng.standard_normal((height, width), np.float32)
    small = rng.standard_normal((max(2, int(height / blur) + 2), max(2, int(width / blur) + 2)), np.float32)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _ground(
    rng: Rng, scene: Painting, top: tuple[int, ...], bottom: tuple[int, ...], grain: float
) -> Painting:
    """The lower part, its edge a gentle wave."""
    height, width, _ = scene.shape
    line = height * rng.uniform(0.5, 0.75)
    x = np.arange(width)
    edge = line + height * 0.03 * np.sin(x / width * rng.uniform(3, 9) + rng.uniform(0, 6))
    below = np.clip(np.arange(height)[:, None] - edge[None], 0, 1).astype(np.float32)[..., None]
    earth = _grain(rng, _sky(height, width, top, bottom), grain, rng.choice([0, 2.5]))
    return scene * (1 - below) + earth * below


def _dots(
    rng: Rng, scene: Painting, count: float, least: float, most: float, colour: tuple[int, ...], alpha: float
) -> Painting:
    height, width, _ = scene.shape
    scene = scene.copy()
    for _ in range(int(count * height * width / 128**2)):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(least, most)
        top, left = max(0, int(y - r - 1)), max(0, int(x - r - 1))
        part = scene[top : int(y + r + 2), left : int(x + r + 2)]
        yy, xx = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        weight = (np.clip(r + 0.5 - np.hypot(yy - y, xx - x), 0, 1) * alpha).astype(np.float32)[..., None]
        part += (np.asarray(colour, np.float32) - part) * weight
    return scene


def _rings(rng: Rng, scene: Painting, count: int) -> Painting:
    height, width, _ = scene.shape
    scene = scene.copy()
    for _ in range(count):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 5.5)
        top, left = max(0, int(y - r - 2)), max(0, int(x - r - 2))
        part = scene[top : int(y + r + 3), left : int(x + r + 3)]
        yy, xx = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        weight = np.clip(1.1 - abs(np.hypot(yy - y, xx - x) - r), 0, 1).astype(np.float32)[..., None] * 0.8
        part += (_rgb((210, 238, 255)) - part) * weight
    return scene


def _streaks(rng: Rng, scene: Painting, count: int) -> Painting:
    height, width, _ = scene.shape
    scene = scene.copy()
    for _ in range(int(count * height * width / 128**2)):
        y, x, length = int(rng.uniform(-6, height)), int(rng.uniform(0, width)), int(rng.uniform(5, 12))
        for i in range(length):
            row, column = y + i, x - i // 3
            if 0 <= row < height and 0 <= column < width:
                scene[row, column] = scene[row, column] * 0.45 + _rgb((190, 205, 225)) * 0.55
    return scene


def _flames(rng: Rng, height: int, width: int) -> Painting:
    noise = _cloudy(rng, height, width, 9) * 0.35 + _cloudy(rng, height, width, 4) * 0.15
    rise = np.linspace(-0.55, 0.95, height, dtype=np.float32)[:, None]
    heat = np.clip(rise + noise, 0, 1)
    return np.stack([heat, np.clip(heat * 1.6, 0, 1), heat], -1)


def _fire_colour(glow: Painting) -> Painting:
    heat = glow[..., :1]
    return np.concatenate([np.full_like(heat, 255), 70 + 170 * heat, 20 + 90 * heat**2], -1)


def _leaves(rng: Rng, scene: Painting, count: int) -> Painting:
    for colour in ((225, 120, 30), (200, 60, 25), (240, 180, 50)):
        scene = _dots(rng, scene, count, 1.5, 3.2, colour, 0.95)
    return scene


def _grass(rng: Rng, height: int, width: int) -> Painting:
    sky = _sky(height, width, (128, 198, 248), (205, 232, 255))
    return _ground(rng, sky, (86, 172, 62), (42, 116, 34), 12)


def _snow(rng: Rng, height: int, width: int) -> Painting:
    sky = _sky(height, width, (158, 184, 214), (212, 226, 241))
    ground = _ground(rng, sky, (246, 249, 255), (222, 232, 248), 4)
    return _dots(rng, ground, 40, 0.6, 1.4, (255, 255, 255), 0.9)


def _beach(rng: Rng, height: int, width: int) -> Painting:
    sky = _sky(height, width, (92, 182, 250), (186, 228, 255))
    line = int(height * rng.uniform(0.42, 0.55))
    sky[line:] = _grain(rng, np.broadcast_to(_rgb((36, 132, 196)), sky[line:].shape), 6, 3)
    return _ground(rng, sky, (242, 218, 154), (226, 192, 124), 7)


def _night(rng: Rng, height: int, width: int) -> Painting:
    sky = _dots(rng, _sky(height, width, (8, 10, 40), (34, 40, 86)), 36, 0.3, 0.9, (255, 255, 235), 0.9)
    y, x, r = rng.uniform(0.12, 0.3) * height, rng.uniform(0.1, 0.9) * width, rng.uniform(8, 12)
    yy, xx = np.ogrid[:height, :width]
    weight = np.clip(r - np.hypot(yy - y, xx - x), 0, 1).astype(np.float32)[..., None]
    sky = sky * (1 - weight) + _rgb((250, 244, 204)) * weight
    return _ground(rng, sky, (20, 26, 44), (12, 16, 30), 3) if rng.random() < 0.5 else sky


def _clouds(rng: Rng, height: int, width: int) -> Painting:
    sky = _sky(height, width, (62, 142, 238), (188, 224, 255))
    cloud = np.clip(
        _cloudy(rng, height, width, 22) * 0.8 + _cloudy(rng, height, width, 9) * 0.3 - 0.25, 0, 1
    )[..., None]
    return sky * (1 - cloud) + 255 * cloud


def _forest(rng: Rng, height: int, width: int) -> Painting:
    scene = _grain(rng, _sky(height, width, (46, 98, 54), (28, 70, 34)), 12, 6)
    for _ in range(max(4, width // 14)):
        x, thick = int(rng.uniform(0, width)), int(rng.uniform(3, 8))
        scene[: int(height * 0.85), x : x + thick] = _rgb((76, 50, 30)) * rng.uniform(0.7, 1.1)
    return _ground(rng, scene, (58, 90, 36), (36, 62, 22), 9)


def _under_water(rng: Rng, height: int, width: int) -> Painting:
    scene = _grain(rng, _sky(height, width, (64, 172, 222), (6, 46, 116)), 6, 16)
    return _rings(rng, scene, 14)


def _desert(rng: Rng, height: int, width: int) -> Painting:
    sky = _sky(height, width, (120, 196, 245), (250, 226, 180))
    return _ground(
        rng, _ground(rng, sky, (232, 182, 104), (222, 166, 86), 4), (238, 192, 116), (210, 150, 74), 4
    )


def _city(rng: Rng, height: int, width: int) -> Painting:
    scene = _sky(height, width, (150, 182, 214), (214, 222, 232))
    base = int(height * rng.uniform(0.68, 0.8))
    x = 0
    while x < width:
        wide, top = int(rng.uniform(12, 28)), int(rng.uniform(0.05, 0.5) * height)
        scene[top:base, x : x + wide] = rng.uniform(90, 165) * _rgb((1, 1, 1.06))
        windows = scene[top + 4 : base - 2 : 7, x + 3 : x + wide - 3]
        windows[:, ::5] = _rgb((236, 226, 170)) if rng.random() < 0.5 else _rgb((70, 86, 110))
        x += wide + int(rng.uniform(0, 4))
    scene[base:] = _rgb((86, 88, 94))
    scene[base + (height - base) // 2 : base + (height - base) // 2 + 2] = _rgb((220, 214, 190))
    return scene


def _sunset(rng: Rng, height: int, width: int) -> Painting:
    scene = _sky(height, width, (92, 60, 132), (252, 146, 62))
    y, x, r = height * rng.uniform(0.45, 0.65), rng.uniform(0.15, 0.85) * width, rng.uniform(10, 17)
    yy, xx = np.ogrid[:height, :width]
    weight = np.clip(r - np.hypot(yy - y, xx - x), 0, 1).astype(np.float32)[..., None]
    scene = scene * (1 - weight) + _rgb((255, 226, 130)) * weight
    return _ground(rng, scene, (70, 44, 66), (40, 26, 44), 3)


def _autumn(rng: Rng, height: int, width: int) -> Painting:
    scene = _grain(rng, _sky(height, width, (236, 190, 110), (214, 140, 60)), 14, 7)
    for _ in range(max(3, width // 24)):
        x, thick = int(rng.uniform(0, width)), int(rng.uniform(3, 7))
        scene[: int(height * 0.8), x : x + thick] = (92, 58, 36)
    return _leaves(rng, _ground(rng, scene, (196, 112, 40), (150, 78, 28), 12), 16)


def _fire(rng: Rng, height: int, width: int) -> Painting:
    glow = _flames(rng, height, width)
    dark = _sky(height, width, (36, 10, 8), (90, 24, 8))
    return dark * (1 - glow[..., 1:2]) + _fire_colour(glow) * glow[..., 1:2]


def _space(rng: Rng, height: int, width: int) -> Painting:
    scene = _sky(height, width, (6, 4, 18), (14, 8, 34))
    cloud = np.clip(_cloudy(rng, height, width, 26), 0, 1)[..., None]
    scene = scene + cloud * _rgb([(90, 30, 120), (30, 50, 130), (120, 30, 70)][rng.integers(3)])
    scene = _dots(rng, scene, 50, 0.2, 1.0, (255, 255, 255), 0.95)
    planet = [(200, 120, 70), (90, 140, 210), (210, 190, 140)][rng.integers(3)]
    return _dots(rng, scene, 1.3, 7, 13, planet, 1.0)


def _rain(rng: Rng, height: int, width: int) -> Painting:
    scene = _grain(rng, _sky(height, width, (96, 106, 122), (148, 156, 168)), 8, 24)
    return _streaks(rng, _ground(rng, scene, (92, 98, 104), (70, 76, 84), 4), 60)


_PAINTERS: dict[str, Callable[[Rng, int, int], Painting]] = {
    "grass": _grass, "snow": _snow, "beach": _beach, "night": _night, "sky": _clouds, "forest": _forest,
    "water": _under_water, "desert": _desert, "city": _city, "sunset": _sunset, "autumn": _autumn,
    "fire": _fire, "space": _space, "rain": _rain,
}  # fmt: skip
assert set(_PAINTERS) == set(PLACES)


def soft(picture: Painting, radius: float) -> Painting:
    """Gaussian blur of a painting."""
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
