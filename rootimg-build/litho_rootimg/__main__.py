"""`python -m litho_rootimg`."""

import sys

from litho_rootimg.main import main

sys.exit(main())
