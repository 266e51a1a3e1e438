"""A student for a teacher of one's own, with no dataset anywhere: what `dfkd-bench distill` does."""
