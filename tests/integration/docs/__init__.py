"""The code blocks of the documents."""
