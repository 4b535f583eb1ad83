"""Which target is asked, how often, and when one is left alone. One owner of all repeats."""
