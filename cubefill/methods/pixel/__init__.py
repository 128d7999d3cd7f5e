"""Methods that look at one pixel at a time, in numba.

A block comes in and is filled row by row. Start with `method.py`, then `linear.py`.
"""
