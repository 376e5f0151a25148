"""``python -m undistill`` is ``undistill``."""

import sys

from undistill.cli import main

sys.exit(main())
