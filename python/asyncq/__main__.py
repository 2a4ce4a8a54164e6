"""`python -m asyncq` is the `asyncq` program."""

import os
import sys

from asyncq import Error
from asyncq._config import find_binary

try:
    binary = find_binary()
except Error as error:
    sys.exit(f"error: {error}")
os.execv(binary, [binary, *sys.argv[1:]])
