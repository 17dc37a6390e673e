"""The sample application, schema `app`: what a product keeps, for the catalogue's jobs to work on."""
