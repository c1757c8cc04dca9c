"""Every method on one recording, by one ruler: what each makes of it, and which one to take."""
