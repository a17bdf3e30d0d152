"""The benchmark: livestate beside its neighbours, on one core each, in turn. See README.md in this folder."""
