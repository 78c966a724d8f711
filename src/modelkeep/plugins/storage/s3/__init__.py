"""Blobs in an object store that speaks S3, with verified copies on the local disk."""

from modelkeep.plugins.storage.s3.store import S3BlobStore

__all__ = ["S3BlobStore"]
