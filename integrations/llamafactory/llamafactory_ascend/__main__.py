"""`python -m llamafactory_ascend`."""

from llamafactory_ascend.cli import main

main()
