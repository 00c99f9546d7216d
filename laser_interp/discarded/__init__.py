"""What LASER discards: what it answers, which directions do it, and what they read and write."""
