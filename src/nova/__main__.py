"""`python -m nova` is `nova`, for launchers such as torchrun that start modules."""

import sys

from nova.cli import main

sys.exit(main())
