"""`python -m jaxlirpa`."""

import sys

from jaxlirpa.command import main

sys.exit(main())
