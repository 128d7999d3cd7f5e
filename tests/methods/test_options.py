"""Options of every method: what one cannot take is refused when it is made, in our words."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.errors import CubefillError, MethodError
from cubefill.methods import METHODS, options_of, resolve
from cubefill.methods.registry import APPLICATIONS
from tests.shared.series_reference import block, one

NAMES = [*METHODS, *APPLICATIONS]
CLASSIC = [n for n, target in METHODS.items() if ".pixel." in target]

numbers = st.one_of(
    st.sampled_from([np.inf, -np.inf, np.nan, 0, -1, 1, 2, 3, 1e300, 1e-300, -0.0, 10**30]),
    st.integers(-3, 60),
    st.floats(allow_nan=True, allow_infinity=True),
)
anything = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.sampled_from(
        ["30D", "vcurve", "median", "cpu", "float32", b"30D", [], {}, (), [1], object()]
    ),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_option_is_taken_or_refused_in_our_words(name: str, data: st.DataObject) -> None:
    option = data.draw(st.sampled_from(options_of(type(resolve(name)))))
    value = data.draw(anything)
    with suppress(CubefillError):  # any other error is a fault
        resolve(name, **{option: value})


@pytest.mark.parametrize("name", CLASSIC)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_is_taken_fills_with_numbers(name: str, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(options_of(type(resolve(name)))), min_size=1))
    options = {o: data.draw(anything) for o in sorted(chosen)}
    try:
        method: Any = resolve(name, **options)
    except MethodError:
        return
    b = block(16, (2, 20), gap=0.3)
    out = one(method.prepare(b), b)
    assert out.flag is not None
    for a in out.bands.values():
        np.testing.assert_array_equal(np.isnan(a), out.flag == 8)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("linear", {"smooth": 1}, r"Linear\(smooth=1\): expected True or False; pass smooth=False"),
        ("harmonic", {"orders": 2.0}, r"orders=2.0\): expected a whole number; pass orders=2"),
        ("harmonic", {"ridge": np.inf}, r"ridge=inf\): expected a number; pass ridge=0.001"),
        ("whittaker", {"lam": None}, r"lam=None\): expected a number or text"),
        ("whittaker", {"lam": 1e13}, r"lam=1.*pass lam=1000"),
        ("utilise", {"precision": "half"}, r"expected 'float32' or 'bfloat16'; pass precision="),
        ("utilise", {"batch": "8"}, r"batch='8'\): expected a whole number; pass batch=0"),
        ("cnnrnn", {"assumed_coherence": np.nan}, r"expected a number; pass assumed_coherence=0.0"),
    ],
)
def test_the_words_of_a_refusal(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        resolve(name, **options)
