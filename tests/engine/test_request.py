import pytest

from cubefill.engine.request import request
from cubefill.errors import CubeError, DeviceError, MethodError
from cubefill.methods.contract import Needs
from tests.shared.strategies import Mean, cube


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs(bands=("B04", "B11")), r"needs band B11; the cube has B04, B08. Load it with bands"),
        (Needs(sar=True), r"no Sentinel-1. Load it with sar=True"),
        (Needs(dem=True), r"needs DEM.*dem=True"),
        (Needs(min_dates=20), r"needs 20 distinct dates; the cube has 7"),
    ],
)
def test_what_a_method_lacks_is_named(needs: Needs, message: str) -> None:
    class Picky(Mean):
        pass

    Picky.needs = needs
    with pytest.raises(MethodError, match=message):
        request(cube(), Picky())


def test_other_refusals() -> None:
    with pytest.raises(MethodError, match=r"gives no standard deviation"):
        request(cube(), Mean(), std=True)
    with pytest.raises(MethodError, match=r"Use ds.gapfill\('linear', quantiles="):
        request(cube(), Mean(), quantiles=(0.05, 0.95))
    with pytest.raises(CubeError, match=r"valid"):
        request(cube().drop_vars("valid"), "linear")
    with pytest.raises(DeviceError, match=r"expected 'auto', 'cpu', 'cuda' or 'mps'"):
        request(cube(), "linear", device="tpu")


def test_an_absent_accelerator_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"no such accelerator.*device='auto'"):
        request(cube(), "linear", device="cuda")
