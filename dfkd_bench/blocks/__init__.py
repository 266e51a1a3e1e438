"""Building blocks shared by methods: losses, BN statistics, generators, pools. Each has a test with a known answer."""
