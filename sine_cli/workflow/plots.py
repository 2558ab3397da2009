"""Plots for people, as PNG bytes."""

import io


def loss_plot(losses: list[float]) -> bytes:
    """Loss against steps: every step faint, and a running mean over a twentieth of the run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
