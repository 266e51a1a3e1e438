"""Tables drawn from records: runs, leaderboard, pairs, published numbers and others."""
