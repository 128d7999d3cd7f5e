"""What is done with a filled cube.

Filled series come in; events come out. Start with `mowing.py`.
"""
