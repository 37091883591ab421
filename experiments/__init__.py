"""What trains and measures for the book: one script a result, named as its file in ``book/results``."""
