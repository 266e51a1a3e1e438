"""`dfkd-bench distill`: distil a user's own teacher into a student, without any dataset."""
