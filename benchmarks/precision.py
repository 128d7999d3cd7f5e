"""Types that nets compute in, and how to ask torch for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cubefill.methods.learned.passes import fast_bfloat16


def precisions(device: torch.device) -> tuple[str, ...]:
    """What a device computes in by hardware."""
    if device.type == "cuda":
        ok = torch.cuda.get_device_capability(device) >= (8, 0)
        return ("float32", "TF32", "bfloat16") if ok else ("float32",)
    return ("float32", "bfloat16") if device.type == "cpu" and fast_bfloat16() else ("float32",)


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Float32 as it is, or TF32 in products and convolutions; bfloat16 is left to autocast."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "TF32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def gpu_name(device: torch.device) -> str:
    """Name of a GPU, "" without one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""
