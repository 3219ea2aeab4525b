"""The command line, ``quantserve``."""

from __future__ import annotations

import typer

from loadtests.cli import loadtest
from loadtests.report.command import report
from serving.cli.artifacts import artifacts_app
from serving.cli.check import check
from serving.cli.compare import compare_command
from serving.cli.evaluate import evaluate_command
from serving.cli.models import models
from serving.cli.node import node
from serving.cli.prepare import prepare_command
from serving.cli.quality import quality_command
from serving.cli.serve import serve
from serving.cli.sizes import sizes_command
from serving.cli.variants import variants_command

app = typer.Typer(
    name="quantserve",
    help="Serve each model in several numeric variants, and see what each costs and loses.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(serve)
app.command()(node)
app.command()(models)
app.command()(check)
app.command("prepare")(prepare_command)
app.command("variants")(variants_command)
app.command("sizes")(sizes_command)
app.add_typer(artifacts_app, name="artifacts")
app.command("compare")(compare_command)
app.command("quality")(quality_command)
app.command("evaluate")(evaluate_command)
app.command()(loadtest)
app.command()(report)
