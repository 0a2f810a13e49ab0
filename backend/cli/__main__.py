"""`python -m backend.cli ARGUMENTS`: what the launcher hands over to."""

import sys

from backend.cli.main import main

sys.exit(main(sys.argv[1:]))
