"""What chat models are held to, one function for each feature: ours, here and behind a server, and other makers' beside
them. The table of docs/adapters.md is made of their runs (tools/adapters_doc.py).
"""
