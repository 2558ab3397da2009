"""A contact sheet: labelled rows and columns of pictures, with the source beside them."""

from bisect import bisect_right
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

from sine_cli.workflow.size import Size

SMALLEST_CELL = 144
"""Pixels of a cell's shorter side on the sheet, so that a small base's pictures are seen on a screen."""

LARGEST_SHEET = 6000
"""Pixels of the sheet's longer side; viewers and browsers stumble over larger ones."""

LONGEST_TITLE = 1000
"""Characters of the title that are looked at: no sheet has room for more."""

LABELS = 120
"""Pixels that labels and title take beside small cells."""

GAP = 6
INK = (32, 32, 32)
FAINT = (110, 110, 110)
PAPER = (255, 255, 255)


def draw_sheet(
    *,
    source: Image.Image,
    cell: Callable[[int, int], Image.Image | None],
    columns: list[str],
    rows: list[str],
    title: str,
    cell_size: Size,
) -> Image.Image:
    """The sheet, RGB.

    Args:
        source: shown at the left, in a column of its own.
        cell: (row, column) -> its picture, None for an empty place; asked one at a time, so that all need
            not be in memory.
        columns, rows: labels of the axes; a row's may have several lines.
        title: above all.
        cell_size: of the pictures that `cell` gives.
    """
    height, width = _cell_on_sheet(cell_size, len(rows), len(columns))
    text = max(14, min(height, width) // 9)
    font, title_font = ImageFont.load_default(text), ImageFont.load_default(round(text * 1.3))
    label_width = (
        round(max((font.getlength(line) for row in rows for line in row.splitlines()), default=0)) + 3 * GAP
    )
    top = 3 * text + 3 * GAP
    left = width + 2 * GAP + label_width
    sheet = Image.new(
        "RGB", (left + len(columns) * (width + GAP) + GAP, top + len(rows) * (height + GAP) + GAP), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _fitting(title, title_font, sheet.width - 2 * GAP), INK, title_font)
    draw.text((GAP + width / 2, top - 2 * GAP), "source", FAINT, font, anchor="ms")
    shown = source.copy()
    shown.thumbnail((width, height), Image.Resampling.LANCZOS)
    if shown.width < width and shown.height < height:
        scale = min(width / source.width, height / source.height)
        shown = source.resize(
            (round(source.width * scale), round(source.height * scale)), Image.Resampling.LANCZOS
        )
    sheet.paste(shown, (GAP + (width - shown.width) // 2, top))
    for column, label in enumerate(columns):
        draw.text((left + column * (width + GAP) + width / 2, top - 2 * GAP), label, INK, font, anchor="ms")
    for row, label in enumerate(rows):
        y = top + row * (height + GAP)
        draw.text((left - 2 * GAP, y + height / 2), label, INK, font, anchor="rm", align="right")
        for column in range(len(columns)):
            picture = cell(row, column)
            if picture:
                shown = picture.resize((width, height), Image.Resampling.LANCZOS)
                sheet.paste(shown, (left + column * (width + GAP), y))
    return sheet


def _cell_on_sheet(size: Size, rows: int, columns: int) -> tuple[int, int]:
    # Beside the cells: gaps, labels and the title, which with larger cells take half a cell more at most.
    high, wide = LARGEST_SHEET - (rows + 5) * GAP - LABELS, LARGEST_SHEET - (columns + 6) * GAP - LABELS
    scale = min(
        max(1.0, SMALLEST_CELL / min(size.height, size.width)),
        high / ((rows + 0.5) * size.height),
        wide / ((columns + 2) * size.width),
    )
    return max(8, int(size.height * scale + 1e-6)), max(8, int(size.width * scale + 1e-6))


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its end cut where it is wider than `width` pixels."""
    text = " ".join(text.split())[:LONGEST_TITLE]
    if font.getlength(text) <= width:
        return text
    # The most characters that fit; every one of them is some part of a pixel wide.
    fits = bisect_right(range(len(text)), width, key=lambda kept: font.getlength(f"{text[:kept]}..."))
    return f"{text[: max(1, fits - 1)].rstrip()}..."
