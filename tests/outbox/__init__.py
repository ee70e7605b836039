"""Messages between objects: delivery, order, failures and answers."""
