"""Checkpoints that others have quantized: how each library writes its weights, and what they are.

Each is read from its safetensors, without the library itself.
"""

from serving.quantized_checkpoints.forms import integers_of, why_not_kept, why_not_read
from serving.quantized_checkpoints.layers import shapes_of_model
from serving.quantized_checkpoints.unread import unread_part

__all__ = ["integers_of", "shapes_of_model", "unread_part", "why_not_kept", "why_not_read"]
