"""Text messages, by way of a provider that takes them over HTTP."""
