"""Programs that run in the sidecar's Python, not in ours: each stands alone, without edgekit."""
