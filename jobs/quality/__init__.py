"""What a row must be to be used: casts that never fail and rules that account for every row."""
