"""The identity provider: GitHub's signed word about a workflow goes in, a short-lived access token comes out."""
