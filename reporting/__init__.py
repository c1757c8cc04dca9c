"""How every command speaks, and how its page is drawn."""
