"""The JSON codec: an object's state to bytes and back, exactly."""
