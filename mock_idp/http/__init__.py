"""The HTTP face of the mock: GitHub's endpoints, the control API, the page, and the server that carries them."""
