"""Which version answers where, and the snapshot that tells serving so."""
