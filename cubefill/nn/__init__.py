"""Nets, losses, the update step and checkpoints; nothing here knows a cube.

Tensors come in and go out. Start with `unet.py`; `checkpoint.py` holds the weights on disk.
"""
