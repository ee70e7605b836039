"""Messages between objects as values: the record that handlers see, and one on its way."""
