"""``python -m loadtests.report RUN [LATER]``."""

import typer

from loadtests.report.command import report

if __name__ == "__main__":
    typer.run(report)
