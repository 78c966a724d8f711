"""Small values, protocols and errors that every room shares: standard library and msgspec only."""
