"""Samples in a Zarr store, each read when it is asked for, in one read."""

import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from cubefill import layout as layouts
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.errors import StoreError
from cubefill.layout import TARGET, Layout
from cubefill.methods.contract import Block, Needs
from cubefill.samples.form import KIND, WINDOWS, Form, decoded
from cubefill.samples.patches import gapped
from cubefill.samples.places import SPLITS
from cubefill.samples.protocol import Sample

Float = NDArray[np.float32]


@dataclass(frozen=True)
class StoredSamples:
    """Samples of one split of a store; each is read when it is asked for.

    See `samples.open`. It pickles small and is a map-style dataset for torch's `DataLoader`.
    """

    path: str
    split: str = "train"
    method: Any = None
    augment: bool = False
    seasons: bool = False
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        """One sample; the same for the same index and epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index}: expected 0 to {len(self) - 1}.")
        rng = np.random.default_rng([self.seed, self.epoch, index])
        number = self._drawn(rng) if self.seasons else int(self.numbers[index])
        stored = np.asarray(self._data[number])
        if self.augment:
            stored = np.rot90(stored, int(rng.integers(4)), axes=(1, 2))
            stored = stored[..., ::-1] if rng.integers(2) else stored
        parts = self.form.decode(stored)
        if self.method is None:
            sample = _plain(self.form, parts, self._times(number))
        else:
            truth, gapped = (b.of(self._needs) for b in self._blocks(number, parts))
            sample = dict(self.method.encode(gapped) | self.method.target(truth, gapped))
        if len(self._windows):
            window = np.asarray(self._group[self._named][int(rng.choice(self._windows))])  # type: ignore[index]
            shown = [self.form.bands.index(b) for b in self._needs.bands or self.form.bands]
            sample[WINDOWS] = np.nan_to_num(decoded(window))[:, shown]
        return sample

    def at(self, epoch: int) -> "StoredSamples":
        """The samples of another epoch: other turns, other draws of seasons."""
        made = replace(self, epoch=epoch)
        made.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _NAMES})
        return made

    def blocks(self, index: int) -> tuple[Block, Block]:
        """What was seen of a sample, and what a method is shown of it."""
        number = int(self.numbers[index])
        return self._blocks(number, self.form.decode(np.asarray(self._data[number])))

    @property
    def digest(self) -> str:
        """A word that changes with the samples."""
        return f"{self._group.attrs['digest']}-{self.split}"

    @cached_property
    def form(self) -> Form:
        """What the layers are."""
        entries: Any = self._group.attrs["form"]
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()
        }
        return Form(**values)

    @cached_property
    def layout(self) -> Layout | None:
        """The layout that chose the dates, None for windows of consecutive dates."""
        if not self.form.layout:
            return None
        return layouts.read(json.loads(self.form.layout), self.form.layout_name)

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """How the samples were made, and `acquisitions`: all dates of every cube."""
        return dict(self._group.attrs)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """Positions of these samples in the store."""
        codes = np.asarray(self._group["split"][...])  # type: ignore[index]
        return np.flatnonzero(codes == SPLITS.index(self.split))

    @cached_property
    def table(self) -> xr.Dataset:
        """Facts of these samples: dates, shares of clear pixels, place, season and so on."""
        found = {}
        for name, a in self._group.arrays():
            if a.metadata.dimension_names[0] == "sample" and name != "data":  # type: ignore[index, union-attr]
                values = np.asarray(a[...])[self.numbers]
                if name in ("time", "sar_time", "reference"):
                    values = values.view("datetime64[ns]")
                found[name] = (a.metadata.dimension_names, values)  # type: ignore[union-attr]
        return xr.Dataset(found, {"date": list(self.form.dates)})

    # -------------------------------------------------------------- parts

    @property
    def _needs(self) -> Needs:
        """What a sample holds: what the method needs, or all that is stored."""
        form = self.form
        return getattr(self.method, "needs", Needs(form.bands, sar=any(form.sar), dem=form.dem))

    def __getstate__(self) -> dict[str, Any]:
        return {n: self.__dict__[n] for n in _NAMES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _group(self) -> zarr.Group:
        return opened(self.path)

    @cached_property
    def _data(self) -> Any:
        return self._group["data"]

    @cached_property
    def _named(self) -> str:
        """Name of the array of clear windows; version 0.1 called it "real"."""
        return "real" if "real" in self._group else WINDOWS

    @cached_property
    def _windows(self) -> NDArray[np.int64]:
        """Positions of the clear windows of the split."""
        if self._named not in self._group:
            return np.zeros(0, np.int64)
        codes = np.asarray(self._group[f"{self._named}_split"][...])  # type: ignore[index]
        return np.flatnonzero(codes == SPLITS.index(self.split))

    @cached_property
    def _facts(self) -> dict[str, NDArray[Any]]:
        names = ("time", "sar_time", "reference", "season", "row", "col")
        return {n: np.asarray(self._group[n][...]) for n in names}  # type: ignore[index]

    @cached_property
    def _of_season(self) -> list[NDArray[np.int64]]:
        seasons = self._facts["season"][self.numbers]
        found = [self.numbers[seasons == s] for s in range(4)]
        return [f for f in found if len(f)]

    def _drawn(self, rng: np.random.Generator) -> int:
        return int(rng.choice(self._of_season[int(rng.integers(len(self._of_season)))]))

    def _times(self, number: int) -> NDArray[np.datetime64]:
        """Time of each date, of its SAR image where it has no other."""
        time = self._facts["time"][number].view("datetime64[ns]")
        return np.where(np.isnat(time), self._facts["sar_time"][number].view(time.dtype), time)

    def _blocks(self, number: int, parts: dict[str, NDArray[Any]]) -> tuple[Block, Block]:
        place = (0, int(self._facts["row"][number]), int(self._facts["col"][number]))
        times = self._times(number)
        if self.layout is None:
            return window_blocks(self.form, parts, times, place)
        reference = self._facts["reference"][number].view("datetime64[ns]")
        return layout_blocks(self.form, self.layout, parts, times, reference, place)


_NAMES = tuple(f.name for f in fields(StoredSamples))


def opened(path: str | Path) -> zarr.Group:
    """The group of a store of samples.

    Raises
    ------
    StoreError
        There is none.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(
            f"{path} is not a store ({error}): expected one that samples.make wrote."
        ) from error
    if group.attrs.get("kind") != KIND:
        raise StoreError(f"{path} holds no samples: expected a store that samples.make wrote.")
    return group


