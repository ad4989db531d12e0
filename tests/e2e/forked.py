"""What a fork of the launcher finds of itself. Run by tests/e2e/test_launcher.py, through tests/script.py."""

import json
import multiprocessing
import os
import random


def main() -> None:
    found = {
        "session": os.getsid(0),
        "secret": bytes(multiprocessing.current_process().authkey).hex(),
        "directory": os.getcwd(),
        "random": random.random(),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
