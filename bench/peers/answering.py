"""The end of a contestant in a process of its own: one line of JSON in for each call, one out.

Scripts here run in other environments than the project's, so this needs nothing but Python.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def answer(make: Callable[[], Any]) -> None:
    """Make the contestant, then call its methods as they are asked for, until the asker closes its end.

    Lines in are [method, arguments]; lines out are what the method returned, the first one what `versions` does.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes into the log
    contestant = make()
    print(json.dumps(contestant.versions()), file=replies, flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(contestant, method)(*arguments)), file=replies, flush=True)
