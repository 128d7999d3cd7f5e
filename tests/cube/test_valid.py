import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cubefill.cube import valid
from cubefill.errors import CubeError


def classes(shape: tuple[int, ...], seed: int = 0, step: float = 10.0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    common = rng.choice([4, 5, 6, 7], shape)
    rare = rng.choice(12, shape)
    data = np.where(rng.random(shape) < 0.05, rare, common).astype("uint8")
    y = 1000 - step * np.arange(shape[-2])
    x = 500 + step * np.arange(shape[-1])
    dims = ("time", "y", "x")[-len(shape) :]
    return xr.DataArray(data, dims=dims, coords={"y": y, "x": x}, name="SCL")


def slow(scl: np.ndarray, clear: set[int], dilate: float, step: float) -> np.ndarray:
    """The definition: clear class, and no cloud or shadow centre within `dilate` metres."""
    spread = np.isin(scl, [3, 8, 9, 10])
    if spread.any():
        far = np.stack([_distance(s, step) for s in spread.reshape(-1, *scl.shape[-2:])])
        near = (far <= dilate * (1 + 1e-6)).reshape(scl.shape)
    else:
        near = np.zeros(scl.shape, bool)
    return np.isin(scl, list(clear)) & ~near


def _distance(where: np.ndarray, step: float) -> np.ndarray:
    if not where.any():
        return np.full(where.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~where)) * step


@pytest.mark.parametrize("dilate", [0.0, 10.0, 20.0, 30.0, 45.0, 100.0])
@pytest.mark.parametrize("snow", [False, True])
def test_equals_the_definition(dilate: float, snow: bool) -> None:
    scl = classes((3, 40, 33), seed=4)
    out = valid.from_scl(scl, dilate=dilate, snow=snow)
    want = slow(scl.values, {4, 5, 6, 7} | ({11} if snow else set()), dilate, 10.0)
    np.testing.assert_array_equal(out.values, want)
    assert out.dtype == bool


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([0.0, 20.0, 30.0, 70.0]),
    st.integers(0, 99),
)
def test_the_answer_does_not_depend_on_chunks(
    ny: int, nx: int, cy: int, cx: int, dilate: float, seed: int
) -> None:
    scl = classes((2, ny, nx), seed)
    want = valid.from_scl(scl, dilate=dilate, resolution=10)
    lazy = valid.from_scl(scl.chunk(time=1, y=cy, x=cx), dilate=dilate, resolution=10)
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), want)


def test_other_resolution_dims_and_classes() -> None:
    scl = classes((2, 20, 20), seed=2, step=20.0)
    turned = valid.from_scl(scl.transpose("y", "time", "x"), dilate=30)
    assert turned.dims == ("y", "time", "x")
    np.testing.assert_array_equal(
        turned.transpose("time", "y", "x"), slow(scl.values, {4, 5, 6, 7}, 30, 20.0)
    )
    only = valid.from_scl(scl, clear=(6,), dilate=0)
    np.testing.assert_array_equal(only, scl.values == 6)


def test_says_how_it_was_made() -> None:
    out = valid.from_scl(classes((8, 8)), snow=True, dilate=25)
    assert out.attrs["clear_classes"] == [4, 5, 6, 7, 11]
    assert out.attrs["snow_is_clear"] == 1
    assert out.attrs["dilation_m"] == 25.0
    assert "snow" in out.attrs["description"]
    assert "25 m" in out.attrs["description"]


