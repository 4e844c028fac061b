"""Questions asked before, answered from memory while the index has not changed.

The key holds the index's generation, so a commit by anyone makes older entries unreachable; the
oldest are dropped. Values live in this process only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

ENTRIES = 1024


class QueryMemory:
    """Least recently used results by question and settings; thread-safe."""

    def __init__(self, *, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> Any | None:
        """The result, or None."""
        with self._lock:
            if key not in self._known:
                self.misses += 1
                return None
            self._known.move_to_end(key)
            self.hits += 1
            return self._known[key]

    def put(self, key: Hashable, value: Any) -> None:
        """Remember a result."""
        with self._lock:
            self._known[key] = value
            self._known.move_to_end(key)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()
