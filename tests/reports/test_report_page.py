"""A report says what the cube says, in one page that needs nothing else."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from cubefill.cube.flags import in_words
from cubefill.engine import gapfill
from cubefill.errors import CubeError
from cubefill.plot import pixels as pictures
from cubefill.reports import Report, report, summary_html
from cubefill.reports import report_page as reports
from cubefill.reports.html import STEPS, Section, notes, page, pairs
from tests.shared import pictures_scene as scenes

_PNG = "data:image/png;base64,"
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and "head" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def decoded(img: dict[str, str | None]) -> NDArray[np.uint8]:
    head, _, data = str(img["src"]).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return scenes.cube(dates=24, size=40)


@pytest.fixture(scope="module")
def out(cube: xr.Dataset) -> xr.Dataset:
    return gapfill(cube, "whittaker", std=True)


@pytest.fixture(scope="module")
def made(out: xr.Dataset) -> Report:
    return report(out)


@pytest.fixture(scope="module")
def html(made: Report) -> Page:
    return Page(made.html())


class TestPage:
    def test_is_one_file_without_scripts_or_network(
        self, made: Report, html: Page, tmp_path: Path
    ) -> None:
        text = made.save(tmp_path / "r.html").read_text(encoding="utf-8")
        assert text == made.html()
        names = {t for t, _ in html.tags}
        assert not names & {"script", "link", "iframe", "object", "embed", "video", "base"}
        for _, attrs in html.tags:
            assert not [a for a in attrs if a.startswith("on") or a in ("href", "srcset")]
            assert str(attrs.get("src", _PNG)).startswith(_PNG)
        assert not re.search(r"https?:|url\(|@import|javascript:", text)
        assert len(text) < 3_000_000

    def test_is_a_whole_document(self, made: Report, html: Page) -> None:
        assert made.html().startswith("<!DOCTYPE html>")
        assert html.all("html") == [{"lang": "en"}]
        assert html.all("meta")[0] == {"charset": "utf-8"}

    def test_worst_pictures_stay_below_three_megabytes(self) -> None:
        noisy = scenes.cube(dates=6, size=400)
        rng = np.random.default_rng(0)
        for band in scenes.BANDS:
            noisy[band] = noisy[band] * 0 + rng.uniform(0, 0.3, noisy[band].shape).astype("f4")
        found = report(gapfill(noisy, "linear"), self_test=False)
        assert len(found.html()) < 3_000_000

    def test_every_picture_has_words(self, html: Page) -> None:
        assert len(html.all("img")) == 6
        assert all(a["alt"] for a in html.all("img"))
        for svg in html.all("svg"):
            assert svg["role"] == "img"
            assert svg["aria-label"]

    def test_sections_each_say_what_they_mean(self, made: Report, html: Page) -> None:
        titles = [s.title for s in made.sections]
        assert titles == [
            "Worth a second look",
            "The cloudiest date",
            "A partly cloudy date",
            "Clear share of each date",
            "NDVI of single pixels",
            "Held-out error on this cube",
            "How each value came to be",
            "Length of the gaps",
            "Provenance",
        ]
        assert all(s.meaning.endswith(".") for s in made.sections)
        assert html.text.count("Worth a second look") == 1

    def test_text_of_attributes_is_escaped(self) -> None:
        bad = "<script>alert(1)</script>"
        text = page(bad, "", [Section(bad, bad, pairs({bad: bad}) + notes([bad]))])
        assert "<script" not in text
        assert Page(text).text.count(bad) == 6

    def test_a_notebook_gets_a_piece_of_it(self, made: Report) -> None:
        piece = Page(made._repr_html_())
        assert piece.tags[0][0] == "article"
        assert not piece.all("html")
        style = re.search(r"<style>(.*?)</style>", made._repr_html_(), re.DOTALL)
        assert style
        plain = re.sub(r"@media[^{]*\{(.*?\})\s*\}", r"\1", style[1], flags=re.DOTALL)
        rules = re.findall(r"([^{}]+)\{", plain)
        assert rules
        assert all(".cubefill-report" in selector for rule in rules for selector in [rule])


class TestSlider:
    def test_pictures_are_the_cloudiest_date(
        self, cube: xr.Dataset, out: xr.Dataset, made: Report, html: Page
    ) -> None:
        share = cube["valid"].mean(("y", "x")).values
        day = made.facts.dates.cloudiest
        assert share[day] == share.min()
        after, before, flag = (decoded(a) for a in html.all("img")[:3])
        assert html.all("img")[1]["class"] == "before"
        step = out.isel(time=day).compute()
        np.testing.assert_array_equal(before, pictures.rgba(cube.isel(time=day))[..., :3])
        np.testing.assert_array_equal(after, pictures.rgba(step)[..., :3])
        np.testing.assert_array_equal(flag, pictures.flag_rgb(step["fill_flag"].values))
        assert str(cube.time.values[day])[:10] in html.text

    def test_has_a_place_for_every_step(self, made: Report, html: Page) -> None:
        radios = [a for a in html.all("input") if a["type"] == "radio"]
        assert len(radios) == 2 * (STEPS + 1)
        names = {a["name"] for a in radios}
        assert len(names) == 2
        assert sum("checked" in a for a in radios) == 2
        css = made.html()
        for n in (1, STEPS // 2 + 1, STEPS + 1):
            at = f"{100 * (n - 1) / STEPS:g}%"
            for state in ("checked", "hover"):
                assert f"input:nth-of-type({n}):{state}~*{{--p:{at}}}" in css
        assert "clip-path:inset(0 calc(100% - var(--p,50%)) 0 0)" in css
        assert css.rindex(":checked~*") < css.index(":hover~*")

    def test_without_the_cube_observed_pixels_alone(self, out: xr.Dataset) -> None:
        alone = out.compute()
        alone.encoding = {}
        made = report(alone)
        text = Page(made.html())
        assert "before, observed pixels only" in text.text
        assert "The cube before filling is not at hand" in text.text
        assert made.scores is None
        before = decoded(text.all("img")[1])
        day = int(np.abs(alone.time.values - made.facts.time[made.facts.dates.cloudiest]).argmin())
        unseen = alone["fill_flag"].values[day] != 0
        assert (before[unseen] == 0xBD).all()

    def test_before_of_another_place_is_refused(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        with pytest.raises(CubeError, match="before= does not cover"):
            report(out, before=cube.assign_coords(x=cube.x + 1e5))


class TestNumbers:
    def test_flag_shares(self, out: xr.Dataset, made: Report, html: Page) -> None:
        codes, counts = np.unique(out["fill_flag"].values, return_counts=True)
        shares = dict(zip(codes.tolist(), (counts / counts.sum()).tolist(), strict=True))
        assert made.facts.flags == pytest.approx(shares)
        for code, share in shares.items():
            assert f"{pictures.flag_label(code)} {in_words(share)}" in made.text
            assert in_words(share) in html.text

    def test_clear_share_of_each_date(self, cube: xr.Dataset, made: Report, html: Page) -> None:
        np.testing.assert_allclose(made.facts.clear, cube["valid"].mean(("y", "x")).values)
        for t, share in zip(cube.time.values, made.facts.clear, strict=True):
            assert f"{pictures.date_text(t)}: {in_words(share)} clear" in html.text

    def test_curves_show_the_observed_dots(self, cube: xr.Dataset, html: Page) -> None:
        dots = [a for a in html.all("circle") if a["class"] == "seen"]
        charts = [a for a in html.all("svg") if str(a["aria-label"]).startswith("NDVI of place")]
        counts = [int(re.findall(r"(\d+) observed", str(a["aria-label"]))[0]) for a in charts]
        assert 2 <= len(charts) <= 4
        assert len(dots) == sum(counts)
        for label, count in zip((str(a["aria-label"]) for a in charts), counts, strict=True):
            x, y = (float(v) for v in re.findall(r"x (\d+), y (\d+)", label)[0])
            assert count == int(cube["valid"].sel(x=x, y=y).sum())

    def test_held_out_errors(self, made: Report, html: Page) -> None:
        assert made.scores is not None
        assert made.scores["method_name"].values.tolist() == ["whittaker", "linear"]
        for value in made.scores["mae"].values:
            assert f"{value:.4f}" in html.text
        assert f"(n = {made.scores.attrs['n']})" in made.text
        assert str(made.scores.attrs["comment"]) in html.text

    def test_the_default_is_measured_against_linear(self, cube: xr.Dataset) -> None:
        scores = report(cube).scores
        assert scores is not None
        assert scores["method_name"].values.tolist() == ["samedate", "linear"]

    def test_linear_is_measured_against_nearest(self, cube: xr.Dataset) -> None:
        scores = report(cube, method="linear").scores
        assert scores is not None
        assert scores["method_name"].values.tolist() == ["linear", "nearest"]

    def test_valid_of_the_fill_is_what_counts(self, cube: xr.Dataset) -> None:
        mine = cube["valid"].copy()
        mine[3] = False
        found = report(gapfill(cube, "linear", valid=mine), self_test=False).facts
        np.testing.assert_allclose(found.clear, mine.mean(("y", "x")).values)


class TestBeforeFilling:
    def test_two_dates_and_no_flags(self, cube: xr.Dataset) -> None:
        made = report(cube, self_test=False)
        text = Page(made.html())
        assert made.title == "Cube before gap filling"
        assert made.facts.flags == {}
        assert "How each value came to be" not in text.text
        clearest, cloudiest = (decoded(a) for a in text.all("img"))
        days = made.facts.dates
        np.testing.assert_array_equal(
            clearest, pictures.rgba(cube.isel(time=days.clearest))[..., :3]
        )
        np.testing.assert_array_equal(
            cloudiest, pictures.rgba(cube.isel(time=days.cloudiest))[..., :3]
        )

    def test_unsorted_dates(self, cube: xr.Dataset) -> None:
        order = np.random.default_rng(0).permutation(cube.sizes["time"])
        one, two = (report(c, self_test=False) for c in (cube, cube.isel(time=order)))
        assert one.text == two.text
        assert one.html() == two.html()

    def test_one_date(self, cube: xr.Dataset) -> None:
        made = report(cube.isel(time=[5]))
        assert "Not measured" in Page(made.html()).text

    def test_without_ndvi(self, cube: xr.Dataset) -> None:
        titles = [s.title for s in report(cube.drop_vars("B08"), self_test=False).sections]
        assert "NDVI of single pixels" not in titles

    def test_saves_where_told(self, cube: xr.Dataset, tmp_path: Path) -> None:
        report(cube, self_test=False, path=tmp_path / "r.html")
        assert (tmp_path / "r.html").stat().st_size > 10_000


class TestSummary:
    def test_says_what_it_is(self, cube: xr.Dataset) -> None:
        share = in_words(1 - float(cube["valid"].mean()))
        text = Page(summary_html(cube)).text
        assert text.startswith("<gapfill: 24 dates, 4 bands")
        assert "EPSG:32631, 10 m" in text
        assert f"{share} missing" in text

    def test_reads_no_pixel_of_a_lazy_cube(self, cube: xr.Dataset) -> None:
        def refuse(*_: Any) -> NDArray[Any]:
            raise AssertionError("a pixel was read")

        lazy = cube.copy()
        for name, v in cube.data_vars.items():
            blocks = da.map_blocks(
                refuse,
                chunks=((24,), (40,), (40,)),
                dtype=v.dtype,
                meta=np.empty((0, 0, 0), v.dtype),
            )
            lazy[name] = (v.dims, blocks)
        text = Page(summary_html(lazy)).text
        assert "24 dates" in text
        assert "missing" not in text

    def test_a_filled_cube_names_its_method(self, out: xr.Dataset) -> None:
        assert "filled by whittaker" in summary_html(out)

    def test_a_dataset_that_is_no_cube(self) -> None:
        assert "0 dates" in summary_html(xr.Dataset())


def test_report_prints_as_text(made: Report) -> None:
    assert repr(made) == str(made) == made.text
    assert made.text.startswith("Gap filling by whittaker: 24 dates")


def test_a_lazy_result_is_computed_once(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    real = xr.Dataset.compute

    def counted(self: xr.Dataset, **kwargs: Any) -> xr.Dataset:
        if "fill_flag" in self and self.chunks:
            runs.append(self)
        return real(self, **kwargs)

    monkeypatch.setattr(xr.Dataset, "compute", counted)
    report(gapfill(cube, "linear"), self_test=False)
    assert len(runs) == 1
    assert reports.EAGER > 2**20


def test_a_method_worse_than_linear(cube: xr.Dataset) -> None:
    made = report(gapfill(cube, "nearest"))
    assert made.scores is not None
    for metric, what in (("mae", "reflectance"), ("ndvi_mae", "NDVI")):
        first, second = made.scores[metric].values
        more = in_words(first / second - 1)
        said = f"the error of nearest in {what} is {more} larger than that of linear."
        assert any(said in w for w in made.warnings) == (first > 1.02 * second)
    assert len(made.warnings) > 0
