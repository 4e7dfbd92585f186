"""Runtimes that load variants on this device; each module is imported when it is first used."""
