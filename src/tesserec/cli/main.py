"""The entry point: nothing heavy is imported until a verb runs, so that `--help` answers at once."""

import io
import os
import sys

import typer

from tesserec import __version__
from tesserec.cli.bench import bench
from tesserec.cli.compare import compare
from tesserec.cli.demo import demo
from tesserec.cli.doctor import doctor
from tesserec.cli.evaluate import evaluate
from tesserec.cli.inspect import inspect
from tesserec.cli.join import join
from tesserec.cli.lm import lm
from tesserec.cli.misses import misses
from tesserec.cli.output import reporting
from tesserec.cli.prepare import prepare
from tesserec.cli.recipes import recipes
from tesserec.cli.recommend import recommend
from tesserec.cli.run import run

# Threads of numerical libraries that wait for each other spin for some microseconds, then sleep. By default they spin
# for milliseconds, which makes training ten times as slow on a machine that does other work; sleeping at once makes it
# half as fast on a quiet one. Read when torch is loaded, hence here.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for verb in (demo, prepare, join, recipes, run, bench, inspect, evaluate, compare, misses, recommend, doctor):
    app.command()(reporting(verb))
app.add_typer(lm)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Recommendation with semantic IDs: from a raw log to ranked items."""


def main() -> None:
    """The `tesserec` command."""
    for stream in (sys.stdout, sys.stderr):  # titles and paths hold characters that some terminals cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
