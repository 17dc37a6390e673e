"""What an account has, over every table: exported, and erased."""
