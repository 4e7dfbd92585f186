"""Scripts for working on edgekit itself; nothing here is shipped."""
