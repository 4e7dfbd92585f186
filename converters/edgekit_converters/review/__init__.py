"""Looking at finished packages: are they what they say, what differs between two, what are they made of."""
