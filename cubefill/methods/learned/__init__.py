"""Methods that are a trained net, in torch.

A checkpoint and a block come in; passes of the net fill the block. Start with `method.py`.
"""
