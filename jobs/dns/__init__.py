"""The dns channel."""
