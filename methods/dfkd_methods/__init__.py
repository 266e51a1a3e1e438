"""The methods that dfkd-bench ships, one file each, readable beside its paper."""
