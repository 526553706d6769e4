"""The AccountSecret: names, models, validation. Pure."""
