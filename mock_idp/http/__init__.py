"""The mock over HTTP: GitHub's endpoints, the control API, the web page and the server."""
