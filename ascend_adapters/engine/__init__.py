"""The embedded engine: its start and its end (engine.py), one run of it (run.py), and its own process (child.py)."""
