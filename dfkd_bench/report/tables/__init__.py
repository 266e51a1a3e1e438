"""Tables made from records: runs, leaderboard, pairs, published numbers and others."""
