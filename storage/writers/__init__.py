"""One module per file format that results are written to, beside OME-Zarr."""
