"""What proposes parameters for a new run."""
