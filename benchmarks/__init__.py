"""Programs that measure; none is a test."""
