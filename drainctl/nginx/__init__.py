"""nginx on a node: its upstream file, its workers, and what its configuration says. Pure text in and out."""
