"""Shards: tar files with many videos each, in the layout of WebDataset and video2dataset, and the index of them."""
