"""The clean cube as STAC items over local cloud-optimised GeoTIFFs."""

from pathlib import Path

import pystac

from cubefill.stac import write_catalogue
from tests.recipes.clean_cube import COLUMNS, LEFT, ROWS, STEP, TOP, clean

BOUNDS = (LEFT, TOP - STEP * ROWS, LEFT + STEP * COLUMNS, TOP)


def write_items(folder: Path) -> list[pystac.Item]:
    root = write_catalogue(clean(), folder / "catalogue")
    found = pystac.ItemCollection.from_file(str(root / "items.json"))
    items = []
    for item in found:
        for asset in item.assets.values():
            asset.href = str(root / asset.href)
        items.append(item)
    return items
