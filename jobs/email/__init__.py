"""The job kind `email`: one message, through a relay, to each of its recipients once."""
