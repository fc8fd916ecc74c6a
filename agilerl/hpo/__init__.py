"""Evolution: the tournament and the mutations."""
