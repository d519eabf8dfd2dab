"""What the pictures of tear-sheets share: colours, an empty page, and writing it."""

from pathlib import Path
from typing import Any

from tesserec.environment import require_library
from tesserec.errors import ConfigError

COLORS = ("#1b6ca8", "#e07b39", "#3a9d5d", "#8e5ea2", "#b5483a", "#6b7280", "#c4a000", "#2a9d9d", "#d16ba5", "#5b4a3a")
GREY = "#9aa1a9"


def page(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A matplotlib figure, and its panels row by row.

    Args:
        size: width and height in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    drawing = require_library("matplotlib", extra="plot", purpose="Drawing a tear-sheet", module="matplotlib.figure")
    figure = drawing.Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    return figure, panels


def write_picture(figure: Any, path: Path, *, dpi: int = 130) -> None:
    """Write the figure; the suffix of `path` decides the format.

    Raises:
        ConfigError: the suffix names no format of pictures, or the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}. Use a name that ends in .png, .svg or .pdf.") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Choose a folder that exists and may be written to."
        ) from None
