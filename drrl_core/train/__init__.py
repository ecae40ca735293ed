"""Training and measuring: configuration, negatives, epochs, ranking, popularity."""
