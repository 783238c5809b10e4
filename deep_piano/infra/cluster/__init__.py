"""Ray: connect, keep tasks at work, count, and submit jobs."""
