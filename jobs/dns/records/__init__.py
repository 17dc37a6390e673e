"""What is right for each type of record."""
