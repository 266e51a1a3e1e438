"""The leaderboard as one self-contained HTML page; see `build`."""

from dfkd_bench.report.html.build import page as page
