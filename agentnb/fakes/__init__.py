"""Stand-ins for programs that cost money or need a key, so that a notebook's or a package's own tests need neither."""
