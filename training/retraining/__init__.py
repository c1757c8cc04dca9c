"""Models that keep up with the microscope: candidates, their gate, the night."""
