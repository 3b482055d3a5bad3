"""`python -m distilora` is the command `distilora`."""

import sys

from distilora.cli.main import main

sys.exit(main())
