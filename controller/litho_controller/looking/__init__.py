"""Looking into an image without restoring it: its partitions as files, their file systems mounted, single files taken out."""
