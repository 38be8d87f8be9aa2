"""What only a gateway sees: sequences of queries that one picture alone does not give away."""
