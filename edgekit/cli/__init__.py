"""The `edgekit` command line: a thin group whose commands the parts contribute (extra `[cli]`)."""
