"""Dashboards as data: the Python files here are rendered to ``dashboards/*.json``."""
