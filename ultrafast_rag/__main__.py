"""`python -m ultrafast_rag`."""

import sys

from ultrafast_rag.serve.cli import main

sys.exit(main())