@pytest.mark.parametrize(
    ("scl", "options", "message"),
    [
        (classes((8, 8)).astype("float32") + 0.5, {}, r"SCL holds \d\.5: expected whole class"),
        (classes((8, 8)).astype(str), {}, "expected classes 0 to 11"),
        (classes((8, 8)).rename(x="lon"), {}, "expected dimensions y and x"),
        (classes((8, 8)), {"dilate": -1}, "expected a radius in m"),
        (classes((8, 8)), {"dilate": float("nan")}, "expected a radius in m"),
        (classes((8, 8)), {"clear": (0, 4)}, "expected classes of SCL from 1"),
        (classes((8, 8)), {"clear": ()}, "expected classes of SCL"),
        (classes((8, 8)).drop_vars(["x", "y"]), {}, "resolution=10"),
    ],
)
def test_bad_input(scl: xr.DataArray, options: dict[str, object], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        valid.from_scl(scl, **options)  # type: ignore[arg-type]


def cube(scl: bool = True) -> xr.Dataset:
    c = classes((3, 6, 5)).assign_coords(
        time=np.array(["2020-01-01", "2020-01-06", "2020-01-11"], "datetime64[ns]")
    )
    ds = xr.Dataset({"B04": c.astype("float32") / 100})
    return ds.assign(SCL=c) if scl else ds


def test_apply_takes_what_there_is() -> None:
    ds = cube()
    xr.testing.assert_identical(valid.apply(ds), valid.from_scl(ds["SCL"]))
    mine = ds["B04"] > 0.05
    np.testing.assert_array_equal(valid.apply(ds.assign(valid=mine)), mine)
    np.testing.assert_array_equal(valid.apply(ds.assign(mine=mine), "mine"), mine)
    np.testing.assert_array_equal(valid.apply(ds, lambda d: d["B04"] > 0.05), mine)
    np.testing.assert_array_equal(valid.apply(ds, mine.values), mine)
    np.testing.assert_array_equal(valid.apply(ds, mine.transpose("x", "time", "y")), mine)
    field = np.eye(6, 5, dtype=bool)
    np.testing.assert_array_equal(valid.apply(ds, field), np.broadcast_to(field, (3, 6, 5)))
    dates = np.array([True, False, True])
    np.testing.assert_array_equal(valid.apply(ds, dates)[1], np.zeros((6, 5), bool))
    assert valid.apply(ds, mine.astype("uint8")).dtype == bool
    assert "given" in valid.apply(ds, mine.values).attrs["source"]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("clouds", "expected a variable of the cube .B04, SCL., .finite."),
        (np.ones((3, 6, 6), bool), "expected {'time': 3, 'y': 6, 'x': 5}"),
        (np.full((3, 6, 5), 0.3), "holds 0.3: expected True or 1 where clear"),
        (np.full((3, 6, 5), "clear"), "expected bool, True where clear"),
        (np.ones((1, 3, 6, 5), bool), "has 4 dimensions"),
        (lambda d: (d["B04"] > 0).assign_coords(x=d["x"] + 5), "other x coordinates"),
    ],
)
def test_apply_refuses(mask: object, message: str) -> None:
    with pytest.raises(CubeError, match=message):
        valid.apply(cube(), mask)  # type: ignore[arg-type]


def test_neither_scl_nor_valid() -> None:
    with pytest.raises(CubeError, match=r"neither `valid` nor `SCL`.*Pass valid='finite'"):
        valid.apply(cube(scl=False))
    assert valid.apply(cube(scl=False), "finite").all()


def test_clear_fraction() -> None:
    ds = cube().assign(valid=(("time",), [True, False, True]))
    np.testing.assert_array_equal(valid.clear_fraction(ds), [1, 0, 1])


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(["int16", "int64", "uint16", "float32", "float64", ">f4"]),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_number_type_of_classes_gives_the_same(
    dtype: str, chunk: int, lazy: bool, seed: int
) -> None:
    scl = classes((2, 8, 9), seed).assign_coords(
        time=np.array(["2020-01-01", "2020-01-06"], "datetime64[ns]")
    )
    other = scl.astype(dtype)
    far = (0, slice(0, 2), slice(0, 2))
    plain = scl.copy(deep=True)
    plain.values[far] = 0
    other.values[far] = np.nan if other.dtype.kind == "f" else 260  # not class 4
    ds = xr.Dataset({"B04": scl.astype("float32"), "SCL": other.chunk(x=chunk) if lazy else other})
    want = slow(plain.values, {4, 5, 6, 7}, 30, 10.0)
    np.testing.assert_array_equal(valid.apply(ds), want)
    np.testing.assert_array_equal(valid.apply(ds, {"SCL": (4, 5, 6, 7)}), want)
    np.testing.assert_array_equal(valid.apply(ds.rename(SCL="scl")), want)


def test_fractions_of_lazy_classes_are_refused_when_computed() -> None:
    ds = cube().astype("float32").chunk(y=2)
    ds["SCL"] = ds["SCL"] + 0.25
    lazy = valid.apply(ds)
    with pytest.raises(CubeError, match=r"SCL holds \d\.25"):
        lazy.compute()


