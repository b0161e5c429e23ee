"""``python -m steadygrad`` is ``steadygrad``."""

import sys

from steadygrad.cli.main import main

sys.exit(main())
