"""Tests of `livestate.web.admin.site`."""
