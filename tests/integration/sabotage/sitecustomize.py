"""Python imports this at its start where this folder is on its path: adds the sabotaged variant."""

from serving.runtimes import VARIANTS

VARIANTS["int2"] = "tests.integration.sabotage.int2:VARIANT"
