"""The engine: stages with a content-addressed cache, in worker processes, failing one by one."""
