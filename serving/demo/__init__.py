"""The demo: small models that are served without a model hub."""

from pathlib import Path

DEMO_CONFIG = Path(__file__).with_name("demo.yaml")
