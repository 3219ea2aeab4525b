"""Generators of the runtime ``openvino``: a compiled graph with paged attention as a decoder."""
