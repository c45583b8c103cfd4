"""How fast, how fair, how big: figures of real workers on scratch databases."""
