"""Where frames come from: pycro-manager's hook, a live camera, a growing dataset."""
