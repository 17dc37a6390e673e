"""Looks at what is watched (HTTP, TCP, TLS, SMTP, DNS) and says when it is well and when it is not."""
