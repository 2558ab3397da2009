"""Position: where each latent cell lies in the picture."""

import pytest
import torch

from sine_cli.method.position import FREQUENCIES, WHOLE, Position, fourier_features


def box(*corners: float) -> torch.Tensor:
    return torch.tensor([corners])


def test_a_new_position_adds_nothing() -> None:
    position = Position(channels=6, frequencies=FREQUENCIES)
    added = position(torch.tensor([WHOLE, (0.1, 0.2, 0.3, 0.4)]), 5, 7)
    assert added.shape == (2, 6, 5, 7)
    assert torch.count_nonzero(added) == 0


def test_a_new_position_learns_from_its_first_step() -> None:
    position = Position(channels=2, frequencies=3)
    position(box(*WHOLE), 4, 4).sum().backward()
    assert position.projection.weight.grad is not None
    assert torch.count_nonzero(position.projection.weight.grad) > 0


def test_features_have_sine_and_cosine_of_every_octave_of_both_axes_within_one() -> None:
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values[:, [0, 1, 2, 3]]
    features = fourier_features(boxes, 9, 13, frequencies=8)
    assert features.shape == (20, 4 * 8, 9, 13)
    assert features.abs().max() <= 1
    assert features.abs().max() > 0.99


def test_features_are_the_formula_written_out() -> None:
    h1, w1, h2, w2 = 0.2, 0.1, 0.7, 0.9
    features = fourier_features(box(h1, w1, h2, w2), 3, 2, frequencies=2)[0]
    for i in range(3):
        for j in range(2):
            y = torch.tensor(h1 + (i + 0.5) / 3 * (h2 - h1))
            x = torch.tensor(w1 + (j + 0.5) / 2 * (w2 - w1))
            pi = torch.pi
            expected = [f(k * pi * u) for u in (y, x) for f in (torch.sin, torch.cos) for k in (1, 2)]
            torch.testing.assert_close(features[:, i, j], torch.stack(expected))


@pytest.mark.parametrize(
    ("part", "rows", "columns"),
    [
        ((0.25, 0.5, 0.75, 1.0), slice(8, 24), slice(16, 32)),
        ((0.0, 0.0, 0.5, 0.25), slice(0, 16), slice(0, 8)),
        ((5 / 32, 9 / 32, 8 / 32, 31 / 32), slice(5, 8), slice(9, 31)),
    ],
)
def test_features_of_a_part_are_that_part_of_the_whole_s(
    part: tuple[float, float, float, float], rows: slice, columns: slice
) -> None:
    whole = fourier_features(box(*WHOLE), 32, 32, FREQUENCIES)[:, :, rows, columns]
    cut = fourier_features(box(*part), rows.stop - rows.start, columns.stop - columns.start, FREQUENCIES)
    torch.testing.assert_close(cut, whole, rtol=0, atol=2e-4)


def test_a_canvas_larger_than_the_picture_keeps_every_cell_of_the_picture_where_it_was() -> None:
    """As an edit does whose size is no multiple of the cells: what is cropped away lies beyond 1."""
    whole = fourier_features(box(*WHOLE), 9, 12, FREQUENCIES)
    canvas = fourier_features(box(0.0, 0.0, 10 / 9, 13 / 12), 10, 13, FREQUENCIES)
    torch.testing.assert_close(canvas[:, :, :9, :12], whole, rtol=0, atol=2e-4)


def test_rows_vary_downwards_and_columns_sideways() -> None:
    features = fourier_features(box(*WHOLE), 6, 8, frequencies=3)[0]
    of_rows, of_columns = features[:6], features[6:]
    assert torch.equal(of_rows, of_rows[:, :, :1].expand_as(of_rows))
    assert torch.equal(of_columns, of_columns[:, :1].expand_as(of_columns))
    assert len({tuple(cell.tolist()) for cell in features.flatten(1).T}) == 6 * 8
