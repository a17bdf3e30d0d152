"""The benchmark: compares livestate with other servers, one core each, in turn. See README.md in this folder."""
