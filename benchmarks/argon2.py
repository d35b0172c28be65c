"""The bare cost of a password: how many one process verifies per second, one after the other.

python -m benchmarks.argon2 SECONDS     prints verifications per second, and their CPU time in ms
"""

import sys
import time

from services.auth.src import passwords


def main() -> None:
    seconds = float(sys.argv[1])
    stored = passwords.hashed("the right password")
    verified, begun, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        if not passwords.matches(stored, "the right password"):
            raise SystemExit("the right password was refused")
        verified += 1
    print(verified / (time.perf_counter() - begun), (time.process_time() - spent) / verified * 1000)


if __name__ == "__main__":
    main()
