"""``python -m loadtests PLAN``."""

import typer

from loadtests.cli import loadtest

if __name__ == "__main__":
    typer.run(loadtest)
