"""The plots of a backtest's report, as SVG to stand in the page. The only module that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

# The same figures give the same file, and text stays text.
mpl.rcParams.update({"svg.hashsalt": "ryml", "svg.fonttype": "none", "font.size": 9})
_CHOSEN, _OTHER, _POPULARITY = "#2a7f4f", "#9fb8c8", "#c98b3c"


def bars(names: Sequence[str], measures: Mapping[str, Sequence[float]], *, chosen: int) -> str:
    """Draw one panel of bars per measure, a bar per model, the first being popularity; return the SVG element."""
    figure = Figure(figsize=(4.6 * len(measures), 0.6 + 0.32 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    colors = [_POPULARITY if place == 0 else _CHOSEN if place == chosen else _OTHER for place in range(len(names))]
    for panel, (measure, values) in zip(panels, measures.items(), strict=True):
        drawn = panel.barh(range(len(names)), values, color=colors)
        panel.bar_label(drawn, fmt="%.4f", padding=2, fontsize=8)
        panel.set_title(measure)
        panel.set_yticks(range(len(names)), names)
        panel.margins(x=0.2)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    return _svg(figure)


def scatter(names: Sequence[str], across: Sequence[float], up: Sequence[float], *, labels: tuple[str, str]) -> str:
    """Draw each model as a numbered point: what is gained by one measure against another; return the SVG element."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.scatter(across, up, color=_CHOSEN)
    for place, name in enumerate(names):
        panel.annotate(name, (across[place], up[place]), textcoords="offset points", xytext=(4, 3))
    panel.set_xlabel(labels[0])
    panel.set_ylabel(labels[1])
    panel.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
