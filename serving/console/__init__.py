"""The web console: files that the gateway serves as they are, modules of JavaScript by page."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where they lie."""
