import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill import stac
from cubefill.errors import CatalogueError
from cubefill.stac import items as stac_items
from cubefill.stac.items import Offset, offset_of
from cubefill.stac.safe import from_safe
from tests.shared.stac_cases import item

RASTER: dict[str, Any] = {"raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}]}
NO_OFFSET: dict[str, Any] = {"raster:bands": [{"scale": 1e-4, "offset": 0}]}
BANDS11: dict[str, Any] = {"bands": [{"name": "B02", "raster:scale": 1e-4, "raster:offset": -0.1}]}
ON_ASSET: dict[str, Any] = {"raster:scale": 1e-4, "raster:offset": -0.1}
IN_COUNTS: dict[str, Any] = {"raster:bands": [{"scale": 1e-4, "offset": -1000}]}
UNAWARE: dict[str, Any] = {"raster:bands": [{"data_type": "uint16", "scale": 1.0, "offset": 0.0}]}
IN_TEXT: dict[str, Any] = {"raster:bands": [{"scale": "0.0001", "offset": "-0.1"}]}
NO_NUMBERS: dict[str, Any] = {"raster:bands": [{"scale": "?", "offset": "nan", "nodata": "nan"}]}
NEW: dict[str, Any] = {"s2:processing_baseline": "05.09"}
OLD: dict[str, Any] = {"s2:processing_baseline": "02.07"}
APPLIED: dict[str, Any] = {"earthsearch:boa_offset_applied": True}
NOT_APPLIED: dict[str, Any] = {"earthsearch:boa_offset_applied": False}


@pytest.mark.parametrize(
    ("asset", "properties", "counts", "rule"),
    [
        (RASTER, NEW | APPLIED, 0, "boa_offset_applied"),
        (RASTER, NEW | NOT_APPLIED, -1000, "band metadata"),
        (RASTER, OLD, -1000, "band metadata"),
        (NO_OFFSET, NEW, 0, "band metadata"),
        (BANDS11, NEW, -1000, "band metadata"),
        (ON_ASSET, {}, -1000, "band metadata"),
        (IN_COUNTS, NEW, -1000, "band metadata"),
        ({}, NEW, -1000, "processing baseline >= 04.00"),
        ({}, {"s2:processing_baseline": "04.00"}, -1000, "processing baseline >= 04.00"),
        ({}, {"s2:processing_baseline": "03.01"}, 0, "processing baseline < 04.00"),
        ({}, NEW | APPLIED, 0, "boa_offset_applied"),
        ({"raster:bands": [{"nodata": 0}]}, NEW, -1000, "processing baseline >= 04.00"),
        ({"raster:bands": [{"scale": 1e-4}]}, NEW, -1000, "processing baseline >= 04.00"),
        ({}, {}, 0, "no metadata"),
        ({}, {"datetime": "2023-05-01T10:50:31Z"}, -1000, "acquired since baseline 04.00"),
        ({}, {"sentinel:boa_offset_applied": "true"} | NEW, 0, "boa_offset_applied"),
        (UNAWARE, NEW, -1000, "processing baseline >= 04.00"),
        (UNAWARE, OLD, 0, "processing baseline < 04.00"),
        (IN_TEXT, NEW, -1000, "band metadata"),
        (NO_NUMBERS, NEW, -1000, "processing baseline >= 04.00"),
    ],
)
def test_offset_follows_the_rules(
    asset: dict[str, Any], properties: dict[str, Any], counts: float, rule: str
) -> None:
    one = item(asset=asset, **properties)
    assert offset_of(one, one.assets["blue"]) == Offset(counts, 1e-4, rule)


def test_offset_of_the_caller() -> None:
    one = item(asset=RASTER, **NEW)
    blue = one.assets["blue"]
    assert offset_of(one, blue, False).counts == 0
    assert offset_of(one, blue, -500).counts == -500
    assert offset_of(one, blue, lambda i: -1.0 * len(i.assets)).counts == -4


def test_reflectance_stored_as_float_has_scale_1() -> None:
    one = item(asset={"raster:bands": [{"data_type": "float32"}]}, **NEW)
    assert offset_of(one, one.assets["blue"]) == Offset(0, 1.0, "stored as floats")


@pytest.mark.parametrize(
    ("name", "properties", "want"),
    [
        ("a", {"s2:processing_baseline": "05.10"}, 5.10),
        ("a", {"processing:version": "05.09"}, 5.09),
        ("a", {"processing:version": "N0511"}, 5.11),
        ("S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454", {}, 4.0),
        ("a", {"s2:product_uri": "S2B_MSIL2A_20180101T1_N0206_R051_T31UDS_2.SAFE"}, 2.06),
        ("S2A_31UDS_20210501_0_L2A", {}, None),
        ("a", {"sentinel:product_id": "S2A_MSIL2A_20230501T105031_N0509_R051_T31UDS_1"}, 5.09),
        ("a", {"s2:l1c": "S2A_MSIL1C_20180101T1_N0206_R051_T31UDS_2.SAFE"}, None),
        ("a", {"processing:version": "02.11", "s2:x": "S2A_MSIL2A_1_N0500_R051_T31UDS_2"}, 5.0),
        ("a", {"processing:version": "02.11", "datetime": "2023-01-01T00:00:00Z"}, None),
        ("a", {"processing:version": "02.11"}, 2.11),
        ("a", {"s2:processing_baseline": "99.99"}, None),
        ("a", {"s2:processing_baseline": True}, None),
        ("a", {"s2:processing_baseline": "Sen2Cor 2.11.0"}, None),
    ],
)
def test_baseline(name: str, properties: dict[str, Any], want: float | None) -> None:
    assert stac_items.baseline(item(name, **properties)) == want


PROPERTIES: tuple[str, ...] = (
    "s2:processing_baseline",
    "sentinel:processing_baseline",
    "processing:version",
)
PROPERTIES += ("sentinel2:processing_baseline", "processing_baseline", "processingBaseline")


@settings(deadline=None, max_examples=200)
@given(
    major=st.sampled_from([4, 5]),
    minor=st.integers(0, 99),
    key=st.sampled_from(PROPERTIES),
    spelling=st.sampled_from([str.upper, str.lower, "{:>8} ".format, "{} ".format]),
    form=st.sampled_from(
        ["{:02d}.{:02d}", "{}.{:02d}", "N{:02d}{:02d}", "{:02d}{:02d}", "{}{:02d}"]
    ),
    as_number=st.booleans(),
)
def test_a_baseline_is_read_however_it_is_written(
    major: int, minor: int, key: str, spelling: Any, form: str, as_number: bool
) -> None:
    value = major + minor / 100 if as_number else spelling(form.format(major, minor))
    properties: dict[str, Any] = {key: value}
    one = item(**properties)
    assert stac_items.baseline(one) == pytest.approx(major + minor / 100)
    assert offset_of(one, one.assets["blue"]).counts == -1000


def test_the_address_of_an_asset_says_the_baseline() -> None:
    one = item("mine")
    one.assets["red"].href = "s3://b/S2B_MSIL2A_20180501T105031_N0500_R051_T31UDS_2.SAFE/B04.jp2"
    assert stac_items.baseline(one) == 5.0


@pytest.mark.parametrize(
    ("name", "properties", "want"),
    [
        ("x", {"grid:code": "MGRS-1CCV"}, "01CCV"),
        (
            "x",
            {"sentinel:utm_zone": 1, "sentinel:latitude_band": "C", "sentinel:grid_square": "CV"},
            "01CCV",
        ),
        ("x", {"grid:code": "MGRS-31UDS"}, "31UDS"),
        ("x", {"s2:mgrs_tile": "31UDS"}, "31UDS"),
        (
            "x",
            {"mgrs:utm_zone": 31, "mgrs:latitude_band": "U", "mgrs:grid_square": "DS"},
            "31UDS",
        ),
        ("S2A_31UDS_20210501_0_L2A", {}, "31UDS"),
        ("S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454", {}, "29UNU"),
        ("S2A_32631_20210501_0_L2A", {}, None),
    ],
)
def test_tile(name: str, properties: dict[str, Any], want: str | None) -> None:
    assert stac_items.tile_of(item(name, **properties)) == want


@pytest.mark.parametrize(
    ("collection", "keys", "properties", "want"),
    [
        ("sentinel-2-l2a", ("red", "scl", "visual"), {}, "optical"),
        ("sentinel-2-l2a", ("B04_10m", "SCL_20m"), {}, "optical"),
        ("sentinel-2-l2a", ("b04",), {}, "optical"),
        ("mine", ("B04",), {}, "optical"),
        ("sentinel-2-l1c", ("red",), {}, None),
        ("landsat-c2-l2", ("red", "nir08"), {"platform": "landsat-8"}, None),
        ("sentinel-1-rtc", ("vv", "vh"), {}, "sar"),
        ("sentinel-1-grd", ("vv", "vh"), {}, None),
        ("cop-dem-glo-30", ("data",), {}, "dem"),
        ("mine", ("elevation",), {}, "dem"),
        ("esa-worldcover", ("map",), {}, None),
    ],
)
def test_kind(
    collection: str, keys: tuple[str, ...], properties: dict[str, Any], want: str | None
) -> None:
    assert stac_items.kind(item(collection=collection, keys=keys, **properties)) == want


@pytest.mark.parametrize(
    ("keys", "band", "resolution", "want"),
    [
        (("B02_10m", "B02_20m", "B02_60m"), "B02", 10, "B02_10m"),
        (("B02_10m", "B02_20m", "B02_60m"), "B02", 20, "B02_20m"),
        (("B02_10m", "B02_20m", "B02_60m"), "B02", 30, "B02_20m"),
        (("B02_10m", "B02_20m", "B02_60m"), "B02", 60, "B02_60m"),
        (("B05_20m", "B05_60m"), "B05", 10, "B05_20m"),
        (("red-jp2", "red"), "B04", 10, "red"),
        (("red-jp2",), "B04", 10, "red-jp2"),
        (("scl",), "B04", 10, None),
    ],
)
def test_the_asset_that_suits_the_resolution(
    keys: tuple[str, ...], band: str, resolution: float, want: str | None
) -> None:
    one = item(keys=keys)
    for key, asset in one.assets.items():
        asset.href = f"/data/{key}.jp2" if key.endswith("jp2") else asset.href
    found = stac_items.find_asset(one, band, resolution)
    assert (found[0] if found else None) == want


def test_assets_that_are_no_band() -> None:
    hidden = item(keys=("red",), asset={"roles": ["overview"]})
    assert stac_items.find_asset(hidden, "B04", 10) is None
    named = item(keys=("asset1",), asset={"eo:bands": [{"name": "B8A"}]})
    assert stac_items.name_of("asset1", named.assets["asset1"]) == "B8A"
    many = item(keys=("img",), asset={"eo:bands": [{"name": "B04"}, {"name": "B03"}]})
    assert stac_items.name_of("img", many.assets["img"]) is None


def test_of_copies_the_highest_baseline_stays() -> None:
    old = item("a_31UDS_0", **OLD, updated="2025-01-01T00:00:00Z")
    new = item("a_31UDS_1", **NEW, updated="2018-01-01T00:00:00Z")
    other = item("a_31UDT_0", **OLD)
    kept, dropped = stac_items.resolve_duplicates([old, new, other])
    assert [i.id for i in kept] == ["a_31UDS_1", "a_31UDT_0"]
    assert [(d.item, d.reason) for d in dropped] == [
        ("a_31UDS_0", "baseline 02.07: a_31UDS_1 has 05.09 of the same scene")
    ]


def test_of_equal_baselines_the_latest_stays() -> None:
    first = item("a_31UDS_0", **NEW, updated="2024-01-01T00:00:00Z")
    second = item("a_31UDS_1", **NEW, updated="2024-02-01T00:00:00Z", time="2021-05-01T10:50:35Z")
    kept, dropped = stac_items.resolve_duplicates([second, first])
    assert [i.id for i in kept] == ["a_31UDS_1"]
    assert "copy of a_31UDS_1" in dropped[0].reason


def test_two_collections_of_one_archive_hold_copies() -> None:
    one = item("a_31UDS", **NEW, updated="2024-01-01T00:00:00Z")
    two = item("b_31UDS", **NEW, collection="sentinel-2-c1-l2a", box=(3.0, 50.0, 3.1001, 50.1))
    kept, _ = stac_items.resolve_duplicates([two, one])
    assert [i.id for i in kept] == ["a_31UDS"]


def test_parts_of_a_tile_are_no_copies() -> None:
    strip: str = "S2A_OPER_MSI_L2A_DS_VGS2_20210501T123456_S20210501T10{}_N05.09"
    one = item("a_31UDS_0", **NEW, **{"s2:datastrip_id": strip.format("5031")})
    two = item("a_31UDS_1", **OLD, **{"s2:datastrip_id": strip.format("5512")})
    assert len(stac_items.resolve_duplicates([one, two])[0]) == 2
    left = item("a_31UDS_0", **NEW, box=(3.0, 50.0, 3.04, 50.1))
    right = item("a_31UDS_1", **NEW, box=(3.03, 50.0, 3.1, 50.1))
    assert len(stac_items.resolve_duplicates([left, right])[0]) == 2


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)))
def test_the_order_of_items_means_nothing(order: list[int]) -> None:
    items = [
        item(f"{day}_31UDS_{n}", time=f"2021-05-0{day}T10:50:3{n}Z", **props)
        for day, (n, props) in itertools.product((1, 2), enumerate((OLD, NEW, NEW)))
    ]
    kept, _ = stac_items.resolve_duplicates([items[i] for i in order])
    assert [i.id for i in kept] == ["1_31UDS_2", "2_31UDS_2"]


