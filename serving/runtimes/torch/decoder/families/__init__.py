"""One file per family of architectures: where its parts are and how its layers compute.

Imports no torch: a configuration is checked by them.
"""