def foreign() -> xr.Dataset:
    ds = cube(scl=False)
    rng = np.random.default_rng(3)
    dims = ("time", "y", "x")
    probability = rng.integers(0, 101, (3, 6, 5)).astype("float32")
    probability[0, 0] = np.nan
    return ds.assign(
        cloud_class=(dims, rng.integers(0, 4, (3, 6, 5)).astype("int8")),
        cloud_probability=(dims, probability),
        cover=("time", [5.0, 80.0, 10.0]),
    )


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("rule", "want"),
    [
        ({"cloud_class": (0, 3)}, lambda d: np.isin(d.cloud_class, (0, 3))),
        ({"cloud_class": 2}, lambda d: d.cloud_class == 2),
        ({"cloud_class": range(2)}, lambda d: d.cloud_class < 2),
        ({"cloud_probability": "< 40"}, lambda d: d.cloud_probability < 40),
        ({"cloud_probability": "<=40"}, lambda d: d.cloud_probability <= 40),
        ({"cloud_probability": " > 4e1 "}, lambda d: d.cloud_probability > 40),
        ({"cloud_probability": ">=40"}, lambda d: d.cloud_probability >= 40),
        ({"cloud_class": "== 1"}, lambda d: d.cloud_class == 1),
        (
            {"cloud_probability": "!= 7"},
            lambda d: (d.cloud_probability != 7) & d.cloud_probability.notnull(),
        ),
        (
            {"cloud_class": (0, 1), "cloud_probability": "< 60", "cover": "< 50"},
            lambda d: (d.cloud_class < 2) & (d.cloud_probability < 60) & (d.cover < 50),
        ),
    ],
)
def test_rules_of_layers(rule: dict[str, object], want: object, lazy: bool) -> None:
    ds = foreign()
    out = valid.apply(ds.chunk(y=4) if lazy else ds, rule)  # type: ignore[arg-type]
    assert isinstance(out.data, da.Array) == lazy
    np.testing.assert_array_equal(out, want(ds))  # type: ignore[operator]
    assert set(str(out.attrs["source"]).split(", ")) == set(rule)


@pytest.mark.parametrize("chunk", [None, 2, 5])
def test_other_layers_are_dilated_where_asked(chunk: int | None) -> None:
    ds = foreign()
    ds["cloud_class"] = (ds["cloud_class"].dims, np.zeros((3, 6, 5), "float32"))
    ds["cloud_class"][1, 2, 2] = 2
    ds["cloud_class"][2, 2, 2] = np.nan  # no data grows nowhere
    ds = ds if chunk is None else ds.chunk(y=chunk, x=chunk)
    out = valid.apply(ds, {"cloud_class": (0,), "dilate": 10})
    gone = np.argwhere(~out.values).tolist()
    assert gone == [[1, 1, 2], [1, 2, 1], [1, 2, 2], [1, 2, 3], [1, 3, 2], [2, 2, 2]]
    assert out.attrs["dilation_m"] == 10
    scl = cube()
    np.testing.assert_array_equal(
        valid.apply(scl, {"SCL": (4, 5), "dilate": 0}), scl["SCL"].isin((4, 5))
    )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "expected rules such as"),
        ({"dilate": 30}, "expected rules such as"),
        ({"fmask": (0,)}, "the cube has no fmask; it has B04, cloud_class"),
        ({"cloud_class": ()}, "expected class numbers such as"),
        ({"cloud_class": (0.5,)}, "expected class numbers such as"),
        ({"cloud_class": ("clear",)}, "expected class numbers such as"),
        ({"cloud_class": None}, "expected class numbers such as"),
        ({"cloud_probability": "40"}, "expected one of <= >= == != < > and a number"),
        ({"cloud_probability": "=< 40"}, "expected one of"),
        ({"cloud_probability": "< nan"}, "expected one of"),
        ({"cloud_probability": "< 1.2.3"}, "expected one of"),
        ({"cloud_class": (0,), "dilate": -3}, "expected a radius"),
        ({"cover": "< 50", "dilate": 30}, "does not lie on y and x"),
        ({"time": "< 50"}, "expected numbers"),
    ],
)
def test_rules_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        valid.apply(foreign(), rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("lazy", [False, True])
def test_finite_keeps_what_any_band_saw(lazy: bool) -> None:
    ds = cube(scl=False).assign(B08=lambda d: d["B04"] + 1)
    ds["B04"][0, 0, 0] = np.nan
    ds["B04"][1, 1, 1] = ds["B08"][1, 1, 1] = np.nan
    ds["B08"][2, 2, 2] = np.inf
    out = valid.apply(ds.chunk(y=3) if lazy else ds, "finite")
    assert np.argwhere(~out.values).tolist() == [[1, 1, 1]]
    only = valid.apply(ds, "finite", bands=("B04",))
    assert np.argwhere(~only.values).tolist() == [[0, 0, 0], [1, 1, 1]]
