"""The faults that can be planned: of a token, of a document, of a response, and when they happen."""
