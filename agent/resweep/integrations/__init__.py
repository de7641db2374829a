"""A few lines each for frameworks that have checkpoints of their own: torch, lightning, huggingface, keras.

Each module loads its framework, and nothing loads the module but an import of it.
"""
