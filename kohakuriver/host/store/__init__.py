"""The host's rows: one file per noun, each spells its own SQL."""
