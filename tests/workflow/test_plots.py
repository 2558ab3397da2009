"""The trade-off's plot: which panels there are, and that its words are taken as they are."""

import io

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from sine_cli.workflow.plots import Cell, tradeoff_plot

TITLE = "alignment by mini, distance: features of mini"


def measures(steps: list[int], weights: list[float]) -> dict[str, dict[Cell, float]]:
    alignment = {(K, v): K / 1000 + v for v in weights for K in steps}
    return {"alignment": alignment, "distance": {cell: 2 - value for cell, value in alignment.items()}}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are drawn."""
    figures: list[matplotlib.figure.Figure] = []

    class Watched(matplotlib.figure.Figure):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)  # pyright: ignore[reportArgumentType]
            figures.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Watched)
    return figures


@pytest.mark.parametrize(
    ("steps", "weights", "labels", "lines"),
    [
        ([400, 0, 800], [0.7, 0.3], ["switch step K", "base weight v"], [2, 3]),
        ([0, 400], [0.7], ["switch step K"], [1]),
        ([400], [0.3, 0.5, 0.7], ["base weight v"], [1]),
    ],
)
def test_each_axis_with_several_values_has_a_panel_a_measure(
    drawn: list[matplotlib.figure.Figure],
    steps: list[int],
    weights: list[float],
    labels: list[str],
    lines: list[int],
) -> None:
    png = tradeoff_plot(measures(steps, weights), TITLE)
    assert png
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
    (figure,) = drawn
    assert figure.get_suptitle() == TITLE
    panels = figure.axes
    assert [panel.get_xlabel() for panel in panels] == labels * 2
    assert [panel.get_ylabel() for panel in panels] == [
        measure for measure in ("alignment (higher is better)", "distance (lower is nearer)") for _ in labels
    ]
    assert [len(panel.lines) for panel in panels] == lines * 2


def test_a_line_is_a_row_or_a_column_of_the_grid_in_order(drawn: list[matplotlib.figure.Figure]) -> None:
    tradeoff_plot(measures([400, 0, 800], [0.7, 0.3]), TITLE)
    over_K, over_v, *_ = drawn[0].axes
    assert [line.get_label() for line in over_K.lines] == ["v = 0.3", "v = 0.7"]
    assert np.asarray(over_K.lines[0].get_xdata()).tolist() == [0, 400, 800]
    assert np.asarray(over_K.lines[0].get_ydata()).tolist() == pytest.approx([0.3, 0.7, 1.1])
    assert [line.get_label() for line in over_v.lines] == ["K = 0", "K = 400", "K = 800"]
    assert np.asarray(over_v.lines[1].get_ydata()).tolist() == pytest.approx([0.7, 1.1])


def test_a_single_cell_shows_no_trade_off() -> None:
    assert tradeoff_plot(measures([400], [0.7]), TITLE) is None


def test_a_legend_stays_within_its_panel(drawn: list[matplotlib.figure.Figure]) -> None:
    tradeoff_plot(measures(list(range(0, 1001, 25)), [0.3, 0.7]), TITLE)
    _, over_v, *_ = drawn[0].axes
    legend = over_v.get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == [
        f"K = {K}" for K in range(0, 1001, 125)
    ]


def test_a_title_is_no_mathematics(drawn: list[matplotlib.figure.Figure]) -> None:
    assert tradeoff_plot(measures([0, 400], [0.3]), "alignment by /home/$\\frac{$/clip")
    assert drawn[0].get_suptitle() == "alignment by /home/$\\frac{$/clip"
