"""How one command runs; hosted by the supervisor process."""
