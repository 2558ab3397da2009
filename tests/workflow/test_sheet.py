"""The sheet: every cell in its place, never too large to open."""

import numpy as np
import pytest
from PIL import Image

from sine_cli.workflow.sheet import LARGEST_SHEET, draw_sheet
from sine_cli.workflow.size import Size

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200)]
SOURCE = (90, 60, 30)


def sheet(
    size: Size, rows: int = 2, columns: int = 3, title: str = "a castle", source: Size | None = None
) -> Image.Image:
    def cell(row: int, column: int) -> Image.Image:
        return Image.new("RGB", (size.width, size.height), COLOURS[(row * columns + column) % 6])

    source = source or size
    return draw_sheet(
        source=Image.new("RGB", (source.width, source.height), SOURCE),
        cell=cell,
        columns=[f"K = {200 * i}" for i in range(columns)],
        rows=[f"v = {0.1 * i:g}" for i in range(rows)],
        title=title,
        cell_size=size,
    )


def box_of(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of all pixels of a colour, which fill that box."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=-1))
    box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    assert len(rows) == (box[2] - box[0]) * (box[3] - box[1])
    return box


def test_rows_and_columns_of_cells_stand_in_line_beside_the_source() -> None:
    drawn = sheet(Size(160, 240))
    boxes = [box_of(drawn, colour) for colour in COLOURS]
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(240, 160)}
    lefts, tops = [box[0] for box in boxes], [box[1] for box in boxes]
    assert lefts[:3] == lefts[3:] == sorted(set(lefts))
    assert (set(tops[:3]), set(tops[3:])) == ({tops[0]}, {tops[3]})
    assert tops[0] < tops[3]
    source = box_of(drawn, SOURCE)
    assert source[1] == tops[0]
    assert source[2] <= lefts[0]
    assert drawn.mode == "RGB"


def test_small_pictures_are_shown_larger() -> None:
    left, top, right, bottom = box_of(sheet(Size(32, 64)), COLOURS[0])
    assert (bottom - top, right - left) == (144, 288)


def test_the_source_keeps_its_aspect() -> None:
    left, top, right, bottom = box_of(sheet(Size(160, 160), source=Size(400, 100)), SOURCE)
    assert (bottom - top, right - left) == (160, 40)
    left, top, right, bottom = box_of(sheet(Size(160, 160), source=Size(20, 40)), SOURCE)
    assert (bottom - top, right - left) == (80, 160)


def test_titles_and_labels_are_drawn() -> None:
    drawn = np.asarray(sheet(Size(160, 160)).convert("L"))
    left, top, _, _ = box_of(sheet(Size(160, 160)), COLOURS[0])
    assert (drawn[: top // 2] < 100).any(), "the title"
    assert (drawn[top - 20 : top, left : left + 160] < 100).any(), "K above the first column"
    assert (drawn[top : top + 160, left - 60 : left - 6] < 100).any(), "v before the first row"


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        (Size(512, 512), 20, 20),
        (Size(512, 512), 1, 400),
        (Size(512, 512), 400, 1),
        (Size(128, 128), 1, 400),
        (Size(128, 128), 400, 1),
        (Size(8192, 8192), 1, 1),
        (Size(8192, 16), 1, 1),
        (Size(16, 8192), 2, 2),
        (Size(768, 16), 1, 100),
        (Size(1, 1), 400, 1),
    ],
)
def test_a_sheet_is_never_too_large_to_open(size: Size, rows: int, columns: int) -> None:
    def cell(row: int, column: int) -> Image.Image:
        return Image.new("RGB", (8, 8), COLOURS[(row + column) % 6])

    drawn = draw_sheet(
        source=Image.new("RGB", (64, 64), SOURCE),
        cell=cell,
        columns=[f"K = {i}" for i in range(columns)],
        rows=[f"v = {i / 1000:g}" for i in range(rows)],
        title="a castle",
        cell_size=size,
    )
    assert max(drawn.size) <= LARGEST_SHEET


@pytest.mark.parametrize("title", ["a castle " * 500, "w" * 5000, "城" * 300, "line\nbreak\ttab", ""])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3)])
def test_any_title_fits_and_changes_no_cell(title: str, rows: int, columns: int) -> None:
    drawn, plain = (sheet(Size(32, 32), rows, columns, each) for each in (title, "a castle"))
    assert drawn.size == plain.size
    _, top, _, _ = box_of(plain, COLOURS[0])
    below = (0, top, drawn.width, drawn.height)
    assert drawn.crop(below).tobytes() == plain.crop(below).tobytes()


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 500), Size(500, 1)])
def test_a_sheet_of_one_cell_of_any_shape_is_drawn(size: Size) -> None:
    drawn = sheet(size, rows=1, columns=1, source=Size(16, 300))
    box_of(drawn, COLOURS[0])
    assert max(drawn.size) <= LARGEST_SHEET
