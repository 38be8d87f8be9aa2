"""`python -m guard`, the form that torchrun starts."""

import sys

from guard.cli import main

sys.exit(main())
