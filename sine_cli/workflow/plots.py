"""Plots for people, as PNG bytes."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"

BETTER = {"alignment": "(higher is better)", "distance": "(lower is nearer)"}
"""Which way is better, of the measures that have one."""

MOST_NAMED = 10
"""Lines of a panel that its legend names; of more, only every second, third, ... is named."""


@contextmanager
def _own_style() -> Iterator[None]:
    """matplotlib as it comes: a `matplotlibrc` in the working folder, perhaps a stranger's, can run LaTeX."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@_own_style()
def loss_plot(losses: list[float]) -> bytes:
    """Loss against steps: every step faint, and a running mean over a twentieth of the run."""
    from matplotlib.figure import Figure

    window = max(1, len(losses) // 20)
    steps = range(1, len(losses) + 1)
    means = [sum(losses[max(0, i - window) : i]) / min(i, window) for i in steps]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#b9c4d0", linewidth=0.8, label="each step")
    axes.plot(steps, means, color="#1f5fa8", linewidth=1.8, label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None), xlim=(1, max(2, len(losses))))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _png(figure)


Cell = tuple[int, float]
"""Switch step K and the weight that the rows vary."""


@_own_style()
def tradeoff_plot(
    measures: dict[str, dict[Cell, float]], title: str, letter: str = "v", label: str = "base weight v"
) -> bytes | None:
    """Measures of a grid over K, a line for each v, and over v, a line for each K (the paper's Fig. 8).

    Args:
        measures: name: the value of every cell.
        letter, label: the short and the long name of the weight, where it is another than v.

    Returns:
        None where neither K nor the weight has two values: there is nothing to draw over.
    """
    from matplotlib.figure import Figure

    cells = [*next(iter(measures.values()))]
    steps, weights = sorted({K for K, _ in cells}), sorted({v for _, v in cells})
    over_K = [(f"{letter} = {v:g}", [(K, v) for K in steps]) for v in weights]
    over_v = [(f"K = {K}", [(K, v) for v in weights]) for K in steps]
    panels = [("switch step K", steps, over_K)] if len(steps) > 1 else []
    panels += [(label, weights, over_v)] if len(weights) > 1 else []
    if not panels:
        return None
    figure = Figure(figsize=(5.2 * len(panels), 3.1 * len(measures) + 0.5), layout="constrained")
    rows = figure.subplots(len(measures), len(panels), squeeze=False)
    for row, (measure, values) in zip(rows, measures.items(), strict=True):
        for axes, (axis, places, lines) in zip(row, panels, strict=True):
            _draw_lines(axes, places, [(name, [values[cell] for cell in line]) for name, line in lines])
            axes.set(xlabel=axis, ylabel=f"{measure} {BETTER.get(measure, '')}".rstrip())
    # A prompt or a scorer's path may hold what matplotlib would take for mathematics.
    figure.suptitle("\n".join(textwrap.wrap(title, 60 * len(panels))), fontsize="medium", parse_math=False)
    return _png(figure)


def _draw_lines(axes: "Axes", places: Sequence[float], lines: list[tuple[str, list[float]]]) -> None:
    """Named lines over the same places, told apart without colour too."""
    from matplotlib import colormaps

    # Viridis goes from dark to light, for every eye and on grey paper; its lightest end is left out.
    colours = colormaps["viridis"]([0.85 * i / max(1, len(lines) - 1) for i in range(len(lines))])
    named_every = -(-len(lines) // MOST_NAMED)
    for i, ((name, values), colour) in enumerate(zip(lines, colours, strict=True)):
        axes.plot(
            places,
            values,
            color=colour,
            linewidth=1.4,
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            label=name if i % named_every == 0 else None,
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box in its place says it
        FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
