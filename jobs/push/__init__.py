"""Web Push: messages to browsers and telephones, by way of the service that each of them names."""
