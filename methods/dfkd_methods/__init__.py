"""The methods of dfkd-bench, one file each, in the notation of its paper."""
