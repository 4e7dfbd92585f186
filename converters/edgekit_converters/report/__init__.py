"""The report of a conversion: JSON and one self-contained HTML file, outside of the package's digest."""
