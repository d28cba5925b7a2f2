"""The actions: what runs in a workflow's step. Meets the provider and GitHub over HTTP alone."""
