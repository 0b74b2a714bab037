"""What lies behind a score: buckets of posts and mentions, kinds of errors, cost."""
