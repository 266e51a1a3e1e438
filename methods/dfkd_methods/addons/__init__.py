"""The add-ons that dfkd-bench ships, one file each; `dfkd-bench run --method M --with NAME` puts one around M."""
