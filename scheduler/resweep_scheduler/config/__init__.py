"""The sweep YAML: models, validation with positions, the command template."""
