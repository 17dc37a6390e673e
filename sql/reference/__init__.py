"""The sample application, schema `app`: what a product with accounts, mail and plans keeps, for the catalogue's jobs to work on."""
