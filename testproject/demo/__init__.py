"""A census of a source tree: a small app that uses task sets as any other would."""
