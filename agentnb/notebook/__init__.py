"""What a person touches: sessions, handles, views."""
