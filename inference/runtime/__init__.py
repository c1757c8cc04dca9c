"""One model on one processor: sessions, buffers, providers, tiles, and their speed."""
