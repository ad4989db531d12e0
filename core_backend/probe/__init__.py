"""What is wrong with this machine, found before a model is loaded: versions, CANN, the device, operators.

`python -m core_backend.probe` prints all findings as JSON, and works where importing torch does not.
"""
