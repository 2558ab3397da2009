"""Sizes, height first everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sine_cli.errors import UserError
from sine_cli.workflow.size import (
    LARGEST_SIDE,
    WHOLE,
    Box,
    Size,
    default_size,
    parse_crop,
    parse_size,
    sampled_size,
)

HINT = "give HEIGHTxWIDTH in pixels, for example `--size 640x512` (640 high, 512 wide)"
SIDES = st.integers(1, LARGEST_SIDE)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x512", Size(640, 512)),
        ("1x8192", Size(1, 8192)),
        ("64X48", Size(64, 48)),
        ("0064x0048", Size(64, 48)),
    ],
)
def test_a_size_is_height_by_width(text: str, size: Size) -> None:
    assert parse_size(text) == size


def test_a_size_is_shown_as_it_is_typed_and_described_in_words() -> None:
    assert str(Size(640, 512)) == "640x512"
    assert Size(640, 512).described() == "640 high, 512 wide"


@given(height=SIDES, width=SIDES)
def test_a_size_that_is_shown_can_be_typed(height: int, width: int) -> None:
    assert parse_size(str(Size(height, width))) == Size(height, width)


@pytest.mark.parametrize(
    "text",
    ["", "x", "512", "512x", "x512", "512x512x3", "-1x5", "5.0x5", "a bxc", "５x５", "²x2", "640 x 512"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_size(text)
    assert caught.value.message == f'--size: "{text}" is not a size'
    assert caught.value.hint == HINT


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("0x512", "0 high, 512 wide"),
        ("512x0", "512 high, 0 wide"),
        ("8193x1", "8193 high, 1 wide"),
        ("1x999999", "1 high, 999999 wide"),
    ],
)
def test_a_side_out_of_range_is_refused(text: str, described: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_size(text)
    assert caught.value.message == f"--size: each side must be from 1 to 8192 pixels, got {described}"
    assert caught.value.hint == HINT


@pytest.mark.parametrize(
    ("source", "native", "factor", "size"),
    [
        (Size(512, 512), 512, 8, Size(512, 512)),
        (Size(3000, 4000), 512, 8, Size(440, 592)),
        (Size(4000, 3000), 512, 8, Size(592, 440)),
        (Size(20, 20), 128, 8, Size(128, 128)),
        (Size(16, 10_000), 128, 8, Size(8, 3200)),
        (Size(10_000, 1), 512, 8, Size(LARGEST_SIDE, 8)),
    ],
)
def test_the_default_size_has_the_source_s_aspect_at_about_the_native_area(
    source: Size, native: int, factor: int, size: Size
) -> None:
    assert default_size(source, native, factor) == size


@given(
    height=st.integers(16, 20_000),
    width=st.integers(16, 20_000),
    native=st.sampled_from([64, 128, 512, 768]),
    factor=st.sampled_from([4, 8, 32]),
)
def test_the_default_size_can_be_sampled_as_it_is(height: int, width: int, native: int, factor: int) -> None:
    size = default_size(Size(height, width), native, factor)
    assert sampled_size(size, factor) == size
    assert size.height % factor == size.width % factor == 0
    if 0.25 <= height / width <= 4:
        # Each side is rounded by half a cell at most.
        assert abs(size.height - native * (height / width) ** 0.5) <= factor / 2 + 1e-6
        assert abs(size.width - native * (width / height) ** 0.5) <= factor / 2 + 1e-6


@given(height=SIDES, width=SIDES, factor=st.sampled_from([1, 4, 8, 32]))
def test_the_sampled_size_is_the_next_one_of_whole_cells(height: int, width: int, factor: int) -> None:
    canvas = sampled_size(Size(height, width), factor)
    assert canvas.height % factor == canvas.width % factor == 0
    assert 0 <= canvas.height - height < factor
    assert 0 <= canvas.width - width < factor


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0,0,1,1", WHOLE),
        ("0,0.5,0.5,1", (0.0, 0.5, 0.5, 1.0)),
        (" -1, -.25 ,2 ,1e0", (-1.0, -0.25, 2.0, 1.0)),
    ],
)
def test_a_crop_is_four_numbers(text: str, box: Box) -> None:
    assert parse_crop(text) == box


@pytest.mark.parametrize(
    "text",
    ["", "0,0,1", "0,0,1,1,1", "0,0,x,1", "1,0,0,1", "0,1,1,1", "nan,0,1,1", "0,0,1,inf", "-1.1,0,1,1"],
)
def test_what_is_no_crop_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_crop(text)
    assert caught.value.message.startswith("--crop: ")
    assert caught.value.hint and "--crop 0,0.5,0.5,1" in caught.value.hint


@given(st.integers(16, 4000), st.integers(16, 4000))
def test_the_default_size_of_a_crop_is_that_of_the_part_alone(height: int, width: int) -> None:
    half = default_size(Size(2 * height, width), 512, 8, (0.5, 0.0, 1.0, 1.0))
    assert half == default_size(Size(height, width), 512, 8)
