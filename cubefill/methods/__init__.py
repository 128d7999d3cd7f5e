"""What a method is, and every method that fills gaps.

A method declares what it needs and turns blocks into filled blocks. Start with `contract.py`; then read one
method, such as `pixel/linear.py`.
"""