def test_solar_days_are_local() -> None:
    times = ["2021-05-01T23:50:00Z", "2021-05-02T00:10:00Z", "2021-05-02T23:55:00Z"]
    far_east = [days(times, 175.0), days(times, 3.0)]
    assert far_east[0] == ["i0+i1", "i2"]
    assert far_east[1] == ["i0", "i1+i2"]


def days(times: list[str], west: float) -> list[str]:
    zone = f"EPSG:326{int((west + 180) // 6) + 1:02d}"
    box = (west, 50.0, west + 0.01, 50.01)
    items = [
        item(f"i{n}", time=t, box=box, **{"proj:code": zone, "s2:mgrs_tile": str(n)})
        for n, t in enumerate(times)
    ]
    found: list[str] = stac.load(items, bands=("B04",)).attrs["items"]
    return found


def test_slices_of_a_pass_belong_together() -> None:
    a = item("a", time="2021-05-01T17:32:36Z", **{"sat:orbit_state": "ascending"})
    b = item("b", time="2021-05-01T17:33:01Z", **{"sat:orbit_state": "ascending"})
    c = item("c", time="2021-05-01T17:33:01Z", **{"sat:orbit_state": "descending"})
    assert [[i.id for i in g] for g in stac_items.passes([c, b, a])] == [["a", "b"], ["c"]]


def test_when_is_utc() -> None:
    one = item(time="2021-05-01T12:50:31+02:00")
    assert stac_items.when(one) == np.datetime64("2021-05-01T10:50:31", "ns")


def test_no_datetime_is_said() -> None:
    one = item()
    one.datetime = None
    one.properties["datetime"] = None
    with pytest.raises(CatalogueError, match=r"S2A_31UDS_20210501_0_L2A has no datetime.*Use"):
        stac_items.when(one)


def test_a_folder_that_is_no_product(tmp_path: Any) -> None:
    with pytest.raises(CatalogueError, match=r"holds no MTD_MSIL2A.xml: expected a SAFE folder"):
        from_safe(tmp_path)
    (tmp_path / "MTD_MSIL2A.xml").write_text("<a")
    (tmp_path / "GRANULE" / "L2A").mkdir(parents=True)
    (tmp_path / "GRANULE" / "L2A" / "MTD_TL.xml").write_text("<a/>")
    with pytest.raises(CatalogueError, match="cannot be read as XML"):
        from_safe(tmp_path)
    (tmp_path / "MTD_MSIL2A.xml").write_text("<a/>")
    with pytest.raises(CatalogueError, match="holds no HORIZONTAL_CS_CODE"):
        from_safe(tmp_path)
