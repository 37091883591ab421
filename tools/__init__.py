"""What builds, executes and shoots the book."""
