"""The add-ons of dfkd-bench, one file each; `dfkd-bench run --method M --with NAME` wraps M in one."""