# ------------------------------------------------------------------ what a sample is read as


def _plain(form: Form, parts: dict[str, NDArray[Any]], times: NDArray[np.datetime64]) -> Sample:
    """Arrays by name: `s2_t`, `s1_t`, `valid_t` of slots; `optical`, `sar` of windows."""
    days = (times - times.min()).astype(np.int64) / 86_400e9
    found: Sample = {"days": days.astype(np.float32)}
    optical, valid = parts["optical"], parts["valid"]
    if not form.layout:
        seen = valid & ~parts["hidden"] if form.gaps else valid
        known = np.isfinite(optical)
        where = (parts["hidden"] if form.gaps else valid)[:, None] & known
        found["optical"] = optical
        if form.gaps:
            found["optical"] = np.where(parts["hidden"][:, None], np.float32(np.nan), optical)
        found |= {"valid": seen, "target": np.where(known, optical, np.float32(0)), "where": where}
        found |= {n: parts[n] for n in ("sar", "coherence") if len(parts[n])}
    else:
        shown = [n for n, on in zip(form.dates, form.optical, strict=True) if on]
        radar = [n for n, on in zip(form.dates, form.sar, strict=True) if on]
        for i, name in enumerate(shown):
            found |= {f"s2_{name}": optical[i], f"valid_{name}": valid[i]}
        found |= {f"s1_{name}": parts["sar"][i] for i, name in enumerate(radar)}
        if form.coherence:
            found |= {f"coherence_{n}": parts["coherence"][i] for i, n in enumerate(radar)}
    return found | ({"dem": parts["dem"]} if form.dem else {})


def _radar(form: Form) -> dict[str, tuple[str, int]]:
    """Name of a SAR band to its part and its position there."""
    found = {n: ("sar", i) for i, n in enumerate(SAR_BANDS) if any(form.sar)}
    return found | {n: ("coherence", i) for i, n in enumerate(COHERENCE) if form.coherence}


def window_blocks(
    form: Form,
    parts: dict[str, NDArray[Any]],
    times: NDArray[np.datetime64],
    place: tuple[int, int, int],
) -> tuple[Block, Block]:
    """A window of dates as it was seen, and with its artificial gaps."""
    valid = parts["valid"]
    truth = Block(
        bands={b: parts["optical"][:, i] for i, b in enumerate(form.bands)},
        valid=valid,
        time=times,
        out_time=times,
        origin=place,
        sar={n: parts[p][:, i] for n, (p, i) in _radar(form).items()},
        dem=parts["dem"][0] if form.dem else None,
    )
    if not form.gaps:
        return truth, truth
    return truth, gapped(truth, parts["hidden"])


def layout_blocks(
    form: Form,
    layout: Layout,
    parts: dict[str, NDArray[Any]],
    times: NDArray[np.datetime64],
    reference: np.datetime64,
    place: tuple[int, int, int],
) -> tuple[Block, Block]:
    """The date to give alone, and the dates that are shown, in order of time.

    Both are about the target's date in a synthesis, else about the reference.
    """
    seen = dict(zip(np.flatnonzero(form.optical).tolist(), range(len(times)), strict=False))
    radar = dict(zip(np.flatnonzero(form.sar).tolist(), range(len(times)), strict=False))
    shape = (form.patch, form.patch)

    def block(steps: list[int], out: NDArray[np.datetime64]) -> Block:
        def images(part: str, i: int, at: dict[int, int]) -> Float:
            empty = np.full(shape, np.nan, np.float32)
            return np.stack([parts[part][at[d], i] if d in at else empty for d in steps])

        none = np.zeros(shape, bool)
        return Block(
            bands={b: images("optical", i, seen) for i, b in enumerate(form.bands)},
            valid=np.stack([parts["valid"][seen[d]] if d in seen else none for d in steps]),
            time=times[steps],
            out_time=out,
            origin=place,
            sar={n: images(p, i, radar) for n, (p, i) in _radar(form).items()},
            dem=parts["dem"][0] if form.dem else None,
        )

    goal = form.dates.index(layout.origin.name if layout.generates else TARGET)
    wanted = times[goal : goal + 1] if layout.synthesis else np.array([reference])
    inputs = [d for d, n in enumerate(form.dates) if n != TARGET]
    order = np.unique(times[inputs], return_index=True)[1]
    gapped = block([inputs[i] for i in order], wanted)
    return block([goal], times[goal : goal + 1]), gapped
