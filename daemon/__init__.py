"""How work runs: claimed, limited, run and recorded.  Knows nothing of webhooks or mail."""
