"""`python -m ultrafast_rag`."""

import sys

from ultrafast_rag.cli import main

sys.exit(main())
