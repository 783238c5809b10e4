"""A page for musicians on this machine: play, hear how it goes on, keep what you like."""
