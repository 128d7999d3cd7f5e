"""Addresses: `file://` names a path at every door, what cannot be opened is said, no secret is."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cubefill
from cubefill import addresses, formats, reports, stac
from cubefill.errors import CubefillError, StoreError
from cubefill.nn import checkpoint
from cubefill.ownership import same_place
from cubefill.store.source import describe, place
from cubefill.testing import synthetic_cube

NAMES = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1)


@given(NAMES.map(lambda name: "/data/" + name))
def test_a_file_url_is_its_path(path: str) -> None:
    assert addresses.local(Path(path).as_uri()) == str(Path(path))
    assert addresses.local(f"FILE://localhost{Path(path).as_uri()[7:]}") == str(Path(path))


@given(st.text())
def test_text_is_a_path_or_refused_in_our_words(text: str) -> None:
    try:
        found = addresses.local_path(text)
    except CubefillError:
        return
    assert isinstance(found, Path)


@given(
    user=st.text("abcXYZ0189._~%-", min_size=6),
    secret=st.text("abcXYZ0189._~%-", min_size=6),
    form=st.sampled_from(
        [
            "http://u:{}@host/a.tif",
            "https://{}@host/a.tif",
            "https://host/a.tif?sig={}&se=2030",
            "s3://b/token={}/a.tif",
            "abc http://u:{}@host/a.tif?x=y, and more",
        ]
    ),
)
def test_no_secret_of_a_url_is_said(user: str, secret: str, form: str) -> None:
    assert f"<{secret}>" not in addresses.bare(form.format(f"<{secret}>"))
    assert addresses.bare("https://host/a/b.tif") == "https://host/a/b.tif"


def test_a_file_url_of_another_machine_is_refused_and_the_hint_leads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"names the machine 'data'.*Use 'data/c\.zarr'"):
        cubefill.open_cube("file://data/c.zarr")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    cubefill.write_cube(synthetic_cube(), "data/c.zarr", progress=False)
    assert same_place("data/c.zarr", (tmp_path / "data/c.zarr").as_uri())


def test_every_door_takes_a_file_url(tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "with space"
    folder.mkdir()
    url = folder.as_uri()
    cube = synthetic_cube()
    cubefill.write_cube(cube, f"{url}/c.zarr", progress=False)
    opened = cubefill.open_cube(f"{url}/c.zarr")
    filled = cubefill.run(f"{url}/c.zarr", f"{url}/f.zarr", "linear", progress=False)
    xr.testing.assert_identical(filled["B04"].load(), cubefill.open_cube(folder / "f.zarr")["B04"])
    items = stac.search(stac.write_catalogue(cube, f"{url}/catalogue"))
    saved = items.save(f"{url}/items.json")
    loaded = stac.load(stac.search(f"{url}/items.json"), bands=("B04",))
    np.testing.assert_array_equal(loaded["B04"].isnull(), opened["B04"].isnull())
    assert len(stac.search(f"{url}/catalogue")) == len(items)
    pictures = formats.to_geotiff(
        filled, f"{url}/tifs", bands=["B04"], time=cube["time"].values[:1]
    )
    page = reports.report(filled, self_test=False).save(f"{url}/report.html")
    shown = cubefill.plot.preview(filled, f"{url}/p.png")
    net = torch.nn.Linear(2, 1)
    made = checkpoint.save(f"{url}/net", net.state_dict(), checkpoint.Card("a.b:C"))
    assert sorted(checkpoint.load(f"{url}/net")[0]) == ["bias", "weight"]
    for path in (saved, *pictures, page, shown, made):
        assert path.exists()
        assert folder in path.parents
    assert sorted(os.listdir(tmp_path)) == ["with space"]


DOORS: dict[str, Any] = {
    "open_cube": cubefill.open_cube,
    "write_cube": lambda to: cubefill.write_cube(synthetic_cube(), to, progress=False),
    "run": lambda to: cubefill.run(synthetic_cube(), to, "linear", progress=False),
    "search": stac.search,
    "from_safe": stac.from_safe,
    "write_catalogue": lambda to: stac.write_catalogue(synthetic_cube(), to),
    "checkpoint": checkpoint.load,
    "to_geotiff": lambda to: formats.to_geotiff(synthetic_cube(), to),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_url_of_an_unknown_kind_is_refused_at_every_door(door: str) -> None:
    with pytest.raises(CubefillError, match=r"nonsense:/+bucket/c") as caught:
        DOORS[door]("nonsense://bucket/c.zarr")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "install"),
    [
        ("s3://bucket/c.zarr", r"pip install 'cubefill\[cloud\]'"),
        ("gs://bucket/c.zarr", "pip install gcsfs"),
        ("https://u:hidden@host/c.zarr?sig=hidden", "pip install aiohttp"),
        ("simplecache::s3://bucket/c.zarr", r"pip install 'cubefill\[cloud\]'"),
    ],
)
def test_what_to_install_for_a_url_is_said(
    url: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("zarr.storage.FsspecStore.from_url", absent)
    with pytest.raises(StoreError, match=install) as caught:
        cubefill.open_cube(url)
    assert "hidden" not in str(caught.value)


def test_a_store_that_fails_in_classes_of_its_own_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("no access to http://u:hidden@host")

    store = place("memory://bucket/c.zarr")
    monkeypatch.setattr("zarr.open_group", denied)
    with pytest.raises(StoreError, match="cannot be read as a zarr store") as caught:
        cubefill.open_cube(store)
    assert "hidden" not in str(caught.value) + describe(store)


@settings(max_examples=30)
@given(st.sampled_from(["x" * 300, "a\x00b", "file:///a%00b"]))
def test_what_no_file_can_be_named(name: str) -> None:
    with pytest.raises(StoreError, match="no name of a file"):
        cubefill.open_cube(name)
