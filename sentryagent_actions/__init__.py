"""The code of the actions, which runs in a workflow step and talks to the provider and to GitHub over HTTP only."""
