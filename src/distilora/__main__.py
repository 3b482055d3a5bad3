"""`python -m distilora` is the command `distilora`."""

import sys

from distilora.cli import main

sys.exit(main())
