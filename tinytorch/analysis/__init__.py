"""What a network costs, worked out without running it, and where its time goes when it runs."""
