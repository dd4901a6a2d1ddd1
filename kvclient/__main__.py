"""`python -m kvclient`: the command line of cli.py, and nothing else."""

import sys

from kvclient.cli import main

if __name__ == "__main__":
    sys.exit(main())
