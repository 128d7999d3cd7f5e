"""Fill the gaps that clouds leave in Sentinel-2 cubes."""
