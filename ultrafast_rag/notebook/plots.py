"""A plot with words for those who do not see it: notebooks show it, screen readers say it."""

from __future__ import annotations

import base64
import io
from typing import Any

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.notebook.markup import escape

DPI = 90  # of a figure of 8 inches: as wide as a cell


class Plot:
    """A matplotlib figure as a picture with an alternative text; white behind it, so that it reads in the dark too."""

    def __init__(self, figure: Any, alt: str) -> None:
        if not alt.strip():
            raise ConfigError("a plot needs words that say what it shows: Plot(figure, 'nDCG@10 by alpha, highest at 0.65')")
        self.alt = alt
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
        self.png = drawn.getvalue()

    def __repr__(self) -> str:
        return f"(plot) {self.alt}"

    def _repr_html_(self) -> str:
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"
        return f'<img src="{source}" alt="{escape(self.alt)}" style="max-width:100%;background:#fff;border-radius:4px">'
