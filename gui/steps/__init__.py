"""What each step knows, asks for and says: no Qt, and a snapshot that never changes."""
