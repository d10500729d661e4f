"""Messages to domain values and back; each translation exists once."""
