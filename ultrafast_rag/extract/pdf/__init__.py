"""PDF pages -> elements."""
