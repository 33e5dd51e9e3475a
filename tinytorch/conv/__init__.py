"""Arrays in, arrays out: what a convolution is, and the algorithms that compute it."""
