"""Images: from files, archives and the hub to batches."""
