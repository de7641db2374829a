"""resweep: hyperparameter sweeps that survive preemption."""
