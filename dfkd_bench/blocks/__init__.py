"""What several methods share: losses, BN statistics, generators. Each block has a known-answer test."""
