"""Code that exists only for throughput; README.md has the measured effect of each part."""
