"""Commands as a user meets them."""
