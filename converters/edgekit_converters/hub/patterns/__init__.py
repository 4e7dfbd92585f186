"""Functions that exporters write out in pieces, found again. One function a file."""
