"""quietscope within napari: a reader, a sample, and a widget that denoises a layer."""
